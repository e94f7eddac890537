"""Records: one row per item and condition, from log-probabilities or a generated answer to an option."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..benchmarks import Item, final_answer, official_match, option_named
from ..statistics import best_option, is_correct, margin

if TYPE_CHECKING:
    from ..lalm import GenerationOutput, OptionScores

__all__ = ["SCHEMA", "answer_records", "current", "generation_records", "sort_records"]

SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("condition", pa.string()),
        ("cluster", pa.string()),  # the recording; items of one recording are not independent
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
        ("predicted_normalised", pa.string()),  # the same three, with the mean over an option's tokens
        ("correct_normalised", pa.bool_()),
        ("margin_normalised", pa.float64()),
        ("text", pa.string()),  # the generated answer; null where options were compared
        ("final_answer", pa.string()),  # of that text: without thoughts, the content of an <answer> tag
        ("parsed", pa.bool_()),  # whether an option was parsed from it; if not, it is not correct
        ("official", pa.bool_()),  # correct by the string match of MMAU and MMAR
        ("generated_tokens", pa.int64()),
        ("stopped", pa.bool_()),  # the answer ended by itself; false: cut at max_new_tokens
        ("dose_mass_before", pa.float64()),
        ("dose_mass_after", pa.float64()),
        ("dose_kl", pa.float64()),
        ("dose_boost", pa.float64()),
        ("dose_negative", pa.float64()),
        ("dose_left_alone", pa.float64()),  # of a method that counts the rows that it cannot edit
        ("audio_from", pa.string()),  # the item whose audio was used; null for silence and for none
        ("audio_seconds", pa.float64()),
        ("truncated_seconds", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("audio_tokens", pa.int64()),
        ("batch", pa.int64()),
        ("padded_width", pa.int64()),
        ("rows_together", pa.int64()),  # rows computed at once; fewer than the batch where memory ran out
    ]
)
"""Columns of the records. Where options are compared, ``logprob`` to ``margin_normalised`` are set. Where
answers are generated, ``text`` to ``stopped`` are, with ``predicted`` and ``correct`` parsed from the text.
Other columns are null or NaN.
"""

RUN_FORMAT = 3
"""Version of the format of run folders: of their manifest and of the columns of their records."""

DOSES = tuple(name for name in SCHEMA.names if name.startswith("dose_"))


def answer_records(
    condition: str,
    batch: int,
    items: Sequence[Item],
    inputs: Sequence[Mapping[str, Any]],
    scores: OptionScores,
) -> pa.Table:
    """The table (`SCHEMA`) of items whose options were compared under one condition.

    Args:
        condition: Name of the condition.
        batch: Number of the batch.
        items: Items of the batch, in the order of the rows of ``scores``.
        inputs: Columns that describe each item's input: audio, tokens, widths.
        scores: ``logprob [B, C]`` and ``tokens [B, C]``, padded where an item has fewer options; ``dose``,
            name -> ``[B]``, a missing one becoming NaN (no intervention, no dose).
    """
    rows = _rows(condition, batch, items, inputs, scores.dose)
    for b, (item, row) in enumerate(zip(items, rows, strict=True)):
        logprob, tokens = scores.logprob[b, : len(item.choices)], scores.tokens[b, : len(item.choices)]
        row |= {"logprob": logprob.tolist(), "tokens": tokens.tolist()}
        right = None if item.answer is None else item.choices.index(item.answer)
        for suffix, values in (("", logprob), ("_normalised", logprob / tokens)):
            row[f"predicted{suffix}"] = item.choices[int(best_option(values))]
            row[f"correct{suffix}"] = None if right is None else bool(is_correct(values, right))
            row[f"margin{suffix}"] = float(margin(values, -1 if right is None else right))
        row["official"] = _official(item, row["predicted"])
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def generation_records(
    condition: str,
    batch: int,
    items: Sequence[Item],
    inputs: Sequence[Mapping[str, Any]],
    answers: GenerationOutput,
) -> pa.Table:
    """The table (`SCHEMA`) of items with generated answers; arguments as in `answer_records`."""
    rows = _rows(condition, batch, items, inputs, answers.dose)
    for b, (item, row) in enumerate(zip(items, rows, strict=True)):
        final = final_answer(answers.texts[b])
        index = option_named(final, item.choices)
        option = None if index is None else item.choices[index]
        row |= {
            "text": answers.texts[b],
            "final_answer": final,
            "parsed": option is not None,
            "predicted": option,
            "correct": None if item.answer is None else option == item.answer,
            "official": _official(item, final),
            "margin": math.nan,
            "margin_normalised": math.nan,
            "generated_tokens": int(answers.lengths[b]),
            "stopped": bool(answers.stopped[b]),
        }
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _official(item: Item, answer: str) -> bool | None:
    """Whether an answer is correct by the string match; None where the right one is not known."""
    return None if item.answer is None else official_match(answer, item.answer, item.choices)


def _rows(
    condition: str,
    batch: int,
    items: Sequence[Item],
    inputs: Sequence[Mapping[str, Any]],
    dose: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """The columns that do not depend on how the answer is obtained."""
    doses = {f"dose_{name}": values for name, values in dose.items()}
    return [
        {
            "item": item.id,
            "condition": condition,
            "cluster": item.cluster,
            "domain": item.domain,
            "kind": item.kind,
            "caption_condition": item.condition,
            "answer": item.answer,
            "choices": list(item.choices),
            "batch": batch,
            "rows_together": len(items),
            **inputs[b],
            **{name: float(doses[name][b]) if name in doses else math.nan for name in DOSES},
        }
        for b, item in enumerate(items)
    ]


def current(table: pa.Table) -> pa.Table:
    """A table of `SCHEMA` without metadata; ValueError if its columns are others."""
    if not table.schema.equals(SCHEMA):
        raise ValueError("its columns are not those of this version")
    return table.replace_schema_metadata(None)


def sort_records(records: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Rows in order of ``conditions``, then of item id."""
    order = pd.Categorical(records["condition"], categories=list(conditions), ordered=True)
    ordered = records.assign(_order=order).sort_values(["_order", "item"], kind="stable", ignore_index=True)
    return ordered.drop(columns="_order")
