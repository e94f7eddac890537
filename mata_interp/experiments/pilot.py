"""`study --plan`: what a study can detect and how many items it needs, from a pilot on 40 items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks import Item, Items
from ..errors import ArgumentError
from ..interventions import DEFAULT_ALPHAS
from ..ranges import named_layers
from ..statistics import (
    detectable_difference,
    detectable_margin,
    items_for_margin,
    items_needed,
    wilson_interval,
)
from ..sweeps import correct, margin, sweep
from .choosing import BASELINE, choose
from .no_harm import MARGINS
from .planned_comparisons import CONFLICT
from .power import POWER
from .study_result import Configuration
from .study_settings import StudySettings

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM

__all__ = ["PILOT_ITEMS", "PlannedChange", "StudyPlan", "plan_study"]

PILOT_ITEMS = 40
SIZES = (0.03, 0.05, 0.10)  # changes of accuracy whose number of items is stated


@dataclass(frozen=True)
class PlannedChange:
    """What follows from one discordance, the fraction of items whose correctness MATA changes.

    Attributes:
        discordance: the fraction.
        detectable: smallest change of accuracy that the test detects with 80 % power, items counted as
            independent; NaN if none is.
        detectable_by_clip: the same if all items of a clip change together: each clip counts once.
        needed: change of accuracy -> number of items that detect it.
        no_harm: number of items that show equivalence within 5 points if there is no change.
    """

    discordance: float
    detectable: float
    detectable_by_clip: float
    needed: dict[str, int]
    no_harm: int


@dataclass(frozen=True)
class StudyPlan:
    """The plan of a study, from a pilot on its selection split.

    Attributes:
        pilot_items: number of pilot items; none of them is in the test.
        configuration: the configuration with the best mean margin on them.
        changed: number of pilot items whose correctness it changes.
        margin_sd: standard deviation of the change of the margin, nats.
        test_items, test_clips: items and clips of the primary comparison.
        changes: for the lower end of the discordance's 95 % interval, the discordance, and the upper end.
        detectable_margin: smallest mean change of the margin that the test detects with 80 % power, nats.
    """

    pilot_items: int
    configuration: Configuration
    changed: int
    margin_sd: float
    test_items: int
    test_clips: int
    changes: tuple[PlannedChange, ...]
    detectable_margin: float

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain data, None in place of NaN."""
        data = asdict(self)
        for change in data["changes"]:
            for name in ("detectable", "detectable_by_clip"):
                change[name] = None if isnan(change[name]) else change[name]
        return data

    def __str__(self) -> str:
        chosen = self.configuration
        lines = [
            f"Pilot: {self.pilot_items} items of the selection split. In {named_layers(chosen.layers)} with "
            f"alpha {chosen.alpha:g} (rule {chosen.rule}), the best of the grid on them, MATA changes the "
            f"correctness of {self.changed}.",
            f"Test: {self.test_items:,} items of {self.test_clips:,} clips. {100 * POWER:.0f} % power at the "
            "5 % level:",
        ]
        for change in self.changes:
            needed = ", ".join(f"{number:,} for {name}" for name, number in change.needed.items())
            lines.append(
                f"  if {100 * change.discordance:.0f} % of answers change: {_points(change.detectable)} "
                f"detectable ({_points(change.detectable_by_clip)} if the items of a clip change together); "
                f"items needed: {needed or 'none of the sizes is possible'}; {change.no_harm:,} to show no "
                "harm of 5 points."
            )
        lines.append(f"A mean change of the margin of {self.detectable_margin:.2f} nats is detectable.")
        return "\n".join(lines)


def plan_study(  # noqa: PLR0913 the arguments of `study`
    lalm: LALM,
    items: Items | Sequence[Item],
    pilot: int = PILOT_ITEMS,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    rule: str = "abs",
    prompt_format: str = "options",
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    strict: bool = False,
) -> StudyPlan:
    """What a study with these settings could detect, before it is run.

    Every configuration is swept over pilot items of the selection split, and the best by mean margin says
    how many answers change. No item of the confirmation split is answered.

    Args:
        lalm, items, layers, alphas, rule, prompt_format, items_limit, batch_size, progress, seed, strict: as
            in `study`.
        pilot: number of pilot items, at least 10.

    Raises:
        ArgumentError: ``pilot`` is below 10.
        RunError, InterventionError, ItemError: as in `study`.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> plan = mi.plan_study(lalm, items, 10, layers=[4, 5], items_limit=30, progress=False)
        >>> plan.pilot_items, plan.test_items
        (10, 10)
    """
    study = StudySettings.of(locals())
    if pilot < 10:
        raise ArgumentError(f"pilot is {pilot}: fewer than 10 items say nothing about discordance.")
    splits = study.splits(lalm, items)
    configurations = study.configurations(lalm)
    some = splits.to_sweep.as_items().sample(pilot, seed=seed)
    swept = sweep(
        lalm, some, {BASELINE: None, **configurations},
        batch_size=batch_size, progress=progress, prompt_format=prompt_format,
    )  # fmt: skip
    choice = choose(swept, configurations)
    flips = _change(correct(swept), choice.name)
    spread = float(_change(margin(swept), choice.name).std(ddof=1))
    conflict = [item for item in splits.test.items if item.condition == CONFLICT]
    primary = conflict or list(splits.test.items)
    clips = len({item.cluster for item in primary})
    changed, n = int((flips != 0).sum()), len(flips)
    low, high = wilson_interval(changed, n)
    return StudyPlan(
        pilot_items=n,
        configuration=choice.chosen,
        changed=changed,
        margin_sd=spread,
        test_items=len(primary),
        test_clips=clips,
        changes=tuple(
            _planned(discordance, len(primary), clips)
            for discordance in dict.fromkeys((low, max(changed, 0.5) / n, high))
        ),
        detectable_margin=detectable_margin(len(primary), spread) if spread > 0 else nan,
    )


def _change(values: Any, name: str) -> np.ndarray:
    """Change of each item from the baseline to a configuration of a sweep."""
    both = values.sel(configuration=[BASELINE, name]).transpose("item", "configuration").values.astype(float)
    return both[:, 1] - both[:, 0]


def _planned(discordance: float, items: int, clips: int) -> PlannedChange:
    discordance = float(np.clip(discordance, 1e-3, 1.0))
    return PlannedChange(
        discordance=discordance,
        detectable=detectable_difference(items, discordance, POWER),
        detectable_by_clip=detectable_difference(clips, discordance, POWER),
        needed={
            f"{100 * size:.0f} points": items_needed(size, discordance, POWER)
            for size in SIZES
            if size <= discordance
        },
        no_harm=items_for_margin(min(discordance, 0.999), MARGINS["binary"], POWER),
    )


def _points(value: float) -> str:
    return "no change" if isnan(value) else f"{100 * value:.1f} points"
