"""The section on what answers rely on: text dominance on conflicts, text prior without the sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..experiments import Run, text_dominance_by, text_prior_of
from ..statistics import Rate
from .accuracy import rate
from .comparisons import CAPTIONS, Comparisons, subset_label, where
from .parts import Block, Row, Section, Table
from .wording import printable

DOMINANCE = (
    "Text dominance (TDR; ALME, arXiv 2602.11488): of the answers that follow either the caption's false "
    "claim or the sound, the fraction that follow the caption; above 0.5 the text is trusted more."
)
PRIOR = (
    "Text prior: accuracy without the sound over accuracy with it; near 1 the sound is not needed, and it "
    "can exceed 1."
)


def reliance_section(run: Run, comparisons: Comparisons) -> Section | None:
    """Both rates with intervals and counts; None where nothing contradicts the sound or leaves it out."""
    dominance, prior = _dominance(run, comparisons), _prior(run, comparisons)
    if not dominance and not prior:
        return None
    meant = [*([DOMINANCE] if dominance else []), *([PRIOR] if prior else []), "Intervals draw whole clips."]
    table = Table(
        "What the answers rely on, with 95\u00a0% intervals.",
        ("", "items", "clips", "rate", "of counts"),
        [*dominance, *prior],
        " ".join(meant),
    )
    return Section("reliance", "Text or sound: what the answers rely on", [("table", table)])


def _dominance(run: Run, comparisons: Comparisons) -> list[Block]:
    """A row for each condition that hears the item's own sound: of another one no right answer is known."""
    spoken = run.manifest.get("caption_answers", {})
    heard = [name for name, condition in run.manifest["conditions"].items() if condition["audio"] == "own"]
    records = run.records.loc[run.records["condition"].isin(heard)]
    rows = [
        _row(comparisons.label(name), found) for name, found in text_dominance_by(records, spoken).items()
    ]
    return [Block(rows, "Text-dominance ratio, where the caption contradicts the sound")] if rows else []


def _prior(run: Run, comparisons: Comparisons) -> list[Block]:
    """For each condition without sound: all items, then by caption, against the same with the own sound."""
    blocks = []
    for deaf, condition in run.manifest["conditions"].items():
        hearing = _hearing(run.manifest["conditions"], condition)
        if condition["audio"] not in ("none", "silence") or condition["interventions"] or not hearing:
            continue
        rows = []
        for subset in _subsets(run.records):
            part = where(run.records, subset)
            if {deaf, hearing} <= set(part.dropna(subset=["answer"])["condition"]):
                rows.append(_row(subset_label(subset), text_prior_of(part, deaf, hearing)))
        without = "the sound left out" if condition["audio"] == "none" else "silence in its place"
        title = f"Text-prior rate: {printable(deaf, 40)} ({without}) over {printable(hearing, 40)}"
        blocks += [Block(rows, title)] if rows else []
    return blocks


def _subsets(records: pd.DataFrame) -> list[dict[str, str]]:
    there = set(records["caption_condition"])
    return [{}, *({"caption_condition": caption} for caption in CAPTIONS if caption in there)]


def _hearing(conditions: Mapping[str, Any], deaf: Mapping[str, Any]) -> str:
    """The condition that differs from ``deaf`` in nothing but that it hears the item's own sound; or none."""
    wanted = {**deaf, "audio": "own"}
    return next((name for name, condition in conditions.items() if condition == wanted), "")


def _row(label: str, found: Rate) -> Row:
    counts = f"{found.numerator:,} / {found.denominator:,}"
    return Row([label, f"{found.n:,}", f"{found.n_clusters:,}", rate(found, 1, 2), counts])
