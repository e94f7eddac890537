"""mi.study: from a model and a benchmark to a tested answer, chosen and tested on different items."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from ..benchmarks import Item, Items
from ..execution import Output, RayWorkers, open_cluster
from ..interventions import DEFAULT_ALPHAS, AttentionEdit
from ..progress import announce, stage
from ..tracing import audio_share, trace
from ..tracing.storage import read_trace
from .answer import answer_text
from .chance import mean_chance
from .choosing import BASELINE, Choice, Search, choose
from .conditions import Edit, named_conditions
from .crossfit import check_folds, crossfitted
from .crossfit_result import CROSSFIT
from .dose_response import dose_response
from .effects import effects_table
from .extra_shams import IN_HEADS
from .folder import refuse_other_run
from .identity import identity
from .layer_provenance import layer_origin
from .manifest import known_beforehand, make_manifest
from .planned_comparisons import CONFLICT
from .planning import StageSettings
from .preparation import bind_conditions
from .random_layers import random_layers
from .recording import record_or_warn
from .registration import Registration, check_registration, plan_of_study
from .registration_check import REGISTRATION
from .repeat import repeat_baseline as repeat
from .repeat_result import REPEAT
from .results import Run, load_run, write_effects
from .run_conditions import run_validated, warn_of_reuse
from .selection import refuse_other_sweep, swept
from .sham import match_shams
from .study_forecast import forecast_of
from .study_plan import DRAWS, SHAM, SWEEP, TRACE, StudyExtras, StudySplits, study_conditions
from .study_result import (
    LayerOrigin,
    LayerShare,
    Selection,
    ShamMatches,
    Split,
    StudyResult,
    SweepQuality,
)
from .study_settings import StudySettings
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM, Decoding

__all__ = ["study"]


def study(  # noqa: PLR0913 one keyword per setting of a study
    lalm: LALM,
    items: Items | Sequence[Item],
    out: str | Path,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    rule: str = "abs",
    decoding: Decoding | None = None,
    prompt_format: str = "options",
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    ray: RayWorkers | str | bool = False,
    strict: bool = False,
    search: Search | None = None,
    methods: Mapping[str, Edit] | None = None,
    crossfit: int | None = None,
    shams: Sequence[str] = (),
    repeat_baseline: bool = False,
    registration: str | Path | None = None,
) -> Run:
    """Test whether MATA helps a model on a benchmark: choose, match the sham, measure, test.

    1. Selection split: every window of consecutive layers up to half the model with five alphas is swept over
       up to 96 conflict items (all items if there are none), and the best mean margin chosen; attention is
       traced on up to 300 items; the sham on text and MATA in five draws of random layers get the alphas at
       which their mean row KL equals MATA's (on 48 of the swept items).
    2. Confirmation split, other recordings: baseline, MATA, the sham on text, MATA in the random layers,
       another clip's audio without and with MATA, and no audio.
    3. Attention over time of every tested item, and heads and audio of 24 of them, for the page.
    4. The effects (`mata_interp.experiments.planned_comparisons` says what is compared and corrected), the
       margin at every alpha, the association of dose and gain, and the answer in plain English.

    A study is resumable: the same call continues one that was stopped, in whichever stage, and loses at most
    the batch in hand.

    With ``decoding``, the answers of the second step are generated and scored by the option that each names.
    There are no margins then. Layers and alpha are still chosen by the margins of the options, on the other
    clips.

    Args:
        lalm: The model.
        items: Items of both splits, e.g. from `load_benchmark`.
        out: The folder to write: a run folder with the sweep (``selection.nc``), ``sham.json``, ``trace.nc``,
            ``items.npz``, ``study.json`` and ``effects.json`` beside the manifest.
        layers: Edit these layers and choose only alpha: layer indices, or the result of `fusion_layers`.
            None: choose both.
        alphas: The strengths to choose from, above 0.
        rule: How attention scores change: a registered rule that has a strength.
        decoding: Generate the answers of the test; None: compare the options' log-probabilities.
        prompt_format: Prompt format, one of PROMPT_FORMATS.
        items_limit: Use at most this many items of each split, spread evenly over conditions and kinds.
        batch_size: Number of items per batch.
        progress: Report progress, and at the start what will be done.
        seed: Seed of splits that the data do not define, random layers, other audio, permutations and
            bootstraps.
        ray: Spread the batches of every stage over a Ray cluster: True for the available one (or one on this
            machine), its address, or `RayWorkers`.
        strict: Raise for an item that cannot be used, instead of leaving it out with a warning.
        search: ``"full"``: sweep every window with every alpha. ``"coarse"``: search from coarse to fine
            (`search_windows`), which at 32 layers takes a seventh of the configurations. None: coarse where
            the full grid has more than 600 configurations (18 layers and more) and there are at least 32
            clips to choose on.
        methods: Name -> intervention: other methods, measured on the items of the test beside MATA, with the
            settings that they have. They are no hypotheses of the study: the page corrects them among each
            other.
        crossfit: Number of folds, such as 5: also estimate the effect of the selection procedure. Every
            configuration is swept over the items of both splits, one is chosen without each fold and
            measured on it, and the selection is repeated in every resample (`crossfit_effect`). The result
            is ``run.crossfit``.
        shams: Further shams among ``"heads"``, ``"signs"``, ``"silence"`` and ``"reversed"``
            (`mata_interp.experiments.extra_shams`), one or two conditions each.
        repeat_baseline: Also answer the test without MATA at another batch size (an A/A run), so that
            ``run.repeat`` says how many answers change by rounding alone.
        registration: A file that `preregister` wrote. The study says in ``run.registration`` whether it kept
            to it.

    Returns:
        The `Run`, with ``trace``, ``effects`` and ``study``.

    Warns:
        RunWarning: Items were left out; ``layers`` were chosen on clips that are tested.

    Raises:
        RunError: A split has no usable item; ``out`` cannot be written or holds another study; no worker of
            the Ray cluster is available.
        InterventionError: The model does not have these ``layers``; the rule does not exist or has no
            strength; an alpha is not above 0.
        ItemError: An item cannot be used, and ``strict`` is set.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> done = mi.study(lalm, items, "first-study", layers=[4, 5], items_limit=6, progress=False)
        >>> done.study.selection.chosen.layers
        (4, 5)
    """
    study_settings = StudySettings.of(locals())
    out = Path(out).expanduser()
    settings, extras = study_settings.stages, study_settings.extras
    clock = _Clock(progress, _stages(extras))
    if registration is not None:
        Registration.read(registration)
    configurations = study_settings.configurations(lalm)
    grid_conditions = {BASELINE: None, **configurations}
    other_methods = study_settings.other_methods(lalm)
    _refuse_other_study(lalm, out, grid_conditions, settings)
    with clock("checking items"):
        splits = study_settings.splits(lalm, items)
    selection, test = splits.selection, splits.test
    if crossfit is not None:
        check_folds(crossfit, len(splits.to_crossfit.clusters))
    any_alpha = next(iter(configurations.values()))
    warn_of_reuse(test, named_conditions({"mata": any_alpha}))
    origin = None if layers is None else layer_origin(layers, any_alpha, selection, test)

    search = study_settings.resolved_search(configurations, splits)
    if progress:
        announce(str(forecast_of(lalm, splits, configurations, out, study_settings)))
    with open_cluster(lalm, ray) as cluster:
        settings = replace(settings, ray=cluster)
        with clock("choosing layers and alpha"):
            sweep = swept(lalm, splits.to_sweep, grid_conditions, out / SWEEP, settings, search)
            choice = choose(sweep, configurations)
        with clock("tracing attention"):
            traced = _trace(lalm, splits.to_trace, out / TRACE, settings)
        mata = configurations[choice.name]
        mata = replace(mata, chosen_on=(*mata.chosen_on, *selection.clusters))
        with clock("matching the sham"):
            draws = random_layers(lalm.attention_layers, mata.layers, DRAWS, seed)
            matches = match_shams(lalm, mata, draws, splits.to_match, out / SHAM, settings, extras.shams)
        with clock("measuring"):
            alphas_of_draws = {match.layers: match.alpha for match in matches.random_layers}
            heads = lalm.structure.heads
            in_heads = [name for name in IN_HEADS if name in extras.shams]
            alphas_in_heads = {
                name: match.alpha for name, match in zip(in_heads, matches.in_heads, strict=True)
            }
            conditions = study_conditions(
                mata, matches.text.alpha, alphas_of_draws, extras.shams, heads, seed, alphas_in_heads
            )
            named = {**bind_conditions(lalm, conditions, decoding), **other_methods}
            measured = run_validated(lalm, test, named, out, settings, label="measuring")
        with clock("recording items"):
            record_or_warn(lalm, measured, test.items, settings)
        _extra_stages(lalm, splits, measured, configurations, out, settings, extras, clock)
    with clock("testing"):
        effects = effects_table(measured.records, measured.roles, seed, measured.chosen_on)
        curve = dose_response(sweep, configurations, choice.chosen.layers, BASELINE, seed)
        effects = replace(effects, dose_response=curve)

    primary = effects[0]
    chosen = _selection(splits, choice, sweep, origin, matches, traced)
    result = StudyResult(
        answer=answer_text(effects, chosen, generated=decoding is not None),
        hypothesis=_hypothesis(primary.comparison.subset, decoding is not None),
        primary=primary,
        selection=chosen,
        test=Split(len(test.items), len(test.clusters)),
        excluded=tuple(dict.fromkeys([*selection.excluded, *test.excluded])),
        truncated=len(selection.truncated) + len(test.truncated),
        seed=seed,
        items_limit=items_limit,
        seconds=clock.seconds,
        command=shlex.join(sys.argv),
        model=measured.manifest["model"],
    )
    if registration is not None:
        plan = plan_of_study(lalm, splits, configurations, study_settings)
        begun = min(measured.manifest["created"], json.loads(sweep.attrs["manifest"])["created"])
        check_registration(registration, plan, effects, begun).save(out / REGISTRATION)
    write_effects(out / "effects.json", effects)
    result.save(out / "study.json")
    return load_run(out)


def _extra_stages(
    lalm: LALM,
    splits: StudySplits,
    measured: Run,
    configurations: Mapping[str, AttentionEdit],
    out: Path,
    settings: StageSettings,
    extras: StudyExtras,
    clock: _Clock,
) -> None:
    """Repeat the baseline and cross-fit the selection, if that was asked for."""
    if extras.repeat_baseline:
        with clock("repeating the baseline"):
            repeated = repeat(lalm, splits.test, measured.records, measured.conditions, out, settings)
            repeated.save(out / REPEAT)
    if extras.crossfit is not None:
        with clock("cross-fitting"):
            fitted = crossfitted(lalm, splits.to_crossfit, configurations, out, settings, extras.crossfit)
            fitted.save(out / CROSSFIT)


def _refuse_other_study(
    lalm: LALM,
    out: Path,
    grid_conditions: Mapping[str, AttentionEdit | None],
    settings: StageSettings,
) -> None:
    """Raise a RunError if the folder holds a study of another model or other settings."""
    conditions = named_conditions(grid_conditions)
    known = known_beforehand(lalm, conditions, settings.batch_size, settings.seed, settings.prompt_format)
    refuse_other_sweep(out / SWEEP, known)
    refuse_other_run(out, {name: value for name, value in known.items() if name != "conditions"})


def _trace(lalm: LALM, validated: ValidatedItems, path: Path, settings: StageSettings) -> xr.Dataset:
    """Attention on the selection split, from the file if an earlier call of the same study wrote it.

    The manifest in the sweep has been compared by then: the file is of this model and these data.
    """
    if not path.exists():
        batch_size, seed, prompt_format = settings.batch_size, settings.seed, settings.prompt_format
        baseline = named_conditions({BASELINE: None})
        manifest = make_manifest(lalm, validated, baseline, {}, batch_size, seed, prompt_format)
        trace(
            lalm,
            validated.items,
            query="last",
            batch_size=batch_size,
            progress=settings.progress,
            prompt_format=prompt_format,
            out=Output(path, {"stage": "trace", **identity(manifest)}),
            ray=settings.ray or False,
        )
    return read_trace(path)


def _selection(
    splits: StudySplits,
    choice: Choice,
    sweep: xr.DataArray,
    origin: LayerOrigin | None,
    shams: ShamMatches,
    traced: xr.Dataset,
) -> Selection:
    """Everything that was chosen on the selection split."""
    selection, subset = splits.selection, splits.to_sweep
    share = audio_share(traced).mean(["item", "head"])
    return Selection(
        items=len(selection.items),
        clips=len(selection.clusters),
        grid_items=len(subset.items),
        grid_caption_condition=CONFLICT if subset.items[0].condition == CONFLICT else None,
        grid_chance=mean_chance(item.choices for item in subset.items),
        layer_origin=origin,
        grid=choice.grid,
        baseline=choice.baseline,
        chosen=choice.chosen,
        edges=choice.edges,
        reason=choice.reason,
        sweep=SweepQuality(
            float(sweep.attrs["canary"]), int(sweep.attrs["looped"]), str(sweep.attrs["culprits"])
        ),
        sham=shams.text,
        random_layers=shams.random_layers,
        shams_in_heads=shams.in_heads,
        trace_items=traced.sizes["item"],
        trace_share_by_layer=tuple(
            LayerShare(int(layer), float(share.sel(layer=layer))) for layer in share["layer"].values
        ),
    )


def _hypothesis(subset: Mapping[str, str], generated: bool) -> str:
    items = "items whose caption contradicts the audio" if subset else "all items"
    score = "the option that the generated answer names" if generated else "unnormalised log-probability"
    return f"MATA changes the proportion of correct answers (by {score}) on {items}."


def _stages(extras: StudyExtras) -> tuple[str, ...]:
    """The names of the stages, in order."""
    return (
        "checking items",
        "choosing layers and alpha",
        "tracing attention",
        "matching the sham",
        "measuring",
        "recording items",
        *(["repeating the baseline"] if extras.repeat_baseline else []),
        *(["cross-fitting"] if extras.crossfit else []),
        "testing",
    )


@dataclass
class _Clock:
    """Seconds that each stage took in this call; a stage that was already done takes almost none."""

    progress: bool
    stages: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with stage(f"{name} (stage {self.stages.index(name) + 1} of {len(self.stages)})", self.progress):
            yield
        self.seconds[name] = round(time.perf_counter() - start, 2)
