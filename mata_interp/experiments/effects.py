"""The effects of a study's comparisons: estimates, intervals, tests, chance and power."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import isnan, nan
from typing import Any, Literal, overload

import numpy as np
import pandas as pd

from ..errors import RunError
from ..execution.files import plain
from ..statistics import Effect, holm, no_harm, paired_effect
from .chance import chance_of
from .conditions import Role
from .dose_response import DoseAssociation, DoseResponse, dose_association
from .no_harm import MARGINS, NoHarmClaim
from .planned_comparisons import Comparison, Family, comparisons, no_harm_comparisons
from .power import detectable_change
from .schema import from_plain

__all__ = ["ComparisonResult", "Effects", "effects_table"]


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison and its effect.

    Attributes:
        comparison: What is compared.
        effect: Estimate, interval and test.
        p_holm: The p-value after Holm's correction over all hypotheses on MATA; NaN for other comparisons.
        chance: Accuracy of answers drawn at random from the options, the mean over the items; NaN for margins
            and where options are not recorded.
        detectable: Smallest change that such a comparison detects with 80 % power, for the hypotheses on MATA
            and for MATA against the sham on text; a fraction, or nats for margins. Else NaN.
    """

    comparison: Comparison
    effect: Effect
    p_holm: float = nan
    chance: float = nan
    detectable: float = nan

    @property
    def verdict(self) -> Literal["helps", "hurts", "undetected"]:
        """The direction of the effect if both its interval and its test (at 0.05, uncorrected) show it."""
        if self.effect.p < 0.05 and self.effect.low > 0:
            return "helps"
        if self.effect.p < 0.05 and self.effect.high < 0:
            return "hurts"
        return "undetected"

    def to_dict(self) -> dict[str, Any]:
        """One flat dict with None in place of NaN; `from_dict` reads it back.

        ``before`` and ``after`` are the two means; ``before_condition`` and ``after_condition`` name the
        conditions.
        """
        return {
            **self.comparison.to_dict(),
            **self.effect.to_dict(),
            **{name: None if isnan(value) else value for name, value in self._numbers().items()},
        }

    def _numbers(self) -> dict[str, float]:
        return {"p_holm": self.p_holm, "chance": self.chance, "detectable": self.detectable}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ComparisonResult:
        """The result that `to_dict` described.

        Raises:
            RunError: A field is missing.
        """
        try:
            comparison, effect = Comparison.from_dict(data), Effect.from_dict(data)
            numbers = {name: data[name] for name in ("p_holm", "chance", "detectable")}
        except KeyError as error:
            raise RunError(
                f"An effect lacks the field {error}: effects.json is damaged or was edited."
            ) from error
        return cls(comparison, effect, **{n: nan if value is None else value for n, value in numbers.items()})


