"""The runs of a comparison: their letters and names, and which of their conditions correspond."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pandas as pd

from ...errors import RunError
from ...experiments import Role, Run, load_run
from ...experiments.planned_comparisons import primary_subset
from ..about import short_name
from ..comparisons import ROLE_LABELS
from ..wording import printable

__all__ = ["MOST", "Side", "Slot", "common_subset", "distinct_paths", "read_sides", "slots"]

MOST = len(ascii_uppercase)  # runs on a page
BASELINE = "without an intervention"


@dataclass(frozen=True, eq=False)
class Side:
    """One run of a comparison.

    Attributes:
        letter: ``"A"``, ``"B"``, ... in the order of the command.
        name: What differs between the runs: model, benchmark or folder.
        run: The run.
    """

    letter: str
    name: str
    run: Run

    @property
    def label(self) -> str:
        """``A: organism``."""
        return f"{self.letter}: {self.name}"

    @property
    def digests(self) -> Mapping[str, str]:
        """Item id -> hash of its words and labels, a dash, hash of its sound."""
        return self.run.manifest["data"].get("digests", {})

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The records of items with a known answer."""
        return self.run.records.dropna(subset=["answer", "correct"])

    @cached_property
    def baseline(self) -> str | None:
        """The condition without an intervention that hears the item's audio; None if there is none."""
        unedited = [name for name in self._answered if self.run.roles[name] == "baseline"]
        return "baseline" if "baseline" in unedited else next(iter(unedited), None)

    @cached_property
    def treated(self) -> tuple[str, ...]:
        """Conditions with an intervention and the item's audio, less the draws of random layers."""
        return tuple(
            name
            for name in self._answered
            if self.run.conditions[name].interventions and self.run.roles[name] != "sham_random_layers"
        )

    @cached_property
    def main(self) -> str | None:
        """The first condition with MATA, else the only one with an intervention that is no sham."""
        with_mata = [name for name in self.treated if self.run.roles[name] == "mata"]
        methods = [name for name in self.treated if self.run.roles[name] == "other"]
        return with_mata[0] if with_mata else methods[0] if len(methods) == 1 else None

    @property
    def conditions(self) -> tuple[str, ...]:
        """The baseline and the conditions with an intervention."""
        return (*([self.baseline] if self.baseline else []), *self.treated)

    @cached_property
    def _answered(self) -> list[str]:
        answered = set(self.scored["condition"])
        return [
            name
            for name, condition in self.run.conditions.items()
            if condition.audio == "own" and name in answered
        ]

    def values(self, condition: str, score: str = "correct") -> pd.Series:
        """A score of each item under a condition, by item id."""
        part = self.scored.loc[self.scored["condition"] == condition]
        return part.set_index("item")[score].astype(float).dropna()

    @cached_property
    def items(self) -> pd.DataFrame:
        """What does not depend on the condition, one row per item, by item id."""
        return self.scored.drop_duplicates("item").set_index("item").sort_index()


@dataclass(frozen=True)
class Slot:
    """Conditions of several runs that correspond.

    Attributes:
        title: What they have in common.
        names: Letter of the run -> name of its condition.
        kind: ``"baseline"``, ``"main"`` (the intervention that a run is about) or ``"other"``.
    """

    title: str
    names: Mapping[str, str]
    kind: str


def read_sides(folders: Sequence[str | Path]) -> list[Side]:
    """Read the runs.

    Raises:
        RunError: There are fewer than two or more than 26 of them, a folder is given twice, or one cannot be
            read.
    """
    paths = distinct_paths(folders)
    runs = [load_run(path) for path in paths]
    return [
        Side(letter, name, run)
        for letter, name, run in zip(ascii_uppercase, _names(runs, paths), runs, strict=False)
    ]


def distinct_paths(folders: Sequence[str | Path]) -> list[Path]:
    """The paths of what is compared.

    Raises:
        RunError: There are fewer than two or more than 26, or one is given twice.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    if not 2 <= len(paths) <= MOST:
        raise RunError(f"A comparison needs 2 to {MOST} results, and {len(paths)} are given.")
    first: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in first:
            raise RunError(
                f"{path} is given twice (also as {first[path.resolve()]}): comparing a result with itself "
                "shows nothing. Give each folder once."
            )
        first[path.resolve()] = path
    return paths


def _names(runs: Sequence[Run], paths: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: model, benchmark, folder, as far as these differ."""
    models = [short_name(run.manifest["model"].get("name")) for run in runs]
    benchmarks = [printable(run.manifest["data"].get("name"), 40) for run in runs]
    parts = [models if len(set(models)) > 1 else [], benchmarks if len(set(benchmarks)) > 1 else []]
    names = [", ".join(words) for words in zip(*(part for part in parts if part), strict=True)]
    repeated = {name for name, number in Counter(names).items() if number > 1} if names else set()
    folders = [printable(path.resolve().name, 40) for path in paths]
    if not names:
        return folders
    return [
        f"{name} ({folder})" if name in repeated else name
        for name, folder in zip(names, folders, strict=True)
    ]


def slots(sides: Sequence[Side]) -> list[Slot]:
    """The conditions that correspond: baselines, the interventions that the runs are about, equal names.

    Where every run has a single condition, these correspond, whatever they are.
    """
    if all(len(side.conditions) == 1 for side in sides):
        return [_slot({side.letter: side.conditions[0] for side in sides}, "baseline", sides)]
    return [slot for slot in _slots(sides) if len(slot.names) > 1]


def _slots(sides: Sequence[Side]) -> Iterator[Slot]:
    for kind in ("baseline", "main"):
        names = {side.letter: name for side in sides if (name := getattr(side, kind)) is not None}
        yield _slot(names, kind, sides)
    rest: dict[str, dict[str, str]] = {}
    for side in sides:
        for name in side.treated:
            if name != side.main:
                role = side.run.roles[name]
                key = ROLE_LABELS.get(role, name) if side.run.conditions[name].role else name
                rest.setdefault(key, {})[side.letter] = name
    for names in rest.values():
        yield _slot(names, "other", sides)


def _slot(names: Mapping[str, str], kind: str, sides: Sequence[Side]) -> Slot:
    present = [side for side in sides if side.letter in names]
    roles: set[Role] = {side.run.roles[names[side.letter]] for side in present}
    words = {printable(name, 40) for name in names.values()}
    if roles == {"baseline"}:
        title = BASELINE
    elif len(roles) == 1 and (label := ROLE_LABELS.get(next(iter(roles)))):
        title = label
    elif len(words) == 1:
        title = next(iter(words))
    else:
        title = "; ".join(f"{side.letter} {printable(names[side.letter], 40)}" for side in present)
    return Slot(title, names, kind)


def common_subset(sides: Sequence[Side]) -> dict[str, Any]:
    """The items that matter most: those whose caption contradicts the audio, if all runs have such items."""
    subsets = [primary_subset(side.scored) for side in sides]
    return subsets[0] if all(subset == subsets[0] for subset in subsets) else {}
