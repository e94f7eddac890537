"""Accuracy on the held-out clips, with and without audio, by kind of caption and of clip."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

import mata_interp as mi

__all__ = ["accuracy_table", "evaluate", "held_out"]

WITH, WITHOUT = "audio", "no audio"


def held_out(benchmark: Path) -> mi.Items:
    """The test split, which is looked at once, after the training."""
    return mi.load_benchmark(str(benchmark)).split("confirmation")


def evaluate(model: Path, benchmark: Path, out: Path, seed: int = 0) -> pd.DataFrame:
    """Answer the test split with and without audio, and return (and write as CSV) the table of accuracies.

    Args:
        model: folder of the model.
        benchmark: JSON file of the benchmark.
        out: run folder; a run in it is continued.
        seed: of the run.

    Returns:
        One row per audio condition and group, see `accuracy_table`.
    """
    lalm = mi.LALM.from_pretrained(str(model))
    items = held_out(benchmark)
    conditions = {WITH: None, WITHOUT: mi.Condition(audio="none")}
    records = mi.run(lalm, items, conditions, out=out, seed=seed).records
    claims = {item.id: item.caption_answer for item in items}
    table = accuracy_table(records.assign(claim=[claims[item] for item in records["item"]]))
    table.to_csv(out / "accuracy.csv", index=False)
    return table


def accuracy_table(records: pd.DataFrame) -> pd.DataFrame:
    """Return shares with 95 % Wilson intervals; every clip counts once in every row.

    Args:
        records: one row per item and condition, with ``condition``, ``kind`` (of the clip),
            ``caption_condition`` (neutral, congruent or conflict), ``predicted``, ``correct`` and ``claim``
            (the option that the caption states, or None).

    Returns:
        Columns ``audio``, ``caption``, ``clips``, ``measure``, ``n``, ``count``, ``share``, ``low``,
        ``high``. The measure is ``"correct"``, or for false captions also ``"caption's answer"``: the model
        answers what the caption states.
    """
    rows = []
    for names, group in records.groupby(["condition", "caption_condition"], sort=False):
        audio, caption = cast(tuple[str, str], names)
        rows.append((audio, caption, "all", "correct", group["correct"]))
        if caption == "conflict":
            rows.append((audio, caption, "all", "caption's answer", group["predicted"] == group["claim"]))
        if caption == "neutral":
            for kind, clips in group.groupby("kind"):
                rows.append((audio, caption, str(kind), "correct", clips["correct"]))
    return pd.DataFrame([_share(*row) for row in rows])


def _share(audio: str, caption: str, clips: str, measure: str, hits: pd.Series) -> dict:
    """One row of the table."""
    count, n = int(hits.sum()), len(hits)
    low, high = proportion_confint(count, n, method="wilson")
    names = {"audio": audio, "caption": caption, "clips": clips, "measure": measure}
    return names | {"n": n, "count": count, "share": count / n, "low": low, "high": high}
