"""The choice of layers and alpha: the configuration with the best mean margin on the selection split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import xarray as xr

from ..errors import InterventionError
from ..interventions import DEFAULT_ALPHAS, RULES, AttentionEdit, Mata
from ..statistics import is_correct
from ..sweeps import by_alpha, margin, window_configs
from .study_result import Configuration, GridRow, SweepScore

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM

__all__ = ["BASELINE", "GRID_ITEMS", "Choice", "candidates", "choose"]

BASELINE = "baseline"
"""Name of the sweep's configuration without intervention, and of a study's condition without one."""

GRID_ITEMS = 96
"""Number of items of the selection split that every configuration is tried on, spread evenly over kinds."""


@dataclass(frozen=True)
class Choice:
    """The chosen configuration and everything that was tried.

    Attributes:
        name: Name of the chosen configuration.
        chosen: Its settings.
        grid: Every configuration with its score.
        baseline: The score without intervention.
        reason: The choice in words.
    """

    name: str
    chosen: Configuration
    grid: tuple[GridRow, ...]
    baseline: SweepScore
    reason: str


def candidates(
    lalm: LALM,
    layers: Iterable[int] | FusionProfile | None = None,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    rule: str = "abs",
) -> dict[str, AttentionEdit]:
    """Name -> configuration: every window of consecutive layers with every alpha.

    A window has at most half of the layers, so that the control in random layers has as many to draw from. 8
    layers give 26 windows, 28 layers 301.

    Args:
        lalm: The model.
        layers: Use these layers with every alpha, instead of windows; each configuration carries the clips
            that they were chosen on.
        alphas: The strengths, above 0.
        rule: How attention scores change.

    Raises:
        InterventionError: The model does not have these layers, or ``layers`` is empty; the rule does not
            exist or has no strength; there is no alpha, or one is not above 0.
    """
    if not alphas or min(alphas) <= 0:
        raise InterventionError(f"alphas is {list(alphas)}: give strengths above 0 to choose from.")
    if rule in RULES and not RULES[rule].has_strength:
        strong = ", ".join(name for name, known in RULES.items() if known.has_strength)
        raise InterventionError(f"Rule {rule!r} has no strength to choose; a study takes {strong}.")
    if layers is not None:
        mata = Mata(alphas[0], layers, rule=rule).bind(lalm.structure.heads)
        if not mata.layers:
            raise InterventionError("layers is empty: name some layers, or pass layers=None.")
        return by_alpha([mata.layers], alphas, rule, chosen_on=mata.chosen_on)
    widest = max(1, len(lalm.attention_layers) // 2)
    return window_configs(lalm, alphas, rule, widths=range(1, widest + 1))


def choose(swept: xr.DataArray, configurations: Mapping[str, AttentionEdit]) -> Choice:
    """The configuration with the best mean margin on the swept items.

    Ties go to the smallest alpha, then the fewest layers, then the earliest.

    Args:
        swept: `sweep` of the configurations and of no intervention (``"baseline"``), over items with known
            answers.
        configurations: Name in ``swept`` -> configuration.
    """
    margins = margin(swept)
    correct = is_correct(
        swept.transpose("item", "configuration", "choice").values, swept["answer"].values[:, None]
    )
    names = [str(name) for name in swept["configuration"].values]

    def score(name: str) -> SweepScore:
        return SweepScore(
            margin=float(margins.sel(configuration=name).mean()),
            accuracy=float(correct[:, names.index(name)].mean()),
            n=swept.sizes["item"],
        )

    grid = {
        name: GridRow(layers=tuple(mata.layers), alpha=mata.alpha, rule=mata.rule, **asdict(score(name)))
        for name, mata in configurations.items()
    }
    best = min(
        grid,
        key=lambda name: (-grid[name].margin, grid[name].alpha, len(grid[name].layers), grid[name].layers),
    )
    rows, baseline = tuple(grid.values()), score(BASELINE)
    return Choice(best, grid[best].configuration, rows, baseline, _reason(grid[best], rows, baseline))


def _reason(best: GridRow, rows: Sequence[GridRow], baseline: SweepScore) -> str:
    """The choice in words."""
    reason = (
        f"Best mean margin ({_nats(best.margin)} nats) of {len(rows):,} configurations on {best.n} items of "
        f"the selection split; the margin without MATA is {_nats(baseline.margin)}."
    )
    if best.margin <= baseline.margin:
        reason += " No configuration raised it: the one that lowers it least is tested."
    if edges := _edges(best, rows):
        reason += f" It is at the edge of the grid ({edges}): a larger one might do better."
    return reason


def _nats(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _edges(best: GridRow, rows: Sequence[GridRow]) -> str:
    """In which respects the best configuration is the largest that was tried; empty if in none."""
    widths = {len(row.layers) for row in rows}
    edges = []
    if best.alpha == max(row.alpha for row in rows):
        edges.append("the largest alpha")
    if len(widths) > 1 and len(best.layers) == max(widths):
        edges.append("the widest window")
    return " and ".join(edges)
