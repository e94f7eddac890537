"""How an item is worded as user text. The format's name and wording are recorded with every run."""

from __future__ import annotations

from collections.abc import Callable

from mata_interp.benchmarks import Item

__all__ = ["PROMPT_FORMATS", "Parts", "canonical_format", "wording"]

Parts = list[tuple[str, str]]  # (group, text) in order; the user text is their concatenation


def _lines(item: Item, options: str, between: str = "\n") -> Parts:
    """Caption, question, options, each on lines of its own if there; a line break belongs to its line.

    ``between``: what stands between question and options.
    """
    fields = [("caption", item.caption.strip()), ("question", item.question.strip()), ("options", options)]
    parts = [(group, text) for group, text in fields if text]
    after = {"caption": "\n", "question": between}
    return [(group, text + after[group]) for group, text in parts[:-1]] + parts[-1:]


def _options(item: Item) -> Parts:
    """The options in one sentence, to be answered by an option's text."""
    return _lines(item, f"Choose one of these options: {'; '.join(item.choices)}." if item.choices else "")


def _lmms_eval(item: Item) -> Parts:
    """The options lettered, to be answered by a letter; lmms-eval's wording (its tasks/mmau)."""
    asked = "Answer with the option's letter from the given choices directly."
    return _lines(item, "\n".join([*_lettered(item, "{}. {}"), asked]) if item.choices else "")


def _official(item: Item) -> Parts:
    """What published evaluations on MMAU commonly ask: MMAU and MMAR release a scorer and no prompt."""
    asked = "Choose the correct option from the following options:"
    return _lines(item, "\n".join([asked, *_lettered(item, "({}) {}")]) if item.choices else "", " ")


def _r1_aqa(item: Item) -> Parts:
    """R1-AQA's wording (xiaomi-research/r1-aqa, arXiv 2503.11197): a Python list, answered in a tag."""
    options = f"Please choose the answer from the following options: {list(item.choices)}. "
    return _lines(
        item, options + "Output the final answer in <answer> </answer>." if item.choices else "", " "
    )


def _kimi(item: Item) -> Parts:
    """Kimi-Audio-Evalkit's wording: the options lettered on one line, no instruction."""
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
"""By name; ``letters`` is another name of ``lmms-eval``."""


def canonical_format(name: str) -> str:
    """The name under which a format is recorded; ValueError, saying what there is, for an unknown one."""
    if name not in PROMPT_FORMATS:
        raise ValueError(f"No prompt format {name!r}: choose one of {sorted(PROMPT_FORMATS)}.")
    return "lmms-eval" if name == "letters" else name


def wording(name: str) -> str:
    """The user text of a format with names in place of an item's words, to be read and recorded."""
    item = Item(audio=None, question="{question}", choices=("{first option}", "{second option}"))
    return "".join(text for _, text in PROMPT_FORMATS[name](item))
