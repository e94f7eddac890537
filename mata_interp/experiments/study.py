"""mi.study: from a model and a benchmark to a tested answer, chosen and tested on different items."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..benchmarks import Item, Items
from ..benchmarks.entries import as_items
from ..errors import RunError
from ..interventions import AttentionEdit
from ..lalm.batching import in_parts
from ..tracing import audio_share, trace
from .answer import answer_text
from .choosing import BASELINE, GRID_ITEMS, Choice, Search, candidates, choose, resolve_search
from .conditions import Condition, named_conditions
from .dose_matching import match_alpha
from .effects import CONFLICT, effects_table
from .folder import refuse_other_run
from .layer_provenance import layer_origin
from .manifest import known_beforehand
from .random_layers import random_layers
from .results import Run, load_run, read_trace, write_effects, write_trace
from .run import run_validated, warn_of_reuse
from .schema import from_plain, read_versioned, write_versioned
from .selection import refuse_other_sweep, swept
from .study_result import (
    Configuration,
    LayerOrigin,
    LayerShare,
    Selection,
    ShamMatch,
    Split,
    StudyResult,
    SweepQuality,
)
from .validation import ValidatedItems, validate_items

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM, Prompt

__all__ = ["study"]

TRACE_ITEMS = 300  # of the selection split, spread evenly
SWEEP = "selection.nc"
MATCH_ITEMS = 48  # of the swept items: the sham's alpha needs a mean, not a test
DRAWS = 5  # of random layers


def study(  # noqa: PLR0913 one keyword per setting of a study
    lalm: LALM,
    items: Items | Sequence[Item],
    out: str | Path,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    strict: bool = False,
    search: Search | None = None,
) -> Run:
    """Test whether MATA helps a model on a benchmark: choose, match the sham, measure, test.

    1. Selection split: every window of consecutive layers up to half the model with five alphas is swept over
       up to 96 conflict items (all items if there are none), and the best mean margin chosen; attention is
       traced on up to 300 items; the sham on text gets the alpha at which its mean row KL equals MATA's (on
       48 of the swept items).
    2. Confirmation split, other recordings: baseline, MATA, the sham on text, MATA in five draws of random
       layers, another clip's audio without and with MATA, and no audio.
    3. The effects (`mata_interp.experiments.effects` says what is compared and corrected) and the answer in
       plain English.

    A study is resumable: the same call continues one that was stopped.

    Args:
        lalm: The model.
        items: Items of both splits, e.g. from `load_benchmark`.
        out: The folder to write: a run folder with the sweep (``selection.nc``), ``sham.json``, ``trace.nc``,
            ``study.json`` and ``effects.json`` beside the manifest.
        layers: Edit these layers and choose only alpha: layer indices, or the result of `fusion_layers`.
            None: choose both.
        items_limit: Use at most this many items of each split, spread evenly over conditions and kinds.
        batch_size: Number of items per batch.
        progress: Show progress bars.
        seed: Seed of splits that the data do not define, random layers, other audio, permutations and
            bootstraps.
        strict: Raise for an item that cannot be used, instead of leaving it out with a warning.
        search: ``"full"``: sweep every window with every alpha. ``"coarse"``: search from coarse to fine
            (`search_windows`), which at 32 layers takes a seventh of the configurations. None: coarse where
            the full grid has more than 600 configurations (18 layers and more) and there are at least 32
            clips to choose on.

    Returns:
        The `Run`, with ``trace``, ``effects`` and ``study``.

    Warns:
        RunWarning: Items were left out; ``layers`` were chosen on clips that are tested.

    Raises:
        RunError: A split has no usable item; ``out`` cannot be written or holds another study.
        InterventionError: The model does not have these ``layers``.
        ItemError: An item cannot be used, and ``strict`` is set.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> done = mi.study(lalm, items, "first-study", layers=[4, 5], items_limit=6, progress=False)
        >>> done.study.selection.chosen.layers
        (4, 5)
    """
    out, clock = Path(out).expanduser(), _Clock()
    items = as_items(items)
    configurations = candidates(lalm, layers)
    grid_conditions = {BASELINE: None, **configurations}
    _refuse_other_study(lalm, out, grid_conditions, batch_size, seed)
    selection_items = _split(items, "selection", items_limit, seed)
    test_items = _split(items, "confirmation", items_limit, seed)
    with clock("checking items"):
        selection = validate_items(lalm, selection_items, progress=progress, scored=True, strict=strict)
        test = validate_items(lalm, test_items, progress=progress, scored=True, strict=strict)
    any_alpha = next(iter(configurations.values()))
    warn_of_reuse(test, named_conditions({"mata": any_alpha}))
    origin = None if layers is None else layer_origin(layers, any_alpha, selection, test)

    settings = {"batch_size": batch_size, "progress": progress, "seed": seed}
    subset = selection.only(_conflict_items(selection_items).sample(GRID_ITEMS, seed=seed))
    with clock("choosing layers and alpha"):
        search = resolve_search(search, configurations, len(subset.clusters))
        sweep = swept(lalm, subset, grid_conditions, out / SWEEP, search=search, **settings)
        choice = choose(sweep, configurations)
    with clock("tracing attention"):
        to_trace = selection.only(selection_items.sample(TRACE_ITEMS, seed=seed))
        traced = _trace(lalm, to_trace, out / "trace.nc", batch_size=batch_size, progress=progress)
    mata = configurations[choice.name]
    mata = replace(mata, chosen_on=(*mata.chosen_on, *selection.clusters))
    with clock("matching the sham"):
        to_match = subset.only(subset.items[:MATCH_ITEMS])
        sham = _match(lalm, mata, choice.chosen, to_match, out / "sham.json", batch_size)
    draws = random_layers(lalm.attention_layers, mata.layers, DRAWS, seed)
    with clock("measuring"):
        conditions = _conditions(mata, sham.alpha, draws)
        measured = run_validated(lalm, test, conditions, out, label="measuring", **settings)
    with clock("testing"):
        effects = effects_table(measured.records, measured.roles, seed)

    primary = effects[0]
    result = StudyResult(
        answer=answer_text(effects, choice.chosen, sham, len(selection.clusters), origin),
        hypothesis=_hypothesis(primary.comparison.subset),
        primary=primary,
        selection=_selection(selection, subset, choice, sweep, origin, sham, draws, traced),
        test=Split(len(test.items), len(test.clusters)),
        excluded=tuple(dict.fromkeys([*selection.excluded, *test.excluded])),
        truncated=len(selection.truncated) + len(test.truncated),
        seed=seed,
        items_limit=items_limit,
        seconds=clock.seconds,
        command=shlex.join(sys.argv),
        model=measured.manifest["model"],
    )
    write_effects(out / "effects.json", effects)
    result.save(out / "study.json")
    return load_run(out)


def _refuse_other_study(
    lalm: LALM, out: Path, grid_conditions: Mapping[str, AttentionEdit | None], batch_size: int, seed: int
) -> None:
    """Raise a RunError if the folder holds a study of another model or other settings."""
    known = known_beforehand(lalm, named_conditions(grid_conditions), batch_size, seed)
    refuse_other_sweep(out / SWEEP, known)
    refuse_other_run(out, {name: value for name, value in known.items() if name != "conditions"})


def _split(items: Items, name: str, limit: int | None, seed: int) -> Items:
    split = items.split(name, seed=seed)
    if not len(split):
        raise RunError(f"{items.name} has no item in its {name} split; a study needs both splits.")
    return split if limit is None else split.sample(limit, seed=seed)


def _conflict_items(items: Items) -> Items:
    """The items whose caption contradicts the audio; all items where there are none."""
    conflict = items.filter(condition=CONFLICT)
    return conflict if len(conflict) else items


def _conditions(
    mata: AttentionEdit, sham_alpha: float, draws: Sequence[tuple[int, ...]]
) -> dict[str, Condition]:
    """MATA, its baseline and its controls, in the order in which they are reported."""
    on_text = replace(mata, alpha=sham_alpha, keys="text")
    random = {
        f"mata in random layers {n}": Condition(
            replace(mata, layers=layers, chosen_on=()), role="sham_random_layers"
        )
        for n, layers in enumerate(draws, 1)
    }
    return {
        BASELINE: Condition(role="baseline"),
        "mata": Condition(mata, role="mata"),
        "mata on text": Condition(on_text, role="sham_text"),
        **random,
        "other audio": Condition(audio="other", role="other_audio"),
        "mata + other audio": Condition(mata, audio="other", role="mata_other_audio"),
        "no audio": Condition(audio="none", role="no_audio"),
    }


def _trace(
    lalm: LALM, validated: ValidatedItems, path: Path, *, batch_size: int, progress: bool
) -> xr.Dataset:
    """Attention on the selection split, from the file if an earlier call of the same study wrote it.

    The manifest in the sweep has been compared by then: the file is of this model and these data.
    """
    if not path.exists():
        traced = trace(lalm, validated.items, query="last", batch_size=batch_size, progress=progress)
        write_trace(path, traced)
    return read_trace(path)


def _match(
    lalm: LALM,
    mata: AttentionEdit,
    settings: Configuration,
    validated: ValidatedItems,
    path: Path,
    batch_size: int,
) -> ShamMatch:
    """The sham's alpha by mean row KL, from the file if an earlier call of the same study wrote it."""
    if path.exists():
        match = from_plain(ShamMatch, read_versioned(path).get("sham"), path)
        if match.mata == settings:
            return match
    batches = [validated.items[i : i + batch_size] for i in range(0, len(validated.items), batch_size)]
    prompts = [lalm.prompt(batch) for batch in batches]

    def strength(edit: AttentionEdit) -> float:
        def divergence(prompt: Prompt) -> np.ndarray:
            return lalm.score(prompt, [item.choices for item in prompt.items], edit).dose["kl"]

        parts = [part for prompt in prompts for part in in_parts(lalm, prompt, divergence, "options")]
        return float(np.concatenate([found for _, found in parts]).mean())

    on_text = replace(mata, keys="text", chosen_on=())
    found = match_alpha(lambda alpha: strength(replace(on_text, alpha=alpha)), strength(mata), mata.alpha)
    match = ShamMatch(
        alpha=found.alpha,
        kl=found.strength,
        target_kl=found.target,
        mata=settings,
        items=len(validated.items),
        tried=found.tried,
    )
    write_versioned(path, sham=match)
    return match


