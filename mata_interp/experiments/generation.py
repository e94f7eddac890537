"""From what a model said to an option: thoughts aside, tags read, and never a guess."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..benchmarks import Item

__all__ = ["final_answer"]

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"<think>.*\Z", re.DOTALL | re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)


def final_answer(text: str) -> str:
    """What of a generated text is the answer; empty where the model was cut while it still thought.

    Thoughts (``<think>...</think>``, or all before a lone ``</think>`` whose beginning the chat template
    wrote) are no answer. Of several ``<answer>`` tags the last counts; one that was cut goes to the end.

    Examples:
        >>> final_answer("<think>A bell? No.</think> <answer>a dog</answer>")
        'a dog'
        >>> final_answer("<think>It could be")
        ''
    """
    rest = _OPENED.sub("", _THOUGHT.sub("", text))
    rest = re.split(r"</think>", rest, flags=re.IGNORECASE)[-1]
    tagged = _ANSWER.findall(rest)
    return (tagged[-1] if tagged else rest).strip()


def official(item: Item, said: str) -> bool | None:
    """Right by the string match that MMAU and MMAR score with; None where the answer is not known."""
    if item.answer is None:
        return None
    return official_match(said, item.answer, item.choices)


def option_said(item: Item, said: str) -> str | None:
    """The option that an answer names, by its letter or its text; None where that cannot be told."""
    return parse_option(said, item.choices)


def official_match(said: str, answer: str, choices: Sequence[str]) -> bool:
    """All words of the answer, and none that only options with other words have."""
    words = {text: set(re.findall(r"\b\w+\b", text.lower())) for text in {said, answer, *choices}}
    wrong = set().union(*(words[c] - words[answer] for c in choices if words[c] != words[answer]))
    return bool(words[said]) and words[answer] <= words[said] and not words[said] & wrong


def parse_option(said: str, choices: Sequence[str]) -> str | None:
    """The option whose text the answer is, or whose letter it is or begins with: "B", "(B)", "B. a bell"."""
    plain = [text.strip(" .\"'`*").lower() for text in (said, *choices)]
    if plain[0] in plain[1:]:
        return choices[plain.index(plain[0], 1) - 1]
    letter = re.fullmatch(r"\(([A-Z])\).*|([A-Z])[.):](?:\s.*)?|([A-Z])", said.strip(), re.DOTALL | re.I)
    if letter is None:
        return None
    index = ord(next(filter(None, letter.groups())).upper()) - ord("A")
    return choices[index] if index < len(choices) else None
