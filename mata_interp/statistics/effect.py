"""Effect: the result of a paired comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite, isnan, nan
from typing import Any

from ..markup import facts, frame, line

__all__ = ["Effect"]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The difference between two measurements of the same items, with its interval and its tests.

    For ``kind="binary"`` the means are accuracies between 0 and 1; for ``kind="margin"`` they have the unit
    of the margin (nats, for log-probabilities). A number that does not exist is NaN here and None in
    `to_dict`; `note` says why. Counts that do not apply are None.

    Attributes:
        kind: "binary" or "margin".
        n: Number of items compared.
        n_clusters: Number of independent clusters; None where no clusters were named.
        before, after: Means over the items.
        difference: ``after - before``.
        low, high: Interval of the difference.
        interval_method: How the interval was made.
        level: Nominal coverage of the interval.
        fixed, broken: Number of items wrong before and right after, and the reverse (binary only).
        p: The p-value to report: two-sided, of no difference.
        p_method: The test it comes from.
        p_mcnemar_exact, p_mcnemar_mid: McNemar's tests (binary only). They take items for independent, and
            are descriptive where clusters hold several items.
        p_permutation: The paired sign-flip test, which flips whole clusters.
        bootstrap_low, bootstrap_high: Symmetric bootstrap-t interval (margin only), which resamples whole
            clusters.
        seed: Seed of the permutation and the bootstrap.
        note: What limits tiny or constant data; else empty.

    Examples:
        >>> import mata_interp as mi
        >>> effect = mi.paired_effect([0, 0, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0])
        >>> effect.fixed, effect.broken, round(effect.difference, 3)
        (3, 1, 0.333)
    """

    kind: str
    n: int
    n_clusters: int | None
    before: float
    after: float
    difference: float
    low: float
    high: float
    interval_method: str
    level: float
    fixed: int | None = None
    broken: int | None = None
    p: float
    p_method: str
    p_mcnemar_exact: float = nan
    p_mcnemar_mid: float = nan
    p_permutation: float
    bootstrap_low: float = nan
    bootstrap_high: float = nan
    seed: int
    note: str = ""

    def to_dict(self) -> dict[str, str | int | float | None]:
        """The attributes with None in place of NaN, ready for JSON; `from_dict` reads them back."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Effect:
        """The effect that `to_dict` described; other keys are ignored.

        Raises:
            KeyError: An attribute is missing.
        """
        values = {}
        for field in fields(cls):
            value = data[field.name]
            values[field.name] = nan if value is None and field.type == "float" else value
        return cls(**values)

    def _repr_html_(self) -> str:
        """The effect as a small table, for notebooks."""
        interval = "none" if isnan(self.low) else f"{self._signed(self.low)} to {self._signed(self.high)}"
        unit, scale = ("points", 100) if self.kind == "binary" else ("nats", 1)
        before, after = (f"{scale * value:.1f} %" if scale == 100 else f"{value:.3g} nats" for value in
                         (self.before, self.after))  # fmt: skip
        rows = [
            ("before, after", f"{before}, {after}"),
            ("difference", f"{self._signed(self.difference)} {unit}"),
            (f"{100 * self.level:g} % interval", f"{interval} ({self.interval_method})"),
            ("items", f"{self.n:,}" + (f" of {self.n_clusters:,} clusters" if self.n_clusters else "")),
        ]
        if self.fixed is not None:
            rows.append(("corrected, broken", f"{self.fixed}, {self.broken}"))
        p = "< 0.0001" if self.p < 0.0001 else f"{self.p:.2g}"
        rows.append(("p", f"{p} ({self.p_method})"))
        title = "Change in accuracy" if self.kind == "binary" else "Change of the log-probability difference"
        return frame(title, facts(rows), line(self.note, small=True) if self.note else "")

    def __str__(self) -> str:
        return " ".join(part for part in (self._means(), self._tests(), self.note) if part)

    def _means(self) -> str:
        if isnan(self.difference):
            return ""
        if isnan(self.low):
            interval = "no interval"
        else:
            limits = f"{self._signed(self.low)} to {self._signed(self.high)}"
            interval = f"{100 * self.level:g} % interval {limits}, {self.interval_method}"
        if self.kind == "binary":
            means = f"Accuracy {100 * self.before:.1f} % before, {100 * self.after:.1f} % after"
            return f"{means}: {self._signed(self.difference)} points ({interval})."
        means = f"Mean margin {self.before:.3g} before, {self.after:.3g} after"
        return f"{means}: {self._signed(self.difference)} ({interval})."

    def _tests(self) -> str:
        items = "1 item" if self.n == 1 else f"{self.n} items"
        counts = items if self.fixed is None else f"{self.fixed} fixed, {self.broken} broken of {items}"
        if isnan(self.p):
            return f"{counts}; no p-value."
        p = "p < 0.0001" if self.p < 0.0001 else f"p = {self.p:.2g}"
        return f"{counts}; {p} ({self.p_method})."

    def _signed(self, value: float) -> str:
        return f"{100 * value:+.1f}" if self.kind == "binary" else f"{value:+.3g}"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value
