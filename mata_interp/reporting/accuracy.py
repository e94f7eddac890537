"""Accuracy under every condition: both scores side by side, and the answers that name no option."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import pandas as pd

from ..experiments.effects import BASELINE, MATA
from ..statistics import Rate, proportion
from .comparisons import CAPTIONS, Comparisons, mean, where
from .parts import Block, Content, Row, Table
from .wording import NONE, known, number, printable


def accuracy_tables(records: pd.DataFrame, comparisons: Comparisons) -> list[Content]:
    """One table of the conditions that compare options, one of those that answer in words; none if none."""
    scored = records.dropna(subset=["correct"])
    in_words = scored["text"].notna().to_numpy(dtype=bool)
    content: list[Content] = []
    if len(compared := scored.loc[~in_words]):
        content.append(("table", _compared(compared, comparisons)))
    if in_words.any():
        content.append(("table", _in_words(scored.loc[in_words], comparisons)))
    return content


def accuracy(part: pd.DataFrame, column: str) -> str:
    """Per cent right by ``column`` with its interval, clips whole: ``71.2 [68.3, 74.1]``."""
    part = part.dropna(subset=[column])
    if part.empty:
        return NONE
    return rate(proportion(part[column].astype(bool), clusters=list(part["cluster"])))


def rate(found: Rate, scale: float = 100, digits: int = 1) -> str:
    """A `Rate` and its interval, times ``scale``; a ratio's interval may have no upper end."""
    value, low = number(scale * found.value, digits), number(scale * found.low, digits)
    high = "\u221e" if found.high == inf else number(scale * found.high, digits)
    return f"{value} [{low}, {high}]" if known(found.low) else value


def _compared(scored: pd.DataFrame, comparisons: Comparisons) -> Table:
    captions = [c for c in CAPTIONS if c in set(scored["caption_condition"])]
    official = len(scored.dropna(subset=["official"])) > 0  # runs of the first version have no such column
    rows = []
    for name, part in scored.groupby("condition", sort=False):
        cells = [_both(part), *(_both(where(part, {"caption_condition": c})) for c in captions)]
        cells += [number(100 * mean(part, "official"), 1)] if official else []
        rows.append(Row([comparisons.label(str(name)), f"{len(part):,}", *cells], _look(str(name))))
    told = (
        " Official: all items, that option's text judged by the string match of MMAU and MMAR."
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
        f"Answers chosen by summed log-probability; in brackets by log-probability per token.{told}",
    )


def _both(part: pd.DataFrame) -> str:
    if part.empty:
        return NONE
    plain, normalised = (number(100 * mean(part, c), 1) for c in ("correct", "correct_normalised"))
    return f"{plain} ({normalised})"


def _in_words(scored: pd.DataFrame, comparisons: Comparisons) -> Table:
    blocks = [
        Block(
            [_said(str(name), part, comparisons) for name, part in rows.groupby("condition", sort=False)], t
        )
        for t, rows in _subsets(scored)
    ]
    return Table(
        "Accuracy of the answers in words, %, with 95\u00a0% intervals.",
        ("Condition", "items", "option-aware", "official", "no option told", "cut short"),
        blocks,
        "Option-aware: the answer names the right option, by its letter, its text or in an answer tag. "
        "Official: the string match of MMAU and MMAR, which wants all words of the right option and none "
        "that only others have. No option told: the answer names none, or more than one; it is wrong by the "
        "first score and never guessed. Cut short: not at its end after the tokens it was given. Not items "
        "but clips count as independent.",
    )


def _said(name: str, part: pd.DataFrame, comparisons: Comparisons) -> Row:
    scores = [accuracy(part, column) for column in ("correct", "official")]
    failures = [number(100 * (1 - mean(part, column)), 1) for column in ("parsed", "stopped")]
    return Row([comparisons.label(name), f"{len(part):,}", *scores, *failures], _look(name))


def _subsets(scored: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All items, then by caption, then by domain, where there are several."""
    yield "All items", scored
    for column in ("caption_condition", "domain"):
        there = {str(value) for value in scored[column]} - {""}
        known_first = [caption for caption in CAPTIONS if caption in there]
        for value in dict.fromkeys([*known_first, *sorted(there)]) if len(there) > 1 else ():
            yield printable(CAPTIONS.get(value, value), 48).capitalize(), where(scored, {column: value})


def _look(name: str) -> str:
    return "" if name in (BASELINE, MATA) else "sham"
