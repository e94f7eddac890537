"""A study of any registered method: layers chosen on one split, tested with its controls on the other.

`study` is about MATA, whose strength is a number that a dose can be matched by. A method of the catalogue has
its settings; what a study chooses of it are the layers, and its controls are those that have a meaning for
it. Which have none, and why, is part of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..benchmarks import Item, Items
from ..errors import InterventionError
from ..interventions import AttentionEdit, describe, in_order
from ..interventions.protocol import ATTENTION_SITES
from ..ranges import named_layers
from ..statistics import holm
from ..sweeps import layer_windows, margin, widths_up_to_half
from .choosing import BASELINE
from .comparing import compare_conditions
from .conditions import Condition, named_conditions
from .folder import refuse_other_run
from .manifest import known_beforehand
from .planned_comparisons import primary_subset
from .preparation import bind_conditions
from .random_layers import random_layers
from .results import Run
from .run_conditions import run_validated
from .schema import write_versioned
from .selection import refuse_other_sweep, swept
from .study_plan import DRAWS, StudySplits
from .study_settings import StudySettings

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM, Decoding

__all__ = [
    "SWEEP",
    "MethodChoice",
    "MethodPlan",
    "MethodStudy",
    "in_layers",
    "method_conditions",
    "plan_method",
    "study_method",
]

SWEEP, RESULT = "layer-choice.nc", "method-study.json"
OTHER, NO_AUDIO = "other audio", "no audio"


@dataclass(frozen=True)
class MethodChoice:
    """The layers that were chosen for a method.

    Attributes:
        layers: the layers; () of a method that has none.
        margins: layers -> mean log-probability difference on the selection split, nats; without an edit, it
            is under ``"none"``. Empty where there was nothing to choose.
        items, clips: numbers of items and clips that they were chosen on; 0 where there was nothing to
            choose.
    """

    layers: tuple[int, ...]
    margins: Mapping[str, float]
    items: int
    clips: int


@dataclass(frozen=True, eq=False)
class MethodStudy:
    """What a study of a method found.

    Attributes:
        run: the run on the confirmation split.
        name: of the method's condition.
        choice: how its layers were chosen.
        effects: the method and each control against no edit, and the method against each control: tables as
            of `Run.compare`, for ``correct`` and, where options are compared, ``margin``; on items whose
            caption contradicts the audio, or on all where there are none. ``p_adjusted`` is Holm's over the
            method's hypotheses (correct, margin); controls have none.
        absent: control -> why the method does not have it.

    Examples:
        >>> import mata_interp as mi
        >>> from mata_interp.interventions.catalogue import Hgai
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> done = mi.study_method(
        ...     lalm, items, Hgai([4, 5]), "hgai-study", layers=[4, 5], items_limit=6, progress=False
        ... )
        >>> done.effects["score"].unique().tolist()
        ['correct', 'margin']
    """

    run: Run
    name: str
    choice: MethodChoice
    effects: pd.DataFrame
    absent: Mapping[str, str]


def study_method(  # noqa: PLR0913 one keyword per setting of a study
    lalm: LALM,
    items: Items | Sequence[Item],
    method: Any,
    out: str | Path,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    decoding: Decoding | None = None,
    prompt_format: str = "options",
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    strict: bool = False,
) -> MethodStudy:
    """Test whether a method helps a model on a benchmark, with its layers chosen on other clips.

    1. Selection split: the method in every window of consecutive layers up to half the model, on up to 96
       conflict items (all items if there are none); the best mean margin is chosen. With ``layers``, and for
       methods without layers or with settings for each layer, nothing is chosen.
    2. Confirmation split, other recordings: no edit; the method; the method on text instead of audio; in five
       draws of random layers; another clip's audio without and with the method; and no audio. A control that
       has no meaning for the method is left out, with the reason. The settings of controls are the method's
       own: their doses are recorded, not matched.

    The folder is that of a run: `load_run` and `report` read it. A study is resumable, as `study` is.

    Args:
        lalm: the model.
        items: items of both splits.
        method: an instance of a registered class. Its layers are those of the test where they are not chosen.
        out: the folder to write.
        layers: edit these layers, and choose none: indices, or the result of `fusion_layers`.
        decoding, prompt_format, items_limit, batch_size, progress, seed, strict: those of `study`.

    Raises:
        InterventionError: ``method`` is an AttentionEdit (`study` is for them) or no registered method, or
            the model lacks its layers.
        RunError, ItemError: those of `study`.

    Examples:
        >>> import mata_interp as mi
        >>> from mata_interp.interventions.catalogue import InstABoost
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> boost = InstABoost([4, 5], queries="last")
        >>> done = mi.study_method(
        ...     lalm, items, boost, "boost-study", layers=[4, 5], items_limit=6, progress=False
        ... )
        >>> done.name, sorted(done.absent)
        ('instaboost', [])
    """
    out, study = Path(out).expanduser(), StudySettings.of(locals())
    settings, (method, candidates, splits) = study.stages, plan_method(lalm, items, method, out, study)
    choice = MethodChoice(tuple(getattr(method, "layers", ())), {}, 0, 0)
    if candidates:
        sweep = swept(lalm, splits.to_sweep, {BASELINE: None, **candidates}, out / SWEEP, settings)
        choice, method = _choose(margin(sweep).mean("item"), candidates, splits)
    name = type(method).__name__.lower()
    conditions, absent = method_conditions(lalm, name, method, seed)
    named = bind_conditions(lalm, conditions, decoding)
    run = run_validated(lalm, splits.test, named, out, settings, label="measuring")
    effects = _effects(run.records, name, list(conditions), decoding is not None, seed)
    table = effects.astype(object).where(effects.notna(), None).to_dict("records")
    write_versioned(
        out / RESULT, method=describe(method), choice=asdict(choice), effects=table, absent=absent
    )
    return MethodStudy(run, name, choice, effects, absent)


class MethodPlan(NamedTuple):
    """What a study of a method begins with.

    Attributes:
        method: the method, in the layers that were given.
        candidates: name -> the method in layers to choose from; {} where there is nothing to choose.
        splits: the items.
    """

    method: Any
    candidates: dict[str, Any]
    splits: StudySplits


def plan_method(
    lalm: LALM, items: Items | Sequence[Item], method: Any, out: Path | None, study: StudySettings
) -> MethodPlan:
    """Check the arguments of `study_method`, and read its items.

    Args:
        lalm, items, method: those of `study_method`.
        out: the folder; None for a study that has none yet.
        study: its settings.

    Raises:
        InterventionError, RunError, ItemError: those of `study_method`.
    """
    if isinstance(method, AttentionEdit) or not is_dataclass(method):
        raise InterventionError(
            "study_method takes a method of the catalogue or of yours; MATA has mi.study."
        )
    if study.layers is not None:
        method = in_layers(method, tuple(AttentionEdit(0.0, study.layers).layers))
    candidates = _candidates(lalm, method) if study.layers is None else {}
    conditions: dict[str, Any] = {BASELINE: None, "method": method, **candidates}
    bind_conditions(lalm, conditions, study.decoding)
    if out is not None:
        _refuse_other(lalm, out, {BASELINE: None, **candidates}, study.stages, bool(candidates))
    return MethodPlan(method, candidates, study.splits(lalm, items))


def _refuse_other(lalm: LALM, out: Path, grid: Mapping[str, Any], settings: Any, chooses: bool) -> None:
    """Raise a RunError if the folder holds something else, before items are checked."""
    known = known_beforehand(
        lalm, named_conditions(grid), settings.batch_size, settings.seed, settings.prompt_format
    )
    if chooses:
        refuse_other_sweep(out / SWEEP, known)
    refuse_other_run(out, {name: value for name, value in known.items() if name != "conditions"})


# ---------------------------------------------------------------------------------------------------- choice
def _is_movable(method: Any) -> bool:
    """Whether the same settings make sense in other layers."""
    has_layers = any(field.name == "layers" for field in fields(method))
    return has_layers and not getattr(type(method), "one_per_layer", False) and bool(method.layers)


def in_layers(method: Any, layers: tuple[int, ...]) -> Any:
    """The method with the same settings in other layers; InterventionError if it cannot move."""
    if getattr(method, "layers", ()) == layers:
        return method
    if not _is_movable(method):
        raise InterventionError(
            f"{type(method).__name__} has no layers, or settings for each of them: leave out layers."
        )
    return replace(method, layers=layers)


def _candidates(lalm: LALM, method: Any) -> dict[str, Any]:
    """Name -> the method in each window of consecutive layers up to half the model; {} if it cannot move."""
    if not _is_movable(method):
        return {}
    windows = layer_windows(lalm, widths_up_to_half(lalm))
    return {named_layers(window): replace(method, layers=window) for window in windows}


def _choose(margins: Any, candidates: Mapping[str, Any], splits: StudySplits) -> tuple[MethodChoice, Any]:
    """The best candidate; ties go to the fewest layers, then the earliest."""
    reached = {name: float(margins.sel(configuration=name)) for name in candidates}
    best = min(
        candidates, key=lambda name: (-reached[name], len(candidates[name].layers), candidates[name].layers)
    )
    none = {"none": float(margins.sel(configuration=BASELINE))}
    clips = len({item.cluster for item in splits.to_sweep.items})
    choice = MethodChoice(candidates[best].layers, none | reached, len(splits.to_sweep.items), clips)
    return choice, candidates[best]


# ----------------------------------------------------------------------------------------------------- tests
def method_conditions(
    lalm: LALM, name: str, method: Any, seed: int
) -> tuple[dict[str, Condition], dict[str, str]]:
    """The conditions of a test: the method, its baseline and its controls.

    Args:
        lalm: the model.
        name: of the method's condition.
        method: the method in its layers.
        seed: of the random layers.

    Returns:
        Name -> condition; and control -> why it has no meaning for the method.
    """
    conditions = {BASELINE: Condition(role="baseline"), name: Condition(method, role="other")}
    absent = {}
    if getattr(method, "keys", None) == "audio":
        conditions[f"{name} on text"] = Condition(replace(method, keys="text"), role="other")
    else:
        absent["on text"] = "the method has no group of keys that text could take the place of"
    drawn: tuple[tuple[int, ...], ...] = ()
    if _is_movable(method):
        drawn = random_layers(lalm.attention_layers, method.layers, DRAWS, seed)
    for number, some in enumerate(drawn, 1):
        moved = replace(method, layers=some)
        conditions[f"{name} in random layers {number}"] = Condition(moved, role="other")
    if not drawn:
        absent["in random layers"] = "the method has no layers, settings for each of them, or all of them"
    if not any(part.site in ATTENTION_SITES[:2] for part in in_order(method)):
        absent["dose"] = "the method does not change attention weights: its controls have no dose to compare"
    conditions[OTHER] = Condition(audio="other", role="other_audio")
    conditions[f"{name} + {OTHER}"] = Condition(method, audio="other", role="other")
    conditions[NO_AUDIO] = Condition(audio="none", role="no_audio")
    return conditions, absent


def _effects(
    records: pd.DataFrame, name: str, conditions: Sequence[str], generated: bool, seed: int
) -> pd.DataFrame:
    """Every comparison of `MethodStudy`."""
    subset = primary_subset(records)
    for column, value in subset.items():
        records = records.loc[records[column] == value]
    controls = [one for one in conditions if one.startswith(f"{name} ") and not one.endswith(OTHER)]
    pairs = [(BASELINE, name), *((BASELINE, one) for one in controls), *((one, name) for one in controls)]
    pairs += [(OTHER, f"{name} + {OTHER}"), (BASELINE, OTHER), (BASELINE, NO_AUDIO)]
    parts = []
    for score in ("correct",) if generated else ("correct", "margin"):
        for before, after in pairs:
            row = compare_conditions(
                records, before, score=score, conditions=[after], correct="none", seed=seed
            )
            parts.append(row.assign(score=score, primary=before == BASELINE and after == name))
    table = pd.concat(parts, ignore_index=True)
    main = table["primary"] & table["p"].notna()
    table["p_adjusted"] = np.nan
    table.loc[main, "p_adjusted"] = holm(table.loc[main, "p"].to_numpy(dtype=float))
    columns = ["condition", "baseline", "score", "n", "clips", "left_out", "before", "after", "difference"]
    columns += ["low", "high", "p", "p_adjusted", "fixed", "broken", "dose_kl"]
    return table.reindex(columns=columns)
