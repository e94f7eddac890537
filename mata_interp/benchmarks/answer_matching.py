"""Whether an answer is right: as the scripts of MMAU and MMAR judge it, and as a reader would.

The two differ, so both are reported, side by side. Neither ever guesses.
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
    """The words of a text as the official scripts see them: ``\\b\\w+\\b``, lower case, each once."""
    return frozenset(re.findall(r"\b\w+\b", text.lower()))


def official_match(said: str, answer: str, choices: Sequence[str]) -> bool:
    """The string match of MMAU (Sakshi113/MMAU ``evaluation.py``) and MMAR (ddlBoJack/MMAR).

    Right if all of the answer's words were said, and none of the words that other choices have and the answer
    has not. Choices with exactly the answer's words do not count as others. Quirks that follow, which are the
    benchmarks' own: a word around the answer ("The answer is ...") makes it wrong where a wrong choice holds
    that word; a letter alone is wrong; a longer choice can be right for a shorter one that it contains if its
    further words are also the answer's.

    Args:
        said: what the model said, as it stands: the scripts take no tags or thoughts out.
        answer: the right option.
        choices: all options.
    """
    right, heard = tokens(answer), tokens(said)
    if not heard:
        return False
    wrong: set[str] = set()
    for choice in choices:
        if (words := tokens(choice)) != right:
            wrong |= words - right
    return right <= heard and not heard & wrong


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
    rest = _CLOSED.split(_OPENED.sub("", _THOUGHT.sub("", text)))[-1]
    tagged = _TAGGED.findall(rest)
    return (tagged[-1] if tagged else rest).strip()


def option_named(said: str, choices: Sequence[str]) -> int | None:
    """Index of the option that an answer names, or None where that cannot be told.

    Of `final_answer`, and of what follows the last lead-in there ("The answer is", "Final answer:"), the
    first of these that fits decides:

    1. all of it is an option's text, or it begins with an option's letter: "(B)", "B.", "B)", "B: rain",
       "option B". A letter that is no option's, that stands before another option's text, or that is itself
       another option's text (an option "D" that is not the fourth) tells nothing.
    2. one option's words stand in it as a phrase, options inside longer ones that also stand there aside,
       and nothing beside them is a "not" or "no".

    Case, surrounding quotes and stops, and repeated spaces do not matter. A repeated choice is named by the
    index of its first.

    Examples:
        >>> option_named("The answer is (B) rain.", ["a dog", "rain"])
        1
        >>> option_named("a dog or rain", ["a dog", "rain"]) is None
        True
    """
    whole = final_answer(said)
    texts = list(dict.fromkeys((_LEAD_IN.split(whole)[-1], whole)))
    for read in (_as_a_whole, options_inside):
        for text in texts:
            if named := read(text, choices):
                return max(named) if len(named) == 1 and max(named) >= 0 else None
    return None


def _as_a_whole(text: str, choices: Sequence[str]) -> set[int]:
    """Options that a text is, or whose letter it begins with; -1 is a letter that leads nowhere."""
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
    # the first of equal options stands for all of them
    return {options.index(options[index]) if index >= 0 else -1 for index in named}


def options_inside(text: str, choices: Sequence[str]) -> set[int]:
    """Indices of the options whose words stand in a text as a phrase, those inside longer ones aside.

    None of them where the text, beside the options, says "not" or "no": it may speak against what it names.
    """
    plain, options = _plain(text), [_plain(choice) for choice in choices]
    there = {o for o in options if o and re.search(rf"(?<!\w){re.escape(o)}(?!\w)", plain)}
    rest = plain
    for option in sorted(there, key=len, reverse=True):
        rest = rest.replace(option, " ")
    if _NEGATION.search(rest):
        return set()
    return {options.index(o) for o in there if not any(o != other and o in other for other in there)}


def _plain(text: str) -> str:
    """Lower case, single spaces, none of the usual marks at either end."""
    return " ".join(text.lower().split()).strip(_AROUND)
