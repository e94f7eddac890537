"""The comparisons of a study, fixed before any result is seen, and their effects.

- ``primary``: MATA against the baseline, correct answers by unnormalised log-probability, on items whose
  caption contradicts the audio (on all items where there are none such). One hypothesis.
- ``mata``: correct answers and margin, on conflict, neutral and congruent items. Holm's correction is over
  these hypotheses on MATA, the primary one among them: six in all.
- ``sham``: the same rule on text, in random layers, with another item's audio (against that audio's own
  baseline), and MATA against each sham. These are controls, and not corrected.
- ``descriptive``: by domain, over all items, length-normalised, by the official string match, and without or
  with other audio. Not corrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import nan
from typing import Any, Literal, overload

import pandas as pd

from ..errors import RunError
from ..statistics import Effect, holm, paired_effect
from .conditions import Role

__all__ = [
    "CONFLICT",
    "Comparison",
    "ComparisonResult",
    "Effects",
    "comparisons",
    "effects_table",
    "primary_subset",
]

CONFLICT = "conflict"
CAPTIONS = (CONFLICT, "neutral", "congruent")

Kind = Literal["binary", "margin"]
Family = Literal["primary", "mata", "sham", "descriptive"]
Score = Literal["", "normalised", "official"]

SCORE_NAMES = {"": "", "normalised": ", length-normalised", "official": ", official score"}


@dataclass(frozen=True)
class Comparison:
    """One condition against another, on a subset of the items.

    Attributes:
        before, after: Names of the two conditions.
        before_role, after_role: What the conditions are in the study.
        subset: Column of the records -> the value it must have; empty for all items.
        kind: ``"binary"`` for correct answers, ``"margin"`` for log-probability differences.
        family: Why the comparison is made; see the module's description.
        score: How answers are scored: by summed log-probability (``""``), per token, or by string match.
    """

    before: str
    after: str
    before_role: Role
    after_role: Role
    subset: Mapping[str, str]
    kind: Kind
    family: Family
    score: Score = ""

    @property
    def name(self) -> str:
        """For example ``mata vs baseline, length-normalised``."""
        return f"{self.after} vs {self.before}{SCORE_NAMES[self.score]}"

    @property
    def column(self) -> str:
        """The records' column that is compared."""
        if self.score == "official":
            return "official"
        plain = {"binary": "correct", "margin": "margin"}[self.kind]
        return f"{plain}_{self.score}" if self.score else plain


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison and its effect.

    Attributes:
        comparison: What is compared.
        effect: Estimate, interval and test.
        p_holm: The p-value after Holm's correction over all hypotheses on MATA; NaN for other comparisons.
    """

    comparison: Comparison
    effect: Effect
    p_holm: float = nan

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
        comparison = self.comparison
        return {
            "name": comparison.name,
            "before_condition": comparison.before,
            "after_condition": comparison.after,
            "before_role": comparison.before_role,
            "after_role": comparison.after_role,
            "subset": dict(comparison.subset),
            "column": comparison.column,
            "score": comparison.score,
            "family": comparison.family,
            **self.effect.to_dict(),
            "p_holm": None if self.p_holm != self.p_holm else self.p_holm,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ComparisonResult:
        """The result that `to_dict` described.

        Raises:
            RunError: A field is missing.
        """
        try:
            comparison = Comparison(
                before=data["before_condition"],
                after=data["after_condition"],
                before_role=data["before_role"],
                after_role=data["after_role"],
                subset=data["subset"],
                kind=data["kind"],
                family=data["family"],
                score=data["score"],
            )
            effect = Effect.from_dict(data)
            p_holm = nan if data["p_holm"] is None else data["p_holm"]
        except KeyError as error:
            raise RunError(
                f"An effect lacks the field {error}: effects.json is damaged or was edited."
            ) from error
        return cls(comparison, effect, p_holm)


@dataclass(frozen=True)
class Effects(Sequence[ComparisonResult]):
    """The results of all comparisons of a study, in the order of `comparisons`.

    Attributes:
        rows: The results.
    """

    rows: tuple[ComparisonResult, ...] = ()

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
        wanted = {
            "before_role": before_role,
            "after_role": after_role,
            "family": family,
            "column": column,
            "subset": subset,
        }
        fixed = {name: value for name, value in wanted.items() if value is not None}
        return tuple(
            row
            for row in self.rows
            if all(getattr(row.comparison, name) == value for name, value in fixed.items())
        )

    def to_frame(self) -> pd.DataFrame:
        """A table with one row per comparison and the columns of `ComparisonResult.to_dict`."""
        return pd.DataFrame([row.to_dict() for row in self.rows])

    def to_dict(self) -> list[dict[str, Any]]:
        """The rows as dicts, ready for JSON."""
        return [row.to_dict() for row in self.rows]

    @classmethod
    def from_dict(cls, data: Sequence[Mapping[str, Any]]) -> Effects:
        """The effects that `to_dict` described."""
        return cls(tuple(ComparisonResult.from_dict(row) for row in data))


def primary_subset(records: pd.DataFrame) -> dict[str, str]:
    """Conflict items if there are any, else all items."""
    return {"caption_condition": CONFLICT} if CONFLICT in set(records["caption_condition"]) else {}


def comparisons(records: pd.DataFrame, roles: Mapping[str, Role]) -> Iterator[Comparison]:
    """The comparisons of a study in the order of the table, as far as the records have what they need.

    Args:
        records: Records of a study's run, with known answers.
        roles: Name of each condition -> its role; a role other than ``"sham_random_layers"`` occurs once.

    Raises:
        RunError: No condition has the role ``"baseline"`` or ``"mata"``.
    """
    done = set(records["condition"])
    names: dict[Role, str] = {role: name for name, role in roles.items() if name in done}
    if missing := {"baseline", "mata"} - set(names):
        raise RunError(f"A study needs a condition with the role {min(missing)!r}; there are {roles}.")
    planned = (_on_mata(records, names), _on_shams(records, roles, names), _descriptive(records, names))
    for comparison in chain(*planned):
        if bool(records[comparison.column].notna().to_numpy().any()):  # generated answers have no margins
            yield comparison


def _pair(
    names: Mapping[Role, str],
    after: Role,
    before: Role,
    subset: Mapping[str, str],
    kind: Kind,
    family: Family,
) -> Comparison:
    return Comparison(names[before], names[after], before, after, subset, kind, family)


def _caption_subsets(records: pd.DataFrame) -> list[dict[str, str]]:
    captions = [name for name in CAPTIONS if name in set(records["caption_condition"])]
    return [{"caption_condition": name} for name in captions] or [{}]


def _on_mata(records: pd.DataFrame, names: Mapping[Role, str]) -> Iterator[Comparison]:
    """The hypotheses on MATA, the primary one first."""
    main = primary_subset(records)
    yield _pair(names, "mata", "baseline", main, "binary", "primary")
    for subset in _caption_subsets(records):
        if subset != main:
            yield _pair(names, "mata", "baseline", subset, "binary", "mata")
        yield _pair(names, "mata", "baseline", subset, "margin", "mata")


def _on_shams(
    records: pd.DataFrame, roles: Mapping[str, Role], names: Mapping[Role, str]
) -> Iterator[Comparison]:
    """Each sham against its baseline, then MATA against each sham that has the item's own audio."""
    main, subsets = primary_subset(records), _caption_subsets(records)
    shams = [
        name for name in records["condition"].unique() if roles[name] in ("sham_text", "sham_random_layers")
    ]
    pairs = [
        Comparison(names["baseline"], name, "baseline", roles[name], main, "binary", "sham") for name in shams
    ]
    if {"other_audio", "mata_other_audio"} <= set(names):
        pairs.append(_pair(names, "mata_other_audio", "other_audio", main, "binary", "sham"))
    for pair in pairs:
        for subset in subsets:
            yield replace(pair, subset=subset)
        yield replace(pair, kind="margin")
    kinds: tuple[Kind, Kind] = ("binary", "margin")
    for name in shams:
        for kind in kinds:
            yield Comparison(name, names["mata"], roles[name], "mata", main, kind, "sham")


