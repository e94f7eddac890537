"""The items that two runs share, and the statistics of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ...statistics import Effect, holm, paired_effect
from ..comparisons import CAPTIONS
from .sides import Side, Slot

Kind = Literal["binary", "margin"]

__all__ = ["Contrast", "Overlap", "contrasts", "overlap", "shared_items"]


@dataclass(frozen=True)
class Overlap:
    """How the items of a run relate to those of the first.

    Attributes:
        shared: Ids of the items with the same words, labels and sound.
        words, sounds: Ids in both whose words or labels, or whose sound, differ.
        only_here, only_there: Number of ids that only this run, or only the first, has.
    """

    shared: tuple[str, ...]
    words: tuple[str, ...]
    sounds: tuple[str, ...]
    only_here: int
    only_there: int


def overlap(first: Side, other: Side) -> Overlap:
    """Join the items of two runs by the hashes of their words, labels and decoded sound."""
    there, here = first.digests, other.digests
    both = [id for id in there if id in here]
    same = [id for id in both if there[id] == here[id]]
    words, sounds = (
        tuple(id for id in both if there[id].split("-")[part] != here[id].split("-")[part]) for part in (0, 1)
    )
    return Overlap(tuple(same), words, sounds, len(here) - len(both), len(there) - len(both))


def shared_items(sides: Sequence[Side]) -> list[str]:
    """Ids of the items that all runs have, with the same words, labels and sound."""
    first = sides[0]
    shared = set(first.digests)
    for side in sides[1:]:
        shared &= set(overlap(first, side).shared)
    return sorted(shared)


@dataclass(frozen=True)
class Contrast:
    """A paired comparison of a run with the first one, on the items that both answered.

    Attributes:
        title: The conditions that are compared, or the change from one to another.
        subset: Column -> value of the items that are compared; empty for all.
        first, second: Letters of the two runs.
        measure: ``"accuracy"`` or ``"margin"``.
        of_change: Whether the changes by the intervention are compared, and not the answers.
        effect: ``difference`` is the second run minus the first.
        p_holm: Holm-adjusted over all contrasts of the same measure.
    """

    title: str
    subset: Mapping[str, str]
    first: str
    second: str
    measure: str
    of_change: bool
    effect: Effect
    p_holm: float = nan

    @property
    def detected(self) -> bool:
        """Whether the interval excludes zero and the adjusted p-value is below 0.05."""
        return self.p_holm < 0.05 and (self.effect.low > 0 or self.effect.high < 0)


def contrasts(sides: Sequence[Side], common: Sequence[Slot], measure: str) -> list[Contrast]:
    """Every contrast of the runs with the first, for all items and for those of each caption.

    Args:
        sides: The runs.
        common: Their corresponding conditions.
        measure: ``"accuracy"`` or ``"margin"``.
    """
    rows = []
    for other in sides[1:]:
        shared = overlap(sides[0], other).shared
        pair = _Pair(sides[0], other, list(shared), "correct" if measure == "accuracy" else "margin")
        for subset in _subsets(pair.items):
            rows += pair.contrasts(common, subset, measure)
    tested = [n for n, row in enumerate(rows) if not isnan(row.effect.p)]
    for n, p in zip(tested, holm([rows[n].effect.p for n in tested]), strict=True):
        rows[n] = replace(rows[n], p_holm=float(p))
    return rows


class _Pair:
    """Two runs and the items that they share."""

    def __init__(self, first: Side, second: Side, shared: Sequence[str], score: str) -> None:
        self.first, self.second, self.score = first, second, score
        answered = [id for id in shared if id in first.items.index and id in second.items.index]
        self.items = first.items.loc[answered]
        labels = [first.items.loc[answered, "cluster"], second.items.loc[answered, "cluster"]]
        self.clusters = pd.Series(_joint_clusters(*(part.tolist() for part in labels)), index=answered)

    def contrasts(self, common: Sequence[Slot], subset: Mapping[str, str], measure: str) -> list[Contrast]:
        """The answers under each pair of conditions, then the change by the main intervention."""
        letters = {self.first.letter, self.second.letter}
        matched = [
            slot for slot in common if letters <= set(slot.names) and slot.kind in ("baseline", "main")
        ]
        kinds = {slot.kind: slot for slot in matched}
        rows = [self._answers(slot, subset, measure) for slot in matched]
        if {"baseline", "main"} <= set(kinds):
            rows.append(self._changes(kinds["baseline"], kinds["main"], subset, measure))
        return [row for row in rows if row.effect.n]

    def _answers(self, slot: Slot, subset: Mapping[str, str], measure: str) -> Contrast:
        values = [side.values(slot.names[side.letter], self.score) for side in (self.first, self.second)]
        kind: Kind = "binary" if measure == "accuracy" else "margin"
        return self._contrast(slot.title, values, kind, subset, measure, [slot])

    def _changes(self, baseline: Slot, main: Slot, subset: Mapping[str, str], measure: str) -> Contrast:
        values = [
            (side.values(main.names[side.letter], self.score)
             - side.values(baseline.names[side.letter], self.score)).dropna()
            for side in (self.first, self.second)
        ]  # fmt: skip
        title = f"change by {main.title}"
        return self._contrast(title, values, "margin", subset, measure, [baseline, main], of_change=True)

    def _contrast(
        self,
        title: str,
        values: Sequence[pd.Series],
        kind: Kind,
        subset: Mapping[str, str],
        measure: str,
        used: Sequence[Slot],
        of_change: bool = False,
    ) -> Contrast:
        items = self.items
        for column, value in subset.items():
            items = items.loc[items[column] == value]
        ids = [id for id in items.index if all(id in part.index for part in values)]
        before, after = (part.loc[ids].to_numpy() for part in values)
        chosen_on = {
            clip
            for side in (self.first, self.second)
            for slot in used
            for clip in side.run.chosen_on.get(slot.names[side.letter], ())
        }
        effect = paired_effect(
            before,
            after,
            kind,
            self.clusters.loc[ids].tolist(),
            chosen_on=self._renamed(chosen_on),
        )
        return Contrast(title, subset, self.first.letter, self.second.letter, measure, of_change, effect)

    def _renamed(self, clips: set[str]) -> set[str]:
        """The joint labels of these clips."""
        there = self.items["cluster"].isin(clips) | self.second.items.loc[self.items.index, "cluster"].isin(
            clips
        )
        return set(self.clusters.loc[there.to_numpy()])


def _joint_clusters(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Labels under which items are together that are so in either run, such as by clip or by source."""
    if list(first) == list(second) or not first:
        return list(first)
    codes = [np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1] for labels in (first, second)]
    count = int(codes[0].max()) + 1
    edges = coo_array(
        (np.ones(len(first)), (codes[0], codes[1] + count)), shape=(2 * len(first) + count,) * 2
    )
    labels = connected_components(edges, directed=False)[1]
    return [f"joint {labels[code]}" for code in codes[0]]


def _subsets(items: pd.DataFrame) -> list[dict[str, str]]:
    """All items, then those of each caption where there are several kinds."""
    present = [caption for caption in CAPTIONS if caption in set(items["caption_condition"])]
    return [{}, *({"caption_condition": caption} for caption in present if len(present) > 1)]
