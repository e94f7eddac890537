"""What a study of a method would do: its stages with their items, time and memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks import Item, Items
from ..interventions import published_layers
from .choosing import BASELINE
from .method_study import SWEEP, in_layers, method_conditions, plan_method
from .preparation import bind_conditions
from .stage_forecast import StageForecast, StudyForecast, forecast_sweep
from .study_forecast import measuring, whole_forecast
from .study_settings import StudySettings

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM, Decoding

__all__ = ["forecast_method"]


def forecast_method(  # noqa: PLR0913 the arguments of `study_method`
    lalm: LALM,
    items: Items | Sequence[Item],
    method: Any,
    out: str | Path | None = None,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    decoding: Decoding | None = None,
    prompt_format: str = "options",
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    strict: bool = False,
) -> StudyForecast:
    """What `study_method` would do with the same arguments, about how long and in how much memory.

    Nothing is written. Time is estimated from one item of medium length for each stage. Where layers are to
    be chosen, those of the published work stand for them in the second stage.

    Args:
        lalm, items, method, layers, decoding, prompt_format, items_limit, batch_size, progress, seed, strict:
            As in `study_method`.
        out: The folder of the study; batches that are done there are not counted.

    Returns:
        The `StudyForecast`: ``choosing layers``, where there is something to choose, and ``measuring``.

    Raises:
        InterventionError, RunError, ItemError: As in `study_method`.

    Examples:
        >>> import mata_interp as mi
        >>> from mata_interp.interventions.catalogue import InstABoost
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> boost = InstABoost([4, 5], queries="last")
        >>> forecast = mi.forecast_method(lalm, items, boost, layers=[4, 5], items_limit=6, progress=False)
        >>> [(stage.name, stage.items) for stage in forecast.stages]
        [('measuring', 6)]
    """
    folder, study = None if out is None else Path(out).expanduser(), StudySettings.of(locals())
    settings, (method, candidates, splits) = study.stages, plan_method(lalm, items, method, folder, study)
    stages: list[StageForecast] = []
    if candidates:
        path = None if folder is None else folder / SWEEP
        sweep = forecast_sweep(lalm, splits.to_sweep, {BASELINE: None, **candidates}, settings, path)
        stages.append(replace(sweep, name="choosing layers"))
        method = in_layers(method, published_layers(lalm))
    conditions, _ = method_conditions(lalm, type(method).__name__.lower(), method, seed)
    named = bind_conditions(lalm, conditions, decoding)
    return whole_forecast([*stages, measuring(lalm, splits, named, folder, settings)], splits)
