"""What a run's answers relied on, by condition: text against sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from ..benchmarks import Item
from ..errors import RunError
from ..statistics import Rate, text_dominance, text_prior

__all__ = ["spoken_for", "text_dominance_by", "text_dominance_of", "text_prior_of"]


def spoken_for(items: Iterable[Item]) -> dict[str, str]:
    """Item id -> the option that its caption speaks for, of the items whose caption does."""
    return {item.id: item.caption_answer for item in items if item.caption_answer is not None}


def text_dominance_of(records: pd.DataFrame, items: Iterable[Item], seed: int = 0) -> dict[str, Rate]:
    """The text-dominance ratio of each condition, on the items whose caption speaks for a wrong option.

    Args:
        records: of a run.
        items: those that were asked; they know what the captions speak for.
        seed: of the bootstrap.

    Returns:
        Condition -> `Rate`; empty where no item's caption speaks against its sound.
    """
    return text_dominance_by(records, spoken_for(items), seed)


def text_dominance_by(records: pd.DataFrame, spoken: Mapping[str, str], seed: int = 0) -> dict[str, Rate]:
    """`text_dominance_of` where only ``spoken`` (see `spoken_for`) is at hand, as in a run's manifest."""
    known = records.dropna(subset=["answer"])
    against = [
        spoken.get(item, right) != right for item, right in zip(known["item"], known["answer"], strict=True)
    ]
    conflicts = known.loc[against]
    return {
        str(condition): text_dominance(
            [said == spoken[item] for item, said in zip(part["item"], part["predicted"], strict=True)],
            [said == right for said, right in zip(part["predicted"], part["answer"], strict=True)],
            list(part["cluster"]),
            seed=seed,
        )
        for condition, part in conflicts.groupby("condition", sort=False, observed=True)
    }


def text_prior_of(records: pd.DataFrame, without: str, with_audio: str = "baseline", seed: int = 0) -> Rate:
    """The text-prior rate of two conditions of a run, on the items with an answer that both have.

    Args:
        without: the condition that hears nothing, e.g. one with ``audio="none"``.
        with_audio: the one that hears each item's own sound.

    Raises:
        RunError: the records have no such condition.
    """
    known = records.dropna(subset=["answer"])
    parts = []
    for condition in (without, with_audio):
        if condition not in set(records["condition"]):
            there = sorted(map(str, records["condition"].unique()))
            raise RunError(f"The run has no condition {condition!r}: it has {there}.")
        parts.append(known.loc[known["condition"] == condition].set_index("item"))
    both = parts[0].index.intersection(parts[1].index)
    deaf, hearing = (part.loc[both] for part in parts)
    right = (part["correct"].astype(bool).to_numpy() for part in (deaf, hearing))
    return text_prior(*right, clusters=list(hearing["cluster"]), seed=seed)
