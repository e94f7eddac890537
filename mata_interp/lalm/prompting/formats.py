"""The wording of an item as user text. The name and the wording of a format are recorded with every run."""

from __future__ import annotations

from collections.abc import Callable

from mata_interp.benchmarks import Item
from mata_interp.errors import ArgumentError, unknown_name

__all__ = ["PROMPT_FORMATS", "Parts", "canonical_format", "wording"]

Parts = list[tuple[str, str]]  # (group, text) in order; the user text is their concatenation


def _lines(item: Item, options: str, between: str = "\n") -> Parts:
    """Caption, question and options, each on lines of its own where present; a line break ends its line.

    Args:
        between: the text between question and options.
    """
    fields = [("caption", item.caption.strip()), ("question", item.question.strip()), ("options", options)]
    parts = [(group, text) for group, text in fields if text]
    after = {"caption": "\n", "question": between}
    return [(group, text + after[group]) for group, text in parts[:-1]] + parts[-1:]


def _options(item: Item) -> Parts:
    """The options in one sentence; the answer is an option's text."""
    return _lines(item, f"Choose one of these options: {'; '.join(item.choices)}." if item.choices else "")


def _lmms_eval(item: Item) -> Parts:
    """Lettered options; the answer is a letter. The wording of lmms-eval (tasks/mmau)."""
    instruction = "Answer with the option's letter from the given choices directly."
    return _lines(item, "\n".join([*_lettered(item, "{}. {}"), instruction]) if item.choices else "")


def _official(item: Item) -> Parts:
    """The wording that published evaluations on MMAU commonly use; MMAU and MMAR release no prompt."""
    instruction = "Choose the correct option from the following options:"
    return _lines(item, "\n".join([instruction, *_lettered(item, "({}) {}")]) if item.choices else "", " ")


def _r1_aqa(item: Item) -> Parts:
    """The wording of R1-AQA (xiaomi-research/r1-aqa, arXiv 2503.11197): a Python list, answered in a tag."""
    options = f"Please choose the answer from the following options: {list(item.choices)}. "
    return _lines(
        item, options + "Output the final answer in <answer> </answer>." if item.choices else "", " "
    )


def _kimi(item: Item) -> Parts:
    """The wording of Kimi-Audio-Evalkit: lettered options on one line, no instruction."""
    return _lines(item, " ".join(_lettered(item, "({}) {}")))


def _lettered(item: Item, form: str) -> list[str]:
    return [form.format(chr(ord("A") + index), choice) for index, choice in enumerate(item.choices)]


PROMPT_FORMATS: dict[str, Callable[[Item], Parts]] = {
    "options": _options,
    "lmms-eval": _lmms_eval,
    "official": _official,
    "r1-aqa": _r1_aqa,
    "kimi": _kimi,
    "letters": _lmms_eval,
}
"""The formats by name; ``letters`` is another name of ``lmms-eval``."""


def canonical_format(name: str) -> str:
    """The name under which a format is recorded.

    Raises:
        ArgumentError: there is no such format; the text lists the formats and suggests the nearest name.
    """
    if name not in PROMPT_FORMATS:
        raise ArgumentError(unknown_name("prompt format", name, PROMPT_FORMATS))
    return "lmms-eval" if name == "letters" else name


def wording(name: str) -> str:
    """The user text of a format with field names in place of an item's texts, for records and pages."""
    item = Item(audio=None, question="{question}", choices=("{first option}", "{second option}"))
    return "".join(text for _, text in PROMPT_FORMATS[name](item))
