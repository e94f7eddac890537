"""Layers and alpha: a sweep of the selection split, and the configuration with the best mean margin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..errors import InterventionError
from ..interventions import DEFAULT_ALPHAS, AttentionEdit, Mata
from ..sweeps import by_alpha, margin, window_configs
from .effects import BASELINE

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM

__all__ = ["GRID_ITEMS", "candidates", "choose"]

GRID_ITEMS = 96
"""Items of the selection split that every configuration is tried on, spread evenly over kinds."""


def candidates(lalm: LALM, layers: Iterable[int] | FusionProfile | None = None) -> dict[str, AttentionEdit]:
    """Name -> configuration: every window of neighbouring layers under every alpha.

    Windows are as wide as half the model at most, so that as many layers are left outside for the control in
    random layers. 8 layers give 26 windows, 28 layers 301.

    Args:
        layers: these alone under every alpha, instead of windows; each configuration carries what they were
            chosen on.

    Raises:
        InterventionError: the model does not have these layers, or there are none.
    """
    if layers is not None:
        given = Mata(DEFAULT_ALPHAS[0], layers).bind(lalm.structure.heads)
        if not given.layers:
            raise InterventionError("No layers are given to edit: name some, or leave layers out.")
        return by_alpha([given.layers], DEFAULT_ALPHAS, chosen_on=given.chosen_on)
    widest = max(1, len(lalm.attention_layers) // 2)
    return window_configs(lalm, DEFAULT_ALPHAS, widths=range(1, widest + 1))


def choose(swept: xr.DataArray, configurations: Mapping[str, AttentionEdit]) -> tuple[str, dict[str, Any]]:
    """The name of the configuration with the best mean margin, and all that was seen on the way.

    Of equals the gentlest is taken: the smallest alpha, then the fewest layers, then the earliest.

    Args:
        swept: of the configurations and the baseline, items with known answers.

    Returns:
        the name and ``{"grid": [...], "baseline": {...}, "chosen": {...}, "reason": str}``.
    """
    margins = margin(swept)
    right = swept.fillna(-np.inf).argmax("choice") == swept["answer"]
    seen = {
        str(name): {
            "margin": float(margins.sel(configuration=name).mean()),
            "accuracy": float(right.sel(configuration=name).mean()),
            "n": swept.sizes["item"],
        }
        for name in swept["configuration"].values
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
        f"Best mean margin ({_nats(best['margin'])} nats) of {len(rows):,} configurations on {best['n']} "
        f"items of the selection split; without MATA it is {_nats(baseline['margin'])}."
    )
    if best["margin"] <= baseline["margin"]:
        reason += " No configuration raised it: the one that lowers it least is tested."
    if edges := _edges(best, rows):
        reason += f" It lies at the edge of what was tried ({edges}): more might do more."
    return best_name, {"grid": rows, "baseline": baseline, "chosen": chosen, "reason": reason}


def _nats(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _edges(best: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """Of what there was no more than the best configuration has: strength, layers; "" if of neither."""
    widths = {len(row["layers"]) for row in rows}
    largest = max(row["alpha"] for row in rows)
    widest = len(widths) > 1 and len(best["layers"]) == max(widths)
    at = ["the largest alpha"] * (best["alpha"] == largest) + ["the widest window"] * widest
    return " and ".join(at)
