"""The section on what answers rely on: text dominance on conflicts, text prior without the audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from ..experiments import Condition, Run, text_dominance_by, text_prior_of
from ..statistics import Rate
from .accuracy import rate
from .comparisons import CAPTIONS, Comparisons, subset_label, where
from .parts import Block, Row, Section, Table
from .wording import printable

DOMINANCE = (
    "Text-dominance ratio (TDR; ALME, arXiv 2602.11488): of the answers that follow either the caption's "
    "false claim or the audio, the fraction that follow the caption; above 0.5, text dominates."
)
PRIOR = (
    "Text-prior rate: accuracy without the audio over accuracy with it; near 1 the audio is not needed, and "
    "the rate can exceed 1."
)


def reliance_section(run: Run, comparisons: Comparisons) -> Section | None:
    """Both rates with intervals and counts; None where neither is defined."""
    dominance, prior = _dominance(run, comparisons), _prior(run, comparisons)
    if not dominance and not prior:
        return None
    notes = [*([DOMINANCE] if dominance else []), *([PRIOR] if prior else []), "Intervals are over clips."]
    table = Table(
        "What the answers rely on, with 95\u00a0% intervals.",
        ("", "items", "clips", "rate", "of counts"),
        [*dominance, *prior],
        " ".join(notes),
    )
    return Section("reliance", "Reliance on text and audio", [("table", table)])


def _dominance(run: Run, comparisons: Comparisons) -> list[Block]:
    """One row per condition with the item's own audio: with other audio, the correct answer is not known."""
    answers = run.manifest.get("caption_answers", {})
    with_own_audio = [name for name, condition in comparisons.conditions.items() if condition.audio == "own"]
    records = run.records.loc[run.records["condition"].isin(with_own_audio)]
    rates = text_dominance_by(records, answers)
    rows = [_row(comparisons.label(name), value, name) for name, value in rates.items()]
    return [Block(rows, "Text-dominance ratio, where the caption contradicts the audio")] if rows else []


def _prior(run: Run, comparisons: Comparisons) -> list[Block]:
    """For each unedited condition without audio: all items, then by caption."""
    blocks = []
    for name in comparisons.with_role("no_audio", "silence"):
        condition = comparisons.conditions[name]
        with_audio = _with_own_audio(comparisons.conditions, condition)
        if condition.interventions or with_audio is None:
            continue
        rows = []
        for subset in _subsets(run.records):
            part = where(run.records, subset)
            if {name, with_audio} <= set(part.dropna(subset=["answer"])["condition"]):
                rows.append(_row(subset_label(subset), text_prior_of(part, name, with_audio), name))
        without = "no audio" if condition.audio == "none" else "silence in place of audio"
        title = f"Text-prior rate: {printable(name, 40)} ({without}) over {printable(with_audio, 40)}"
        blocks += [Block(rows, title)] if rows else []
    return blocks


def _subsets(records: pd.DataFrame) -> list[dict[str, str]]:
    captions = set(records["caption_condition"])
    return [{}, *({"caption_condition": caption} for caption in CAPTIONS if caption in captions)]


def _with_own_audio(conditions: Mapping[str, Condition], silent: Condition) -> str | None:
    """The condition that differs from ``silent`` only in its audio, the item's own; None if there is none."""
    with_sound = replace(silent, audio="own", role=None)
    return next(
        (name for name, condition in conditions.items() if replace(condition, role=None) == with_sound), None
    )


def _row(label: str, value: Rate, condition: str) -> Row:
    counts = f"{value.numerator:,} / {value.denominator:,}"
    cells = [label, f"{value.n:,}", f"{value.n_clusters:,}", rate(value, 1, 2), counts]
    data = {"condition": printable(condition), "rate": repr(value.value), "method": value.method}
    return Row(cells, "", data)
