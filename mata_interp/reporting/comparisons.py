"""The run's effects as a reader meets them: which there are, what to call them, in which order they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..experiments.effects import BASELINE, MATA, MATA_ON_TEXT, MATA_OTHER, OTHER, RANDOM_LAYERS
from .wording import layer_range, printable

CAPTIONS = {
    "conflict": "caption contradicts the sound",
    "neutral": "caption neutral or absent",
    "congruent": "caption agrees with the sound",
}
LABELS = {
    MATA: "MATA",
    MATA_ON_TEXT: "same rule on text",
    OTHER: "another item's audio",
    MATA_OTHER: "MATA, another item's audio",
}


@dataclass(frozen=True)
class LabelledEffect:
    """An effect (a dict of effects.json), what to call it, and how it looks: "primary", "mata" or "sham"."""

    label: str
    effect: Mapping[str, Any]
    look: str


@dataclass(frozen=True)
class Group:
    """Effects that stand together under a title."""

    title: str
    members: Sequence[LabelledEffect]


class Comparisons:
    """Effects of a study, sorted for reading; ``conditions`` as in the manifest."""

    def __init__(self, effects: Sequence[Mapping[str, Any]], conditions: Mapping[str, Any]) -> None:
        self.effects, self.conditions = effects, conditions
        self.primary = next((e for e in effects if e["family"] == "primary"), None)
        self.subset: Mapping[str, str] = self.primary["subset"] if self.primary else {}

    def find(self, column: str = "correct", **match: Any) -> list[Mapping[str, Any]]:
        """Effects on ``column`` of the records whose fields equal ``match``."""
        match["column"] = column
        return [e for e in self.effects if all(e[key] == value for key, value in match.items())]

    def groups(self, column: str = "correct") -> list[Group]:
        """Primary, MATA elsewhere, by domain, controls: the forest plot and the table have this order."""
        here = dict(after_condition=MATA, before_condition=BASELINE)
        if self.primary is None:
            return []
        main = self.find(column, subset=self.subset, **here)
        rest = [
            e
            for e in self.find(column, **here)
            if set(e["subset"]) <= {"caption_condition"} and e not in main
        ]
        domains = [
            e
            for e in self.find(column, **here)
            if "domain" in e["subset"] and {**self.subset, "domain": e["subset"]["domain"]} == e["subset"]
        ]
        look = "primary" if column == self.primary["column"] else "mata"
        first = (
            "Primary comparison, fixed beforehand" if look == "primary" else "Items of the primary comparison"
        )
        groups = [
            Group(first, [LabelledEffect(f"MATA, {subset_label(e['subset'])}", e, look) for e in main]),
            Group(
                "MATA on other items",
                [LabelledEffect(subset_label(e["subset"]), e, "mata") for e in rest],
            ),
            Group(
                "MATA by domain, items of the primary comparison" if self.subset else "MATA by domain",
                [LabelledEffect(printable(e["subset"]["domain"], 32), e, "mata") for e in domains],
            ),
            Group("Controls, items of the primary comparison", [
                LabelledEffect(self.label(e["after_condition"]), e, "sham") for e in self.shams(column)
            ]),
        ]  # fmt: skip
        return [group for group in groups if group.members]

    def shams(self, column: str = "correct") -> list[Mapping[str, Any]]:
        """What each control changed, on the items of the primary comparison."""
        found = self.find(column, family="sham", subset=self.subset)
        return [e for e in found if e["after_condition"] != MATA]

    def label(self, condition: str) -> str:
        """What to call a condition: ``mata in random layers 2`` -> ``MATA in random layers 0, 5``."""
        edits = self.conditions.get(condition, {}).get("interventions", [])
        if condition.startswith(RANDOM_LAYERS) and len(edits) == 1:
            layers = layer_range(edits[0].get("layers", ()))
            draw = condition.removeprefix(RANDOM_LAYERS).strip()
            return f"MATA in random layers{f' {layers}' if len(layers) <= 9 else f', draw {draw}'}"
        return LABELS.get(condition, printable(condition, 40))


def subset_label(subset: Mapping[str, str]) -> str:
    """``{"caption_condition": "conflict"}`` -> ``caption contradicts the sound``; ``{}`` -> ``all items``."""
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
    """The mean of a column, NaN left out; NaN if nothing is left."""
    values = records[column].dropna().to_numpy(dtype=float)
    return float(values.mean()) if len(values) else float("nan")