def _selection(
    selection: ValidatedItems,
    subset: ValidatedItems,
    choice: Choice,
    sweep: xr.DataArray,
    origin: LayerOrigin | None,
    sham: ShamMatch,
    draws: Sequence[tuple[int, ...]],
    traced: xr.Dataset,
) -> Selection:
    """Everything that was chosen on the selection split."""
    share = audio_share(traced).mean(["item", "head"])
    return Selection(
        items=len(selection.items),
        clips=len(selection.clusters),
        grid_items=len(subset.items),
        grid_caption_condition=CONFLICT if subset.items[0].condition == CONFLICT else None,
        layer_origin=origin,
        grid=choice.grid,
        baseline=choice.baseline,
        chosen=choice.chosen,
        reason=choice.reason,
        sweep=SweepQuality(
            float(sweep.attrs["canary"]), int(sweep.attrs["looped"]), str(sweep.attrs["culprits"])
        ),
        sham=sham,
        random_layers=tuple(draws),
        trace_items=traced.sizes["item"],
        trace_share_by_layer=tuple(
            LayerShare(int(layer), float(share.sel(layer=layer))) for layer in share["layer"].values
        ),
    )


def _hypothesis(subset: Mapping[str, str]) -> str:
    items = "items whose caption contradicts the audio" if subset else "all items"
    return f"MATA changes the proportion of correct answers (by unnormalised log-probability) on {items}."


@dataclass
class _Clock:
    """Seconds that each stage took in this call; a stage that was already done takes almost none."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 2)
