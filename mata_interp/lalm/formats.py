"""How an item is worded as user text. The format's name is recorded with every run."""

from __future__ import annotations

from collections.abc import Callable

from ..benchmarks import Item

__all__ = ["PROMPT_FORMATS", "Parts"]

Parts = list[tuple[str, str]]  # (group, text) in order; the user text is their concatenation


def _lines(item: Item, options: str) -> Parts:
    """Caption, question, options, each on lines of its own if there; a line break belongs to its line."""
    fields = [("caption", item.caption.strip()), ("question", item.question.strip()), ("options", options)]
    parts = [(group, text) for group, text in fields if text]
    return [(group, text + "\n") for group, text in parts[:-1]] + parts[-1:]


def _options(item: Item) -> Parts:
    """The options in one sentence, to be answered by an option's text."""
    return _lines(item, f"Choose one of these options: {'; '.join(item.choices)}." if item.choices else "")


def _letters(item: Item) -> Parts:
    """The options lettered, to be answered by a letter; lmms-eval's wording."""
    if not item.choices:
        return _lines(item, "")
    lettered = [f"{chr(ord('A') + index)}. {choice}" for index, choice in enumerate(item.choices)]
    asked = "Answer with the option's letter from the given choices directly."
    return _lines(item, "\n".join([*lettered, asked]))


PROMPT_FORMATS: dict[str, Callable[[Item], Parts]] = {"options": _options, "letters": _letters}