def _descriptive(records: pd.DataFrame, names: Mapping[Role, str]) -> Iterator[Comparison]:
    """Comparisons that describe and are not tested as hypotheses."""
    main, subsets = primary_subset(records), _caption_subsets(records)
    on_all = _pair(names, "mata", "baseline", {}, "binary", "descriptive")
    if main:
        yield on_all
        yield replace(on_all, kind="margin")
    for subset in subsets:
        yield replace(on_all, subset=subset, score="normalised")
    if "official" in records and bool(records["official"].notna().to_numpy().all()):
        for subset in subsets:
            yield replace(on_all, subset=subset, score="official")
    for domain in sorted(set(records["domain"]) - {""}):
        for subset in [{}, main] if main else [{}]:
            yield replace(on_all, subset={"domain": domain, **subset})
    others: tuple[Role, Role] = ("other_audio", "no_audio")
    for other in others:
        if other in names:
            for subset in subsets:
                yield _pair(names, other, "baseline", subset, "binary", "descriptive")


def effects_table(records: pd.DataFrame, roles: Mapping[str, Role], seed: int) -> Effects:
    """The effect of every comparison of a study.

    Args:
        records: Records of a run with the conditions of a study; items without a known answer are left out.
        roles: Name of each condition -> its role, as in ``Run.roles``; conditions without records are
            ignored.
        seed: Seed of permutations and bootstraps.

    Raises:
        RunError: No condition has the role ``"baseline"`` or ``"mata"``.
    """
    scored = records.dropna(subset=["answer"])
    items = scored.drop_duplicates("item").set_index("item").sort_index()
    rows = []
    for comparison in comparisons(scored, roles):
        values = scored.pivot(index="item", columns="condition", values=comparison.column).astype(float)
        rows.append(ComparisonResult(comparison, _compare(items, values, comparison, seed)))
    tested = [n for n, row in enumerate(rows) if row.comparison.family in ("primary", "mata")]
    for n, p in zip(tested, holm([rows[n].effect.p for n in tested]), strict=True):
        rows[n] = replace(rows[n], p_holm=float(p))
    return Effects(tuple(rows))


def _compare(items: pd.DataFrame, values: pd.DataFrame, comparison: Comparison, seed: int) -> Effect:
    """The effect on the items of the comparison's subset, paired by id.

    Args:
        items: One row per item, with the columns that do not depend on the condition.
        values: The compared column, one row per item and one column per condition.
    """
    chosen = items
    for column, value in comparison.subset.items():
        chosen = chosen.loc[chosen[column] == value]
    paired = values.loc[chosen.index]
    return paired_effect(
        paired[comparison.before].to_numpy(),
        paired[comparison.after].to_numpy(),
        kind=comparison.kind,
        clusters=chosen["cluster"].tolist(),
        seed=seed,
    )