@dataclass(frozen=True)
class Effects(Sequence[ComparisonResult]):
    """The results of all comparisons of a study, in the order of `comparisons`.

    Attributes:
        rows: The results.
        no_harm: The claims of no harm, a family of their own.
        dose_response: The margin at every alpha, on the selection clips; None where there is one alpha.
        association: Whether the tested items whose attention moved most gained most; None without margins.
    """

    rows: tuple[ComparisonResult, ...] = ()
    no_harm: tuple[NoHarmClaim, ...] = ()
    dose_response: DoseResponse | None = None
    association: DoseAssociation | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> ComparisonResult: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ComparisonResult, ...]: ...

    def __getitem__(self, index: int | slice) -> ComparisonResult | tuple[ComparisonResult, ...]:
        return self.rows[index]

    def __repr__(self) -> str:
        return f"<Effects: {len(self)} comparisons>"

    @property
    def primary(self) -> ComparisonResult | None:
        """The primary comparison; None if there is none."""
        return next((row for row in self.rows if row.comparison.family == "primary"), None)

    def select(
        self,
        *,
        before_role: Role | None = None,
        after_role: Role | None = None,
        family: Family | None = None,
        column: str | None = None,
        subset: Mapping[str, str] | None = None,
    ) -> tuple[ComparisonResult, ...]:
        """The results that have these values; None leaves a value open.

        >>> Effects().select(after_role="mata", column="correct")
        ()
        """
        values_by_name = {
            "before_role": before_role,
            "after_role": after_role,
            "family": family,
            "column": column,
            "subset": subset,
        }
        fixed = {name: value for name, value in values_by_name.items() if value is not None}
        return tuple(
            row
            for row in self.rows
            if all(getattr(row.comparison, name) == value for name, value in fixed.items())
        )

    def to_frame(self) -> pd.DataFrame:
        """A table with one row per comparison and the columns of `ComparisonResult.to_dict`."""
        return pd.DataFrame([row.to_dict() for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain data, ready for JSON; the rows are called ``effects``."""
        return {
            "effects": [row.to_dict() for row in self.rows],
            "no_harm": [claim.to_dict() for claim in self.no_harm],
            "dose_response": None if self.dose_response is None else plain(self.dose_response),
            "association": None if self.association is None else plain(self.association),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Effects:
        """The effects that `to_dict` described.

        Raises:
            RunError: A field is missing.
        """
        if missing := {"effects", "no_harm"} - set(data):
            raise RunError(f"The effects lack {min(missing)!r}: effects.json is damaged or was edited.")
        return cls(
            tuple(ComparisonResult.from_dict(row) for row in data["effects"]),
            tuple(NoHarmClaim.from_dict(claim) for claim in data["no_harm"]),
            from_plain(DoseResponse | None, data.get("dose_response"), "dose_response"),  # type: ignore[arg-type]
            from_plain(DoseAssociation | None, data.get("association"), "association"),  # type: ignore[arg-type]
        )


def effects_table(
    records: pd.DataFrame,
    roles: Mapping[str, Role],
    seed: int,
    chosen_on: Mapping[str, Collection[str]] | None = None,
) -> Effects:
    """The effect of every comparison of a study.

    Args:
        records: Records of a run with the conditions of a study; items without a known answer are left out.
        roles: Name of each condition -> its role, as in ``Run.roles``; conditions without records are
            ignored.
        seed: Seed of permutations and bootstraps.
        chosen_on: Name of a condition -> the clips that it was chosen on. A comparison with one that is made
            on such a clip has no p-value, and no claim of no harm is made.

    Raises:
        RunError: No condition has the role ``"baseline"`` or ``"mata"``.
    """
    scored = records.dropna(subset=["answer"])
    items = scored.drop_duplicates("item").set_index("item").sort_index()

    @cache
    def values(column: str) -> pd.DataFrame:
        return scored.pivot(index="item", columns="condition", values=column).astype(float)

    def paired(comparison: Comparison) -> pd.DataFrame:
        return _paired(items, values(comparison.column), comparison)

    def chosen(comparison: Comparison) -> set[str]:
        clips = chosen_on or {}
        return {*clips.get(comparison.before, ()), *clips.get(comparison.after, ())}

    planned = comparisons(scored, roles)
    rows = [_result(paired(each), each, seed, chosen(each)) for each in planned]
    hypotheses = [n for n, row in enumerate(rows) if row.comparison.family in ("primary", "mata")]
    tested = [n for n in hypotheses if not isnan(rows[n].effect.p)]
    for n, p in zip(tested, holm([rows[n].effect.p for n in tested]), strict=True):
        rows[n] = replace(rows[n], p_holm=float(p))
    claims = [_claim(paired(each), each, chosen(each)) for each in no_harm_comparisons(scored, roles)]
    association = dose_association(scored, roles, chosen_on, seed)
    return Effects(tuple(rows), _corrected(claims), association=association)


def _paired(items: pd.DataFrame, values: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """The items of the comparison's subset, with their two values as ``before`` and ``after``.

    Args:
        items: One row per item, with the columns that do not depend on the condition.
        values: The compared column, one row per item and one column per condition.
        comparison: What is compared.
    """
    chosen = items
    for column, value in comparison.subset.items():
        chosen = chosen.loc[chosen[column] == value]
    of_items = values.loc[chosen.index]
    return chosen.assign(before=of_items[comparison.before], after=of_items[comparison.after])


def _result(
    paired: pd.DataFrame, comparison: Comparison, seed: int, chosen_on: Collection[str]
) -> ComparisonResult:
    before, after, clusters = _values(paired)
    effect = paired_effect(before, after, comparison.kind, clusters, seed, chosen_on=chosen_on)
    against_text = comparison.before_role == "sham_text" and comparison.after_role == "mata"
    powered = comparison.family in ("primary", "mata") or against_text
    return ComparisonResult(
        comparison,
        effect,
        chance=chance_of(paired) if comparison.kind == "binary" else nan,
        detectable=detectable_change(before, after, comparison.kind, clusters) if powered else nan,
    )


def _claim(paired: pd.DataFrame, comparison: Comparison, chosen_on: Collection[str]) -> NoHarmClaim:
    before, after, clusters = _values(paired)
    test = no_harm(before, after, MARGINS[comparison.kind], comparison.kind, clusters, chosen_on=chosen_on)
    return NoHarmClaim(comparison, test)


def _values(paired: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list]:
    return paired["before"].to_numpy(), paired["after"].to_numpy(), paired["cluster"].tolist()


def _corrected(claims: Sequence[NoHarmClaim]) -> tuple[NoHarmClaim, ...]:
    """The claims with Holm's correction over them. One that has no p-value is not shown, and counts as 1."""
    p = holm([1.0 if isnan(claim.p) else claim.p for claim in claims])
    return tuple(
        replace(claim, p_holm=nan if isnan(claim.p) else float(adjusted))
        for claim, adjusted in zip(claims, p, strict=True)
    )
