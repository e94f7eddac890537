"""Whole studies: choose among 130 configurations on one split, test on the other with the study's table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd

from mata_interp.experiments.effects import Effects, effects_table
from mata_interp.statistics import paired, paired_effect, resampling

from .rows import Row, row
from .worlds import correlated

__all__ = ["studies"]

GRID_ITEMS, CONFIGURATIONS = 96, 130  # as in a study of the organism: 26 windows x 5 strengths
CAPTIONS = {"conflict": -0.9, "neutral": 4.2, "congruent": 6.2}
"""Mean margins whose accuracies are those of the organism: 38, 92 and 98 %."""
ROLES = {"baseline": "baseline", "mata": "mata", "mata on text": "sham_text"}
NOISE = 1.2  # nats; changes the correctness of as many answers as the organism's conditions do


@contextmanager
def _fewer_draws(draws: int) -> Iterator[None]:
    """Sign flips and bootstraps of `paired_effect` with few draws: a p-value stays valid at any number."""
    flips = partial(resampling.sign_flip, draws=draws)
    with patch.object(paired, "sign_flip", flips), patch.object(resampling, "RESAMPLES", 99):
        yield


def studies(
    cell: str, replicates: int, rng: np.random.Generator, *, clips: int, effect: float = 0.0
) -> list[Row]:
    """Select on simulated margins, then test on other clips with `effects_table`.

    The margin under every condition is what the item and its caption make of it plus noise of its own, so
    that without an effect the conditions are exchangeable: both accuracy and margin are truly unchanged.

    Args:
        cell, replicates, rng: as in `answers`.
        clips: clips of the test, each with a conflict, a neutral and a congruent item.
        effect: nats by which 20 of the 130 configurations raise the margin of conflict items; 0: none does.
    """
    happened: dict[str, list[bool]] = {}
    for replicate in range(replicates):
        grid = (
            correlated("normal", np.ones(GRID_ITEMS, int), CONFIGURATIONS, 1, rng, within=0.0)[0]
            * NOISE
            * 1.4
        )
        grid[:, 60:80] += effect
        chosen = int(grid.mean(0).argmax())
        true_effect = effect if 60 <= chosen < 80 else 0.0
        with _fewer_draws(199):
            naive = paired_effect(np.zeros(GRID_ITEMS), grid[:, chosen], "margin", seed=replicate)
            effects = effects_table(_records(clips, true_effect, rng), ROLES, replicate)  # type: ignore[arg-type]
        for name, value in _outcomes(effects).items():
            happened.setdefault(name, []).append(value)
        happened.setdefault("choose and test on the same items (refused by the package)", []).append(
            naive.p <= 0.05
        )
    return _rows(cell, {name: np.array(values) for name, values in happened.items()}, effect)


def _records(clips: int, effect: float, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for caption, mean in CAPTIONS.items():
        item = mean + 3.0 * rng.standard_normal(clips)
        for condition in ROLES:
            margin = item + NOISE * rng.standard_normal(clips)
            if condition == "mata" and caption == "conflict":
                margin = margin + effect
            rows.append(pd.DataFrame({
                "item": [f"{n}-{caption}" for n in range(clips)],
                "cluster": [str(n) for n in range(clips)],
                "condition": condition, "caption_condition": caption, "domain": "", "answer": "a",
                "margin": margin, "correct": margin > 0, "correct_normalised": margin > 0,
            }))  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    return table.assign(choices=[("a", "b", "c")] * len(table))


def _outcomes(effects: Effects) -> dict[str, bool]:
    primary = effects[0]
    family = [one for one in effects if one.comparison.family in ("primary", "mata")]
    against = effects.select(before_role="sham_text", after_role="mata", column="correct")[0]
    return {
        "primary test of a study": primary.effect.p <= 0.05,
        "verdict of the primary test": primary.verdict != "undetected",
        "any hypothesis on MATA after Holm": any(one.p_holm <= 0.05 for one in family),
        "MATA against its sham": against.effect.p <= 0.05,
    }


def _rows(cell: str, happened: dict[str, np.ndarray], effect: float) -> list[Row]:
    rows = []
    for name, values in happened.items():
        quantity = "power"
        if not effect:
            quantity = "family-wise error" if "any" in name else "type I error"
        refused = "refused" in name
        note = "why a choice is not tested on its own items" if refused else ""
        rows.append(row(cell, name, quantity, values, note, goal=not refused))
    return rows
