"""Layers and alpha: a plain grid on the selection split, and the configuration with the best mean margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..interventions import Mata
from ..sweeps import by_alpha
from .effects import BASELINE
from .layers import candidate_windows

__all__ = ["GRID_ITEMS", "choose", "grid"]

GRID_ITEMS = 96
"""Items of the selection split that every configuration of the grid answers, spread evenly over kinds."""


def grid(layers: Sequence[int]) -> dict[str, Mata]:
    """Condition name -> configuration: candidate windows of the attention layers x three alphas."""
    return by_alpha(candidate_windows(layers))


def choose(records: pd.DataFrame, configurations: Mapping[str, Mata]) -> tuple[str, dict[str, Any]]:
    """The name of the configuration with the best mean margin, and all that was seen on the way.

    Of equals the gentlest is taken: the smallest alpha, then the fewest layers, then the earliest.

    Args:
        records: of the grid's run, the baseline among its conditions.

    Returns:
        the name and ``{"grid": [...], "baseline": {...}, "chosen": {...}, "reason": str}``.
    """
    seen = {
        name: {
            "margin": rows["margin"].mean(),
            "accuracy": rows["correct"].astype(float).mean(),
            "n": len(rows),
        }
        for name, rows in records.groupby("condition", sort=False)
    }
    rows = [
        {"layers": list(mata.layers), "alpha": mata.alpha, "rule": mata.rule, **seen[name]}
        for name, mata in configurations.items()
    ]
    best_name, best = min(
        zip(configurations, rows, strict=True),
        key=lambda pair: (-pair[1]["margin"], pair[1]["alpha"], len(pair[1]["layers"]), pair[1]["layers"]),
    )
    baseline = seen[BASELINE]
    chosen = {name: best[name] for name in ("layers", "alpha", "rule")}
    reason = (
        f"Best mean margin ({best['margin']:.3f} nats) of {len(rows)} configurations on {best['n']} items "
        f"of the selection split; without MATA it is {baseline['margin']:.3f}."
    )
    if best["margin"] <= baseline["margin"]:
        reason += " No configuration raised it: the one that lowers it least is tested."
    return best_name, {"grid": rows, "baseline": baseline, "chosen": chosen, "reason": reason}
