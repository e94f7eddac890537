"""Records: one row per item and condition, from the options' log-probabilities to a margin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..benchmarks import Item

if TYPE_CHECKING:
    from ..lalm import OptionScores

__all__ = ["SCHEMA", "answer_records", "best_and_margin", "sort_records"]

SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("condition", pa.string()),
        ("cluster", pa.string()),  # the recording: items that share one are not independent
        ("domain", pa.string()),
        ("kind", pa.string()),
        ("caption_condition", pa.string()),  # neutral, congruent, conflict
        ("answer", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("logprob", pa.list_(pa.float64())),  # of each option, summed over its tokens, in nats
        ("tokens", pa.list_(pa.int64())),  # of each option
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("margin", pa.float64()),  # log p(correct) - log p(best wrong), in nats
        ("predicted_normalised", pa.string()),  # the same three from the mean over an option's tokens
        ("correct_normalised", pa.bool_()),
        ("margin_normalised", pa.float64()),
        ("dose_mass_before", pa.float64()),
        ("dose_mass_after", pa.float64()),
        ("dose_kl", pa.float64()),
        ("dose_boost", pa.float64()),
        ("dose_negative", pa.float64()),
        ("audio_from", pa.string()),  # the item whose audio was heard; null for silence and for none
        ("audio_seconds", pa.float64()),
        ("truncated_seconds", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("audio_tokens", pa.int64()),
        ("batch", pa.int64()),
        ("padded_width", pa.int64()),
    ]
)


DOSES = tuple(name for name in SCHEMA.names if name.startswith("dose_"))


def best_and_margin(scores: np.ndarray, answer: int | None) -> tuple[int, float]:
    """Index of the best option (the first of equals) and score[answer] - best score of the others.

    Args:
        scores: ``[C]``, C >= 2.
        answer: index of the right option, or None where it is not known; the margin is then NaN.
    """
    best = int(np.argmax(scores))
    if answer is None:
        return best, math.nan
    return best, float(scores[answer] - np.delete(scores, answer).max())


def answer_records(
    condition: str,
    batch: int,
    items: Sequence[Item],
    asked: Sequence[Mapping[str, Any]],
    scores: OptionScores,
) -> pa.Table:
    """The table (`SCHEMA`) of one batch under one condition.

    Args:
        items: of the batch; row b of everything else is items[b]'s.
        asked: of each item, the columns that tell what was asked: audio, tokens, widths.
        scores: ``logprob [B, C]`` and ``tokens [B, C]``, padded where an item has fewer options; ``dose``,
            name -> ``[B]``, a missing one becoming NaN (no intervention, no dose).
    """
    doses = {f"dose_{name}": values for name, values in scores.dose.items()}
    rows = []
    for b, item in enumerate(items):
        logprob, tokens = scores.logprob[b, : len(item.choices)], scores.tokens[b, : len(item.choices)]
        row: dict[str, Any] = {
            "item": item.id,
            "condition": condition,
            "cluster": item.cluster,
            "domain": item.domain,
            "kind": item.kind,
            "caption_condition": item.condition,
            "answer": item.answer,
            "choices": list(item.choices),
            "logprob": logprob.tolist(),
            "tokens": tokens.tolist(),
            "batch": batch,
            **asked[b],
            **{name: float(doses[name][b]) if name in doses else math.nan for name in DOSES},
        }
        right = None if item.answer is None else item.choices.index(item.answer)
        for suffix, values in (("", logprob), ("_normalised", logprob / tokens)):
            best, margin = best_and_margin(values, right)
            row[f"predicted{suffix}"] = item.choices[best]
            row[f"correct{suffix}"] = None if right is None else best == right
            row[f"margin{suffix}"] = margin
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def sort_records(records: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Rows in order of ``conditions``, then of item id: the same however and wherever they were computed."""
    order = pd.Categorical(records["condition"], categories=list(conditions), ordered=True)
    ordered = records.assign(_order=order).sort_values(["_order", "item"], kind="stable", ignore_index=True)
    return ordered.drop(columns="_order")
