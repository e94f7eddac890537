"""The effects of a study as a reader meets them: groups, labels and order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from ..experiments import Comparison, ComparisonResult, Condition, Effects, Role
from .wording import known, layer_range, printable

CAPTIONS = {
    "conflict": "caption contradicts the audio",
    "neutral": "caption neutral or absent",
    "congruent": "caption agrees with the audio",
}
ROLE_LABELS: Mapping[Role, str] = {
    "mata": "MATA",
    "sham_text": "same rule on text tokens",
    "other_audio": "another item's audio",
    "mata_other_audio": "MATA, another item's audio",
}

CALIBRATION = (
    "How often these tests and intervals err was simulated; procedures, settings and results are listed in "
    "analyses/README.md of mata-interp, under calibration."
)

Look = Literal["primary", "mata", "sham"]


@dataclass(frozen=True)
class LabelledEffect:
    """A comparison, its label, and the style of its row or marker."""

    label: str
    result: ComparisonResult
    look: Look


@dataclass(frozen=True)
class Group:
    """Effects under one title."""

    title: str
    members: Sequence[LabelledEffect]


class Comparisons:
    """Effects of a study, sorted for reading.

    Args:
        effects: All effects; empty for a run that is not a study.
        conditions: Name -> condition of the run.
    """

    def __init__(self, effects: Effects, conditions: Mapping[str, Condition]) -> None:
        self.effects, self.conditions = effects, conditions
        self.primary = effects.primary
        self.subset: Mapping[str, str] = self.primary.comparison.subset if self.primary else {}

    @property
    def generated(self) -> bool:
        """Whether the answers of the primary comparison were generated."""
        if self.primary is None:
            return False
        condition = self.conditions.get(self.primary.comparison.after)
        return condition is not None and condition.decoding is not None

    def groups(self, column: str = "correct") -> list[Group]:
        """Groups of the forest plot and the table: primary, other items, domains, controls."""
        if self.primary is None:
            return []
        of_mata = self.effects.select(before_role="baseline", after_role="mata", column=column)
        main = [row for row in of_mata if row.comparison.subset == self.subset]
        rest = [
            row for row in of_mata if row not in main and set(row.comparison.subset) <= {"caption_condition"}
        ]
        domains = [row for row in of_mata if self._is_main_by_domain(row.comparison)]
        is_primary = column == self.primary.comparison.column
        look: Look = "primary" if is_primary else "mata"
        groups = [
            Group(
                "Primary comparison (prespecified)" if is_primary else "Items of the primary comparison",
                [LabelledEffect(f"MATA, {subset_label(row.comparison.subset)}", row, look) for row in main],
            ),
            Group(
                "MATA on other items",
                [LabelledEffect(subset_label(row.comparison.subset), row, "mata") for row in rest],
            ),
            Group(
                "MATA by domain, items of the primary comparison" if self.subset else "MATA by domain",
                [
                    LabelledEffect(printable(row.comparison.subset["domain"], 32), row, "mata")
                    for row in domains
                ],
            ),
            Group(
                "Controls, items of the primary comparison",
                [LabelledEffect(self.label(row.comparison.after), row, "sham") for row in self.shams(column)],
            ),
        ]
        return [group for group in groups if group.members]

    def _is_main_by_domain(self, comparison: Comparison) -> bool:
        """Whether a comparison is on the primary comparison's items of one domain."""
        domain = comparison.subset.get("domain")
        return domain is not None and comparison.subset == {**self.subset, "domain": domain}

    def shams(self, column: str = "correct") -> list[ComparisonResult]:
        """What each control changes on the items of the primary comparison."""
        rows = self.effects.select(family="sham", column=column, subset=self.subset)
        return [row for row in rows if row.comparison.after_role != "mata"]

    def role(self, condition: str) -> Role:
        """The role of a condition, ``"other"`` for one that the run does not have."""
        return self.conditions[condition].inferred_role if condition in self.conditions else "other"

    def with_role(self, *roles: Role) -> list[str]:
        """Names of the conditions that have one of these roles."""
        return [name for name in self.conditions if self.role(name) in roles]

    def label(self, condition: str) -> str:
        """A study's name for a role (``MATA in random layers 0, 5``), else the condition's name."""
        role = self.conditions[condition].role if condition in self.conditions else None
        if role == "sham_random_layers":
            layers = layer_range(self.conditions[condition].interventions[0].layers)
            draw = self.with_role(role).index(condition) + 1
            return f"MATA in random layers{f' {layers}' if len(layers) <= 9 else f', draw {draw}'}"
        return printable(condition, 40) if role is None else ROLE_LABELS.get(role, printable(condition, 40))


def effect_data(result: ComparisonResult) -> dict[str, str]:
    """Data attributes of an element that shows an effect, in full precision; empty where not defined."""
    effect = result.effect
    subset = ",".join(f"{column}={printable(value)}" for column, value in result.comparison.subset.items())
    numbers = {
        "n": effect.n,
        "before": effect.before,
        "after": effect.after,
        "difference": effect.difference,
        "low": effect.low,
        "high": effect.high,
        "fixed": effect.fixed,
        "broken": effect.broken,
        "p": effect.p,
        "p-holm": result.p_holm,
        "chance": result.chance,
        "detectable": result.detectable,
    }
    return {
        "effect": printable(result.comparison.name),
        "family": result.comparison.family,
        "column": result.comparison.column,
        "subset": subset,
        **{name: repr(value) if known(value) else "" for name, value in numbers.items()},
    }


def subset_label(subset: Mapping[str, str]) -> str:
    """``{"caption_condition": "conflict"}`` -> ``caption contradicts the audio``; ``{}`` -> ``all items``."""
    words = [
        CAPTIONS.get(value, f"{printable(value, 32)} caption")
        if column == "caption_condition"
        else printable(value, 32)
        for column, value in subset.items()
    ]
    return ", ".join(words) or "all items"


def where(records: pd.DataFrame, subset: Mapping[str, str]) -> pd.DataFrame:
    """The rows in which every column of ``subset`` has that value."""
    for column, value in subset.items():
        records = records.loc[records[column] == value]
    return records


def mean(records: pd.DataFrame, column: str) -> float:
    """Mean of a column without its NaN values; NaN if there are no others."""
    values = records[column].dropna().to_numpy(dtype=float)
    return float(values.mean()) if len(values) else float("nan")
