"""mi.study: from a model and a benchmark to a tested answer, nothing chosen and tested on the same items."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..benchmarks import Item, Items
from ..errors import RunError
from ..interventions import AttentionEdit
from ..tracing import audio_share, trace
from .answer import answer_text
from .choosing import GRID_ITEMS, candidates, choose
from .conditions import Condition, named_conditions
from .dose_matching import match_alpha
from .effects import (
    BASELINE,
    CONFLICT,
    MATA,
    MATA_ON_TEXT,
    MATA_OTHER,
    OTHER,
    RANDOM_LAYERS,
    SILENT,
    effects_table,
)
from .files import read_json, write_json, write_whole
from .folder import refuse_other_run
from .layer_provenance import origin
from .manifest import known_beforehand
from .random_layers import random_layers
from .results import Run, load_run, read_trace
from .run import run_validated, warn_of_reuse
from .selection import refuse_other_sweep, swept
from .validation import ValidatedItems, validate_items

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM

__all__ = ["study"]

TRACE_ITEMS = 300  # of the selection split, spread evenly
SWEEP = "selection.nc"
MATCH_ITEMS = 48  # of the swept items: the sham's alpha needs a mean, not a test
DRAWS = 5  # of random layers


def study(
    lalm: LALM,
    items: Items | Sequence[Item],
    out: str | Path,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
) -> Run:
    """Does MATA help this model on this benchmark? Choose, match the sham, measure, test.

    1. Selection split: every window of neighbouring layers up to half the model under five alphas is swept
       over up to 96 conflict items (all items if there are none) and the best mean margin chosen; attention
       is traced on up to 300 items; the sham on text gets the alpha at which its mean row KL equals MATA's
       (on 48 of the swept items).
    2. Confirmation split, other recordings: baseline, MATA, the sham on text, MATA in five draws of random
       layers, another clip's audio without and with MATA, and no audio.
    3. The effects table (`mata_interp.experiments.effects` says what is compared and corrected) and the
       answer in plain English.

    Stopped at any moment, the same call goes on from there.

    Args:
        out: the folder to write: a run folder with the sweep (``selection.nc``), ``sham.json``, ``trace.nc``,
            ``study.json`` and ``effects.json`` beside the manifest.
        layers: edit these, and choose no more than alpha: layers by hand, or what `fusion_layers` found. The
            page says where they are from.
        items_limit: at most so many items of each split, spread evenly over conditions and kinds.
        seed: of splits that the data do not decide, random layers, other audio, permutations and bootstraps.

    Warns:
        RunWarning: items were left out; ``layers`` were chosen on clips that are tested.

    Raises:
        RunError: a split has no usable item; ``out`` cannot be written or holds another study.
        InterventionError: the model does not have these ``layers``.
    """
    out, clock = Path(out), _Clock()
    items = items if isinstance(items, Items) else Items.from_records(items)
    configurations = candidates(lalm, layers)
    conditions = {BASELINE: None, **configurations}
    _refuse_other_study(lalm, out, conditions, batch_size, seed)
    selection, confirmation = (
        _split(items, name, items_limit, seed) for name in ("selection", "confirmation")
    )
    with clock("checking items"):
        known = validate_items(lalm, selection, progress=progress, scored=True)
        held = validate_items(lalm, confirmation, progress=progress, scored=True)
    any_alpha = next(iter(configurations.values()))
    warn_of_reuse(held, named_conditions({MATA: any_alpha}))
    given = None if layers is None else origin(layers, any_alpha, known, held)

    settings = {"batch_size": batch_size, "progress": progress, "seed": seed}
    subset = known.only(_conflict_items(selection).sample(GRID_ITEMS, seed=seed))
    with clock("choosing layers and alpha"):
        tried = swept(lalm, subset, conditions, out / SWEEP, **settings)
        name, choice = choose(tried, configurations)
    with clock("tracing attention"):
        traced = _trace(
            lalm, known.only(selection.sample(TRACE_ITEMS, seed=seed)), out / "trace.nc", **settings
        )
    mata = configurations[name]
    mata = replace(mata, chosen_on=(*mata.chosen_on, *known.clusters))
    with clock("matching the sham"):
        some = subset.only(subset.items[:MATCH_ITEMS])
        sham = _match(lalm, mata, some, out / "sham.json", batch_size)
    draws = random_layers(lalm.attention_layers, mata.layers, DRAWS, seed)
    with clock("measuring"):
        measured = run_validated(
            lalm, held, _conditions(mata, sham["alpha"], draws), out, label="measuring", **settings
        )
    with clock("testing"):
        effects = effects_table(measured.records, seed)

    primary = next(row for row in effects if row["family"] == "primary")
    found = {
        "version": 1,
        "answer": answer_text(effects, choice["chosen"], sham, len(known.clusters), given),
        "primary": {**primary, "hypothesis": _hypothesis(primary)},
        "selection": {
            "items": len(known.items),
            "clips": len(known.clusters),
            "grid_items": len(subset.items),
            "grid_caption_condition": CONFLICT if subset.items[0].condition == CONFLICT else None,
            "given_layers": given,
            **choice,
            "sweep": {name: tried.attrs[name] for name in ("canary", "looped", "culprits")},
            "sham": sham,
            "random_layers": [list(layers) for layers in draws],
            "trace_items": traced.sizes["item"],
            "trace_share_by_layer": _share_by_layer(traced),
        },
        "test": {"items": len(held.items), "clips": len(held.clusters)},
        "excluded": [*known.excluded, *(row for row in held.excluded if row not in known.excluded)],
        "truncated": len(known.truncated) + len(held.truncated),
        "seed": seed,
        "items_limit": items_limit,
        "seconds": clock.seconds,
        "command": shlex.join(sys.argv),
        "model": measured.manifest["model"],
    }
    write_json(out / "effects.json", effects)
    write_json(out / "study.json", found)
    return load_run(out)


def _refuse_other_study(
    lalm: LALM, out: Path, grid_conditions: dict[str, Any], batch_size: int, seed: int
) -> None:
    """Before anything slow is done: is the folder new, or begun with the same model and settings?"""
    known = known_beforehand(lalm, named_conditions(grid_conditions), batch_size, seed)
    refuse_other_sweep(out / SWEEP, known)
    refuse_other_run(out, {name: value for name, value in known.items() if name != "conditions"})


def _split(items: Items, name: str, limit: int | None, seed: int) -> Items:
    split = items.split(name, seed=seed)
    if not len(split):
        raise RunError(f"{items.name} has no item in its {name} split; a study needs both splits.")
    return split if limit is None else split.sample(limit, seed=seed)


def _conflict_items(items: Items) -> Items:
    """The items MATA is for: those whose caption contradicts the sound; all where there are none."""
    conflict = items.filter(condition=CONFLICT)
    return conflict if len(conflict) else items


def _conditions(mata: AttentionEdit, sham_alpha: float, draws: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """MATA, its baseline and its controls, in the order in which they are reported."""
    random = {
        f"{RANDOM_LAYERS} {n}": replace(mata, layers=layers, chosen_on=())
        for n, layers in enumerate(draws, 1)
    }
    return {
        BASELINE: None,
        MATA: mata,
        MATA_ON_TEXT: replace(mata, alpha=sham_alpha, keys="text"),
        **random,
        OTHER: Condition(audio="other"),
        MATA_OTHER: Condition(mata, audio="other"),
        SILENT: Condition(audio="none"),
    }


def _trace(
    lalm: LALM, validated: ValidatedItems, path: Path, *, batch_size: int, progress: bool, seed: int
) -> xr.Dataset:
    """Attention on the selection split, from the file if a study that was stopped left it there.

    The manifest in the sweep has been compared by then: the file is of this model and these data.
    """
    if not path.exists():
        traced = trace(lalm, validated.items, query="last", batch_size=batch_size, progress=progress)
        write_whole(path, lambda file: file.write(traced.to_netcdf(engine="scipy")))
    return read_trace(path)


def _share_by_layer(traced: xr.Dataset) -> list[dict[str, float]]:
    """Mean audio share over items and heads, of each attention layer."""
    share = audio_share(traced).mean(["item", "head"])
    return [{"layer": int(layer), "share": float(share.sel(layer=layer))} for layer in share["layer"].values]


def _match(
    lalm: LALM, mata: AttentionEdit, validated: ValidatedItems, path: Path, batch_size: int
) -> dict[str, Any]:
    """The sham's alpha by mean row KL, from the file if a study that was stopped left it there."""
    settings = {name: mata.to_dict()[name] for name in ("layers", "alpha", "rule")}
    if path.exists() and (found := read_json(path)).get("mata") == settings:
        return found
    batches = [validated.items[i : i + batch_size] for i in range(0, len(validated.items), batch_size)]
    prompts = [lalm.prompt(batch) for batch in batches]

    def strength(edit: AttentionEdit) -> float:
        doses = [lalm.score(prompt, [item.choices for item in prompt.items], edit).dose for prompt in prompts]
        return float(np.concatenate([dose["kl"] for dose in doses]).mean())

    on_text = replace(mata, keys="text", chosen_on=())
    match = match_alpha(lambda alpha: strength(replace(on_text, alpha=alpha)), strength(mata), mata.alpha)
    found = {"alpha": match.alpha, "kl": match.strength, "target_kl": match.target, "mata": settings}
    write_json(path, {**found, "items": len(validated.items), "tried": match.tried})
    return read_json(path)


def _hypothesis(primary: dict[str, Any]) -> str:
    on = "items whose caption contradicts the sound" if primary["subset"] else "all items"
    return f"MATA changes the share of right answers (by unnormalised log-probability) on {on}."


@dataclass
class _Clock:
    """Seconds that each stage took, in this session; a stage found done takes next to none."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 2)
