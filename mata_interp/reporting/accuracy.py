"""Accuracy under every condition: both scores side by side, and the answers without an option."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

import pandas as pd

from ..experiments.chance import chance_of
from ..statistics import Rate, proportion
from .comparisons import CAPTIONS, Comparisons, mean, where
from .parts import Block, Content, Row, Table
from .wording import NONE, known, number, printable


def accuracy_tables(records: pd.DataFrame, comparisons: Comparisons) -> list[Content]:
    """One table of the conditions that compare options, one of those that generate."""
    scored = records.dropna(subset=["correct"])
    generated = scored["text"].notna().to_numpy(dtype=bool)
    content: list[Content] = []
    if not generated.all():
        content.append(("table", _compared(scored.loc[~generated], comparisons)))
    if generated.any():
        content.append(("table", _generated(scored.loc[generated], comparisons)))
    return content


def accuracy(part: pd.DataFrame, column: str) -> str:
    """Percentage correct by ``column`` with its interval over clips: ``71.2 [68.3, 74.1]``."""
    part = part.dropna(subset=[column])
    if part.empty:
        return NONE
    return rate(proportion(part[column].astype(bool), clusters=list(part["cluster"])))


def rate(value_of: Rate, scale: float = 100, digits: int = 1) -> str:
    """A `Rate` and its interval, times ``scale``; a ratio's interval may have no upper end."""
    value, low = number(scale * value_of.value, digits), number(scale * value_of.low, digits)
    high = "\u221e" if value_of.high == inf else number(scale * value_of.high, digits)
    return f"{value} [{low}, {high}]" if known(value_of.low) else value


def _compared(scored: pd.DataFrame, comparisons: Comparisons) -> Table:
    captions = [c for c in CAPTIONS if c in set(scored["caption_condition"])]
    official = len(scored.dropna(subset=["official"])) > 0  # runs of the first version have no such column
    rows = [_chance_row(scored, captions, official)]
    for name, part in scored.groupby("condition", sort=False):
        cells = [_both(part), *(_both(where(part, {"caption_condition": c})) for c in captions)]
        cells += [number(100 * mean(part, "official"), 1)] if official else []
        rows.append(_condition_row(str(name), [f"{len(part):,}", *cells], comparisons))
    note = (
        " Official: all items, the chosen option's text judged by the string match of MMAU and MMAR."
        if official
        else ""
    )
    return Table(
        "Accuracy under every condition, %.",
        (
            "Condition",
            "items",
            "all items",
            *(CAPTIONS[c] for c in captions),
            *(["official"] if official else []),
        ),
        [Block(rows)],
        "Answers are chosen by summed log-probability; in parentheses, by log-probability per token. Chance: "
        f"mean of one over the number of options.{note}",
    )


def _chance_row(scored: pd.DataFrame, captions: Sequence[str], official: bool) -> Row:
    """The accuracy of answers drawn at random, on all items and on those of each caption."""
    parts = [scored, *(where(scored, {"caption_condition": caption}) for caption in captions)]
    cells = [number(100 * chance_of(part), 1) for part in parts]
    return Row(["chance", "", *cells, *([""] if official else [])], "sham", {"condition": "chance"})


def _both(part: pd.DataFrame) -> str:
    if part.empty:
        return NONE
    plain, normalised = (number(100 * mean(part, c), 1) for c in ("correct", "correct_normalised"))
    return f"{plain} ({normalised})"


def _generated(scored: pd.DataFrame, comparisons: Comparisons) -> Table:
    blocks = []
    for title, rows in _subsets(scored):
        by_condition = rows.groupby("condition", sort=False)
        chance = Row(["chance", "", number(100 * chance_of(rows), 1), "", "", ""], "sham")
        members = [_generated_row(str(name), part, comparisons) for name, part in by_condition]
        blocks.append(Block([chance, *members], title))
    return Table(
        "Accuracy of generated answers, %, with 95\u00a0% intervals.",
        ("Condition", "items", "option-aware", "official", "no option", "cut short"),
        blocks,
        "Option-aware: the answer names the correct option by its letter, its text or in an answer tag. "
        "Official: the string match of MMAU and MMAR, which requires all words of the correct option and "
        "none that only other options have. No option: the answer names none, or more than one; it counts as "
        "wrong by the first score. Cut short: the answer reached the limit of new tokens. Clips, not items, "
        "are the independent units.",
    )


def _generated_row(name: str, part: pd.DataFrame, comparisons: Comparisons) -> Row:
    scores = [accuracy(part, column) for column in ("correct", "official")]
    failures = [number(100 * (1 - mean(part, column)), 1) for column in ("parsed", "stopped")]
    return _condition_row(name, [f"{len(part):,}", *scores, *failures], comparisons)


def _subsets(scored: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All items, then by caption, then by domain, where there are several."""
    yield "All items", scored
    for column in ("caption_condition", "domain"):
        values = {str(value) for value in scored[column]} - {""}
        known_first = [caption for caption in CAPTIONS if caption in values]
        if len(values) > 1:
            for value in dict.fromkeys([*known_first, *sorted(values)]):
                yield printable(CAPTIONS.get(value, value), 48).capitalize(), where(scored, {column: value})


def _condition_row(name: str, cells: list[str], comparisons: Comparisons) -> Row:
    look = "" if comparisons.role(name) in ("baseline", "mata") else "sham"
    return Row([comparisons.label(name), *cells], look, {"condition": printable(name)})
