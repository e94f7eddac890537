"""Reliance of a run's answers on text and audio, by condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from ..benchmarks import Item
from ..errors import RunError
from ..statistics import Rate, text_dominance, text_prior

__all__ = ["caption_answers", "text_dominance_by", "text_dominance_of", "text_prior_of"]


def caption_answers(items: Iterable[Item]) -> dict[str, str]:
    """Item id -> the option that its caption supports, for the items whose caption supports one."""
    return {item.id: item.caption_answer for item in items if item.caption_answer is not None}


def text_dominance_of(records: pd.DataFrame, items: Iterable[Item]) -> dict[str, Rate]:
    """Text-dominance ratio of each condition, on the items whose caption supports a wrong option.

    Args:
        records: Records of a run.
        items: The run's items, which have ``caption_answer``.

    Returns:
        Condition -> `Rate`; empty where no caption contradicts the audio.
    """
    return text_dominance_by(records, caption_answers(items))


def text_dominance_by(records: pd.DataFrame, supported: Mapping[str, str]) -> dict[str, Rate]:
    """`text_dominance_of` from ``supported`` (see `caption_answers`), as in a run's manifest."""
    known = records.dropna(subset=["answer"])
    against = [
        supported.get(item, right) != right
        for item, right in zip(known["item"], known["answer"], strict=True)
    ]
    conflicts = known.loc[against]
    return {
        str(condition): text_dominance(
            [option == supported[item] for item, option in zip(part["item"], part["predicted"], strict=True)],
            [option == right for option, right in zip(part["predicted"], part["answer"], strict=True)],
            list(part["cluster"]),
        )
        for condition, part in conflicts.groupby("condition", sort=False, observed=True)
    }


def text_prior_of(records: pd.DataFrame, without: str, with_audio: str = "baseline") -> Rate:
    """Text-prior rate of two conditions of a run, on the items with a known answer that both have.

    Args:
        records: Records of a run.
        without: Name of the condition without audio, e.g. one with ``audio="none"``.
        with_audio: Name of the condition with each item's own audio.

    Raises:
        RunError: The records have no such condition.
    """
    known = records.dropna(subset=["answer"])
    parts = []
    for condition in (without, with_audio):
        if condition not in set(records["condition"]):
            names = sorted(map(str, records["condition"].unique()))
            raise RunError(f"The run has no condition {condition!r}; it has {names}.")
        parts.append(known.loc[known["condition"] == condition].set_index("item"))
    both = parts[0].index.intersection(parts[1].index)
    silent, audible = (part.loc[both] for part in parts)
    return text_prior(
        silent["correct"].astype(bool).to_numpy(),
        audible["correct"].astype(bool).to_numpy(),
        clusters=list(audible["cluster"]),
    )
