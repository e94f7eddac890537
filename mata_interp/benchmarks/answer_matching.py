"""Match generated answers to options: as the scripts of MMAU and MMAR do, and with attention to option
letters.

The two differ, so both scores are reported side by side. Neither guesses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .answer_text import after_lead_ins, boxed, final_answer, json_values, normalized
from .option_letters import corrected, letter_spans, read_letter
from .option_phrases import UNCLEAR, Phrases, strip_around

__all__ = ["final_answer", "official_match", "option_named", "options_inside", "tokens"]


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


def option_named(text: str, choices: Sequence[str]) -> int | None:
    """Index of the option that a generated text names; None if it names none or is ambiguous.

    The text is that of `final_answer`, whatever its Unicode form and markup. What it says in a LaTeX box, in
    JSON, or after a lead-in ("The answer is", "Final answer:", "答案是"; the last one first) comes before
    the rest. The first of these rules that applies decides:

    1. The text, or its first or last line or its first sentence, is an option's text (without regard to case,
       surrounding punctuation and articles) or begins with an option's letter: "(B)", "B.", "B) rain",
       "B: rain", "option B". The explanation after it is not read. It is ambiguous if the letter belongs to
       no option, stands beside another option's text or letter, or is itself another option's text (an option
       "D" that is not the fourth), if a list of options follows, or if the text withdraws it ("Wait, ...").
    2. The text names exactly one option, by its text or letter, and does not reject it ("not rain", "rather
       than rain"). Options inside longer ones, inside other words and inside other numbers (2 in "2.5", "-2",
       "more than 2") do not count. A negation or condition about something else leaves the answer open.

    A repeated option is named by the index of its first occurrence. Options that bring letters along
    ("B. cat") are named by these.

    Args:
        text: the generated text.
        choices: all options.

    Examples:
        >>> option_named("The answer is (B) rain.", ["a dog", "rain"])
        1
        >>> option_named("It is not rain but a dog.", ["a dog", "rain"])
        0
        >>> option_named("a dog or rain", ["a dog", "rain"]) is None
        True
    """
    phrases = _phrases(tuple(choices))
    answer = final_answer(text)
    whole = normalized(answer)
    for claims in (boxed(answer), json_values(answer)):
        readings = [read for claim in claims if (read := _read_all(normalized(claim), phrases))]
        if readings:
            return _certain(set().union(*readings))
    for claim in after_lead_ins(whole):
        if reading := _read_all(claim, phrases):
            return _certain(reading)
    return _certain(_read_all(whole, phrases, every_line=True))


def options_inside(text: str, choices: Sequence[str]) -> set[int]:
    """Indices of the options that a text contains as a phrase, without those inside longer contained options.

    The set is empty if the text has a negation that does not stand right before an option, since it may
    reject what it names; an option right after a negation is left out.
    """
    named = _phrases(tuple(choices)).affirmed(normalized(text))
    return set() if UNCLEAR in named else named


@lru_cache(maxsize=1024)
def _phrases(choices: tuple[str, ...]) -> Phrases:
    return Phrases(choices)


def _certain(reading: set[int]) -> int | None:
    return next(iter(reading)) if len(reading) == 1 and UNCLEAR not in reading else None


def _read_all(text: str, phrases: Phrases, every_line: bool = False) -> set[int]:
    """Indices of the options that a text gives as its answer: one if it is certain, none if there is none.

    Args:
        text: normalized text: the whole answer, or what follows a lead-in.
        phrases: the options.
        every_line: read the last line and all sentences; else the first sentence only.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return set()
    reading = _read_beginning(text, phrases)
    if every_line and len(lines) > 1:
        reading = reading | _read_beginning(lines[-1], phrases)
    if reading:
        return reading
    claim = text if every_line else _first_sentence(lines[0])
    return phrases.affirmed(claim, letter_spans(claim, phrases))


def _read_beginning(text: str, phrases: Phrases) -> set[int]:
    """The option that a text equals or begins with, by letter or text."""
    same, letter = phrases.equal(text), read_letter(text, phrases)
    if same is not None:
        return {same} | (letter - {UNCLEAR} if len(strip_around(text)) == 1 else set())
    return letter or _read_first_sentence(text, phrases)


_SENTENCE = re.compile(r"[.!。](?=\s|$)|\n|。")
_TAKES_BACK = re.compile(r"\W*(?:not|no|never|wrong|incorrect|unlikely|but|or|and)\b", re.IGNORECASE)


def _first_sentence(text: str) -> str:
    end = _SENTENCE.search(text)
    return text[: end.start()] if end else text


def _read_first_sentence(text: str, phrases: Phrases) -> set[int]:
    """The option whose text is the first sentence or line, or what stands before its first comma."""
    text = text.strip()
    head = _first_sentence(text)
    rest = text[len(head) + 1 :].strip()
    option = phrases.equal(head)
    numbered = head.strip().isdigit() and "\n" not in text[: len(head) + 2] and rest != ""
    if option is not None and not head.rstrip().endswith("?") and not numbered:
        if corrected("\n" + rest) or _TAKES_BACK.match(rest):
            return {option, UNCLEAR}
        second = phrases.equal(_first_sentence(rest)) if rest else None
        return {option} if second is None else {option, second}
    head, comma, rest = text.partition(", ")
    option = phrases.equal(head) if comma else None
    if option is not None and not corrected("\n" + rest) and phrases.affirmed(rest) <= {option}:
        return set() if phrases.spans(rest) and not phrases.affirmed(rest) else {option}
    return set()
