"""Row: how often a procedure did something in the replicates of a cell, and whether that meets its goal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

__all__ = ["GOALS", "Row", "row"]

GOALS: dict[str, tuple[float, float]] = {
    "type I error": (0.0, 0.05),
    "family-wise error": (0.0, 0.05),
    "false discovery rate": (0.0, 0.05),
    "coverage": (0.935, 0.965),
    "one-sided coverage": (0.935, 0.965),
}
"""Quantity -> the interval that it should lie in."""

Z = 2.576  # a goal is missed if the 99 % Monte-Carlo interval lies outside it


@dataclass(frozen=True)
class Row:
    """A rate over simulated data sets.

    Attributes:
        cell: name of the cell.
        procedure: what was computed.
        quantity: ``"type I error"``, ``"coverage"``, ``"power"``, ...
        rate: fraction of replicates.
        replicates: their number.
        low, high: the goal; None where there is none.
        note: why there is no goal, or what limits the row.
    """

    cell: str
    procedure: str
    quantity: str
    rate: float
    replicates: int
    low: float | None
    high: float | None
    note: str = ""

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of the rate."""
        return sqrt(self.rate * (1 - self.rate) / self.replicates)

    @property
    def verdict(self) -> str:
        """``"met"``, ``"missed"``, ``"conservative"`` (an interval that covers more than the goal), or
        ``""``."""
        if self.low is None or self.high is None:
            return ""
        # a rate of 0 or 1 has no standard error of its own
        spread = Z * max(self.error, sqrt(self.low * (1 - self.low) / self.replicates) if self.low else 0.0)
        if self.rate - spread > self.high:
            return "conservative" if "coverage" in self.quantity else "missed"
        return "missed" if self.rate + spread < self.low else "met"

    def to_dict(self) -> dict[str, Any]:
        """The attributes with error and verdict, ready for JSON."""
        return asdict(self) | {"error": self.error, "verdict": self.verdict}


def row(
    cell: str, procedure: str, quantity: str, happened: np.ndarray, note: str = "", goal: bool = True
) -> Row:
    """A row from whether it happened in each replicate; replicates that are NaN are left out.

    Args:
        cell, procedure, quantity, note: as in `Row`.
        happened: true or false for each replicate, ``[R]``.
        goal: whether the quantity has its goal here.
    """
    values = np.asarray(happened, dtype=float)
    values = values[np.isfinite(values)]
    rate = float(values.mean()) if len(values) else float("nan")
    low, high = GOALS.get(quantity, (None, None)) if goal else (None, None)
    return Row(cell, procedure, quantity, rate, len(values), low, high, note)
