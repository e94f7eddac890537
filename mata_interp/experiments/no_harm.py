"""Claims of no harm: at margins fixed before any result is seen, on the items that MATA should not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any, Literal

from ..errors import RunError
from ..statistics import NoHarm
from .planned_comparisons import Comparison

__all__ = ["MARGINS", "NoHarmClaim"]

MARGINS: Mapping[str, float] = {"binary": 0.05, "margin": 0.1}
"""The largest change that does not matter: a fraction of correct answers (5 points), and nats."""

Verdict = Literal["no harm", "not shown"]


@dataclass(frozen=True)
class NoHarmClaim:
    """A claim and its test.

    For correct answers it is equivalence: the change lies within the margin on both sides. For
    log-probability margins it is non-inferiority: the change is not worse than the negative margin.

    Attributes:
        comparison: What is compared.
        test: Estimate, 90 % interval and the two one-sided tests.
        p_holm: p-value of the claim after Holm's correction over all claims of no harm; NaN without a spread.
    """

    comparison: Comparison
    test: NoHarm
    p_holm: float = nan

    @property
    def claim(self) -> Literal["equivalence", "non-inferiority"]:
        """What is claimed."""
        return "equivalence" if self.comparison.kind == "binary" else "non-inferiority"

    @property
    def p(self) -> float:
        """The uncorrected p-value of the claim."""
        return self.test.p_equivalence if self.claim == "equivalence" else self.test.p_inferior

    @property
    def verdict(self) -> Verdict:
        """``"no harm"`` if both the interval and the corrected test show the claim."""
        test = self.test
        inside = test.low > -test.margin and (self.claim == "non-inferiority" or test.high < test.margin)
        return "no harm" if inside and self.p_holm < test.level else "not shown"

    def to_dict(self) -> dict[str, Any]:
        """One flat dict with None in place of NaN; `from_dict` reads it back."""
        comparison = self.comparison
        return {
            **comparison.to_dict(),
            "claim": self.claim,
            **self.test.to_dict(),
            "p_holm": None if self.p_holm != self.p_holm else self.p_holm,
            "verdict": self.verdict,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NoHarmClaim:
        """The claim that `to_dict` described.

        Raises:
            RunError: A field is missing.
        """
        numbers = ("margin", "difference", "low", "high", "p_inferior", "p_superior", "level")
        try:
            test = NoHarm(
                kind=data["kind"],
                n=data["n"],
                method=data["method"],
                **{name: nan if data[name] is None else data[name] for name in numbers},
            )
            p_holm = nan if data["p_holm"] is None else data["p_holm"]
            return cls(Comparison.from_dict(data), test, p_holm)
        except KeyError as error:
            raise RunError(
                f"A claim of no harm lacks the field {error}: effects.json is damaged or was edited."
            ) from error
