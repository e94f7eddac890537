"""Match generated answers to options: as the scripts of MMAU and MMAR do, and with attention to option
letters.

The two differ, so both scores are reported side by side. Neither guesses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["final_answer", "official_match", "option_named", "options_inside", "tokens"]

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"<think>.*\Z", re.DOTALL | re.IGNORECASE)
_CLOSED = re.compile(r"</think>", re.IGNORECASE)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)

_LEAD_IN = re.compile(r"\b(?:answer|option|choice)\s*(?:is|would be|:)\s*:?\s*", re.IGNORECASE)
_LABEL = re.compile(r"(?:option|choice)\s+(?=\(?[a-z]\)?(?:\W|$))", re.IGNORECASE)
_LETTERS = (
    re.compile(r"\(([A-Za-z])\)[.:]?(.*)", re.DOTALL),  # (B), (B) rain
    re.compile(r"([A-Za-z])[.):](?:\s+(.*))?", re.DOTALL),  # B., B) rain, B: rain
    re.compile(r"([A-Za-z])()"),  # B
)
_NEGATION = re.compile(r"(?<!\w)(?:not|no|nor|neither|never|without|cannot)(?!\w)|n['\u2019]t(?!\w)")
_AROUND = " \t\r\n\"'`*.,;:!"


def tokens(text: str) -> frozenset[str]:
    """The set of words of a text as in the official scripts: ``\\b\\w+\\b``, lower case."""
    return frozenset(re.findall(r"\b\w+\b", text.lower()))


def official_match(text: str, answer: str, choices: Sequence[str]) -> bool:
    """The string match of MMAU (Sakshi113/MMAU ``evaluation.py``) and MMAR (ddlBoJack/MMAR).

    An answer is right if it has all words of the right option, and none of the words that other options have
    and the right one has not. Options with exactly the words of the right one do not count as others. This is
    the benchmarks' own rule, with these consequences: a phrase around the option ("The answer is ...") makes
    it wrong if a wrong option has one of its words; a letter alone is wrong; a longer option counts as right
    for a shorter one that it contains if its further words are also in the right option.

    Args:
        text: the generated text, unchanged: the scripts do not remove tags or reasoning.
        answer: the right option.
        choices: all options.

    Examples:
        >>> official_match("It is rain.", "rain", ["a dog", "rain"])
        True
        >>> official_match("B", "rain", ["a dog", "rain"])
        False
    """
    right, words = tokens(answer), tokens(text)
    if not words:
        return False
    wrong: set[str] = set()
    for choice in choices:
        choice_words = tokens(choice)
        if choice_words != right:
            wrong |= choice_words - right
    return right <= words and not words & wrong


def final_answer(text: str) -> str:
    """The answer in a generated text, without reasoning; empty if the text ends within the reasoning.

    Reasoning is ``<think>...</think>``, or everything before a ``</think>`` whose beginning is part of the
    chat template. Of several ``<answer>`` tags the last one counts; an unclosed one extends to the end of the
    text.

    Examples:
        >>> final_answer("<think>A bell? No.</think> <answer>a dog</answer>")
        'a dog'
        >>> final_answer("<think>It could be")
        ''
    """
    rest = _CLOSED.split(_OPENED.sub("", _THOUGHT.sub("", text)))[-1]
    tagged = _TAGGED.findall(rest)
    return (tagged[-1] if tagged else rest).strip()


def option_named(text: str, choices: Sequence[str]) -> int | None:
    """Index of the option that a generated text names; None if it names none or is ambiguous.

    The rules are applied to the text after the last lead-in of `final_answer` ("The answer is", "Final
    answer:"), then to all of it. The first rule that applies decides:

    1. The text is an option's text, or begins with an option's letter: "(B)", "B.", "B)", "B: rain",
       "option B". It is ambiguous if the letter belongs to no option, precedes another option's text, or is
       itself another option's text (an option "D" that is not the fourth).
    2. The text contains exactly one option as a phrase, not counting options inside longer ones that are also
       contained, and no "not" or "no" outside the options.

    Case, surrounding quotes and full stops, and repeated spaces are ignored. A repeated option is named by
    the index of its first occurrence.

    Args:
        text: the generated text.
        choices: all options.

    Examples:
        >>> option_named("The answer is (B) rain.", ["a dog", "rain"])
        1
        >>> option_named("a dog or rain", ["a dog", "rain"]) is None
        True
    """
    whole = final_answer(text)
    parts = list(dict.fromkeys((_LEAD_IN.split(whole)[-1], whole)))
    for rule in (_option_or_letter, options_inside):
        for part in parts:
            named = rule(part, choices)
            if named:
                return max(named) if len(named) == 1 and max(named) >= 0 else None
    return None


def _option_or_letter(text: str, choices: Sequence[str]) -> set[int]:
    """Indices of the options that the text equals or names by letter; -1 for a letter of no option."""
    plain, options = _plain(text), [_plain(choice) for choice in choices]
    named = {options.index(plain)} if plain and plain in options else set()
    text = text.strip(_AROUND.replace(".", "").replace(":", ""))
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) else text
    letter = next((match for form in _LETTERS if (match := form.fullmatch(text))), None)
    if letter is not None:
        index = ord(letter[1].upper()) - ord("A")
        beside = _plain(letter[2] or "")
        named.add(index if index < len(options) else -1)
        named |= {options.index(beside)} if beside in options and beside != "" else set()
    # equal options have the index of the first one
    return {options.index(options[index]) if index >= 0 else -1 for index in named}


def options_inside(text: str, choices: Sequence[str]) -> set[int]:
    """Indices of the options that a text contains as a phrase, without those inside longer contained options.

    The set is empty if the text has a negation outside the options, since it may reject what it names.
    """
    plain, options = _plain(text), [_plain(choice) for choice in choices]
    contained = {o for o in options if o and re.search(rf"(?<!\w){re.escape(o)}(?!\w)", plain)}
    rest = plain
    for option in sorted(contained, key=len, reverse=True):
        rest = rest.replace(option, " ")
    if _NEGATION.search(rest):
        return set()
    longest = [o for o in contained if not any(o != other and o in other for other in contained)]
    return {options.index(option) for option in longest}


def _plain(text: str) -> str:
    """The text in lower case, with single spaces, without punctuation at either end."""
    return " ".join(text.lower().split()).strip(_AROUND)
