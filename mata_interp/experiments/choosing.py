"""The choice of layers and alpha: the configuration with the best mean margin on the selection split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import xarray as xr

from ..errors import ArgumentError, InterventionError, unknown_name
from ..interventions import DEFAULT_ALPHAS, RULES, AttentionEdit, Mata
from ..sweeps import (
    LARGE_GRID,
    LEAST_CLIPS,
    by_alpha,
    correct,
    last_round,
    margin,
    widths_up_to_half,
    window_configs,
)
from .study_result import Configuration, GridRow, SweepScore

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM

__all__ = ["BASELINE", "GRID_ITEMS", "Choice", "Search", "candidates", "choose", "resolve_search"]

Search = Literal["full", "coarse"]
"""How configurations are tried: all of them on every item, or a part of them, from coarse to fine."""

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
        edges: In which respects it is the largest that was tried; empty if in none.
        reason: The choice in words.
    """

    name: str
    chosen: Configuration
    grid: tuple[GridRow, ...]
    baseline: SweepScore
    edges: tuple[str, ...]
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
    return window_configs(lalm, alphas, rule, widths_up_to_half(lalm))


def resolve_search(search: str | None, configurations: Mapping[str, AttentionEdit], clips: int) -> Search:
    """How the configurations are tried.

    Args:
        search: ``"full"``, ``"coarse"``, or None: coarse where there are more than `LARGE_GRID`
            configurations and at least `LEAST_CLIPS` clips.
        configurations: the full grid.
        clips: number of clips to choose on.

    Raises:
        ArgumentError: there is no such search, or there are too few clips or windows for a coarse one.
    """
    several = len({edit.layers for edit in configurations.values()}) > 1
    if search is None:
        large = several and len(configurations) > LARGE_GRID and clips >= LEAST_CLIPS
        return "coarse" if large else "full"
    if search not in get_args(Search):
        raise ArgumentError(unknown_name("search", search, get_args(Search)))
    if search == "coarse" and not several:
        raise ArgumentError(
            "A coarse search is over windows of layers, and the layers are given: use 'full'."
        )
    if search == "coarse" and clips < LEAST_CLIPS:
        raise ArgumentError(
            f"A coarse search needs {LEAST_CLIPS} clips to choose on, and there are {clips}: use 'full'."
        )
    return search  # type: ignore[return-value]


def choose(swept: xr.DataArray, configurations: Mapping[str, AttentionEdit]) -> Choice:
    """The configuration with the best mean margin on the swept items.

    Ties go to the smallest alpha, then the fewest layers, then the earliest. After a search, the best is
    among the configurations of the last round, on its items.

    Args:
        swept: `sweep` or `search_windows` of the configurations and of no intervention (``"baseline"``), over
            items with known answers.
        configurations: Name -> configuration, of the full grid.
    """
    configurations = {name: configurations[name] for name in _names(swept) if name != BASELINE}
    grid, baseline = _scores(swept, configurations)
    compared = [name for name in _names(last_round(swept)) if name != BASELINE]
    best = min(
        compared,
        key=lambda name: (-grid[name].margin, grid[name].alpha, len(grid[name].layers), grid[name].layers),
    )
    tried = f"{len(grid):,} configurations"
    if "grid" in swept.attrs:
        tried = (
            f"the {len(compared):,} configurations of the last round of a search, which tried {len(grid):,} "
            f"of {int(swept.attrs['grid']):,},"
        )
    edges = _edges(grid[best], tuple(grid.values()))
    reason = _reason(grid[best], edges, baseline, tried)
    return Choice(best, grid[best].configuration, tuple(grid.values()), baseline, edges, reason)


def _names(swept: xr.DataArray) -> list[str]:
    return [str(name) for name in swept["configuration"].values]


def _scores(
    swept: xr.DataArray, configurations: Mapping[str, AttentionEdit]
) -> tuple[dict[str, GridRow], SweepScore]:
    """The score of each configuration on the items that it was tried on, and that of no intervention on all.

    Mean margins of different items do not compare, but mean changes of the margin do: the margin of a
    configuration that was tried on a part of the items is the baseline's margin on all plus its mean change.
    The last round's are compared on its own items, where both orders are the same.
    """
    margins, right, items = margin(swept), correct(swept), np.ones(swept.sizes["item"], dtype=bool)

    def score(name: str, tried: np.ndarray) -> SweepScore:
        of_items = margins.sel(configuration=name).isel(item=tried)
        return SweepScore(
            margin=float(of_items.mean()),
            accuracy=float(right.sel(configuration=name).isel(item=tried).mean()),
            n=int(tried.sum()),
        )

    def score_of_part(name: str) -> SweepScore:
        tried = swept.sel(configuration=name).notnull().any("choice").values
        last = tried & (swept["round"].values == swept["round"].values.max())
        tried = last if last.any() else tried
        score_here = score(name, tried)
        return replace(score_here, margin=baseline.margin + score_here.margin - score(BASELINE, tried).margin)

    baseline = score(BASELINE, items)
    scored = {
        name: score_of_part(name) if "round" in swept.coords else score(name, items)
        for name in configurations
    }
    grid = {
        name: GridRow(layers=tuple(mata.layers), alpha=mata.alpha, rule=mata.rule, **asdict(scored[name]))
        for name, mata in configurations.items()
    }
    return grid, baseline


def _reason(best: GridRow, edges: Sequence[str], baseline: SweepScore, tried: str) -> str:
    """The choice in words."""
    reason = (
        f"Best mean margin ({_nats(best.margin)} nats) of {tried} on {best.n} items of "
        f"the selection split; the margin without MATA is {_nats(baseline.margin)}."
    )
    if best.margin <= baseline.margin:
        reason += " No configuration raised it: the one that lowers it least is tested."
    if edges:
        reason += f" It is at the edge of the grid ({' and '.join(edges)}): a larger one might do better."
    return reason


def _nats(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _edges(best: GridRow, rows: Sequence[GridRow]) -> tuple[str, ...]:
    """In which respects the best configuration is the largest that was tried; empty if in none."""
    widths = {len(row.layers) for row in rows}
    edges = []
    if best.alpha == max(row.alpha for row in rows):
        edges.append("the largest alpha")
    if len(widths) > 1 and len(best.layers) == max(widths):
        edges.append("the widest window")
    return tuple(edges)
