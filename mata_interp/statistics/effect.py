"""What a paired comparison found."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Effect"]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The difference that a change made on the same items, with its interval and its tests.

    For ``kind="binary"`` means are accuracies between 0 and 1; for ``kind="margin"`` they carry the
    unit of the margin (nats, for log-probabilities). A number that cannot be had is None, never NaN,
    and `note` says why.

    Attributes:
        kind: "binary" or "margin".
        n: items compared.
        n_clusters: independent clusters, or None where none were named.
        before, after: means over the items.
        difference: after - before.
        low, high: the interval of the difference.
        interval_method: how it was made.
        level: the coverage aimed at.
        fixed, broken: items wrong before and right after, and the reverse (binary only).
        p: the p-value to report: two-sided, of no difference.
        p_method: the test it comes from.
        p_mcnemar_exact, p_mcnemar_mid: McNemar's tests (binary only); they take items for
            independent, and only describe where clusters hold several items.
        p_permutation: the paired sign-flip test, whole clusters at once.
        bootstrap_low, bootstrap_high: the BCa bootstrap interval (margin only), drawing whole clusters.
        seed: of the permutation and the bootstrap.
        note: what a reader must know about tiny or constant data; else empty.
    """

    kind: str
    n: int
    n_clusters: int | None
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    interval_method: str
    level: float
    fixed: int | None = None
    broken: int | None = None
    p: float
    p_method: str
    p_mcnemar_exact: float | None = None
    p_mcnemar_mid: float | None = None
    p_permutation: float
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    seed: int
    note: str = ""

    def to_dict(self) -> dict[str, str | int | float | None]:
        """Plain numbers, strings and None, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return " ".join(part for part in (self._means(), self._tests(), self.note) if part)

    def _means(self) -> str:
        if self.before is None or self.after is None or self.difference is None:
            return ""
        if self.low is None or self.high is None:
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
        p = "p < 0.0001" if self.p < 0.0001 else f"p = {self.p:.2g}"
        return f"{counts}; {p} ({self.p_method})."

    def _signed(self, value: float) -> str:
        return f"{100 * value:+.1f}" if self.kind == "binary" else f"{value:+.3g}"
