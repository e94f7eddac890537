"""Letters that stand for options: "(B) rain", "B: it rains", "I choose B", "选B"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .option_phrases import UNCLEAR, Phrases, Span, strip_around

__all__ = ["corrected", "letter_spans", "read_letter"]

_NAMED = re.compile(
    r"(?:the\s+)?(?:(?:option|choice|letter|answer)\s*[:#]?\s+|(?:选项|选择|应选|故选|我选|选)\s*:?\s*)"
    r"(?=[(\[\"']*[A-Za-z](?:[^A-Za-z]|$))",
    re.IGNORECASE,
)
_FORMS = (
    re.compile(r"[(\[{\"']\s*([A-Za-z])\s*[)\]}\"']\s*[.:,;-]*\s*(.*)"),  # (B), [B] rain, "B"
    re.compile(r"([A-Za-z])\s*[.):]+(?:\s+(.*))?"),  # B. rain, B) rain, B: rain
    re.compile(r"([A-Z])\s*,(?:\s+(.*))?"),  # B, rain
    re.compile(r"([A-Z])\s*(?:\s-+>?|->|=>?)\s+(.*)"),  # B - rain, B -> rain
    re.compile(r"([A-Z])\s*(?:选项|项)(.*)"),
    re.compile(r"([A-Z])\s+((?:because|since|as|due|given|for)\s.*)"),  # B because it rains
    re.compile(r"([A-Z])\s+((?:is|was)\s+(?:the\s+)?(?:correct|right|best|most|answer|one)\b.*)"),
    re.compile(r"([A-Za-z])()"),  # B
)
_SEVERAL = re.compile(
    r"[(\[]?([A-Z])[)\]]?(?:\s*[,\/&+或和与、]\s*|\s+(?:or|and|nor)\s+)(?:and\s+|or\s+)?(?:option\s+)?[(\[]?([A-Z])(?![\w'#♯♭])"
)
_OPENED = re.compile(r"\W*[(\[{]")
_GLUED = re.compile(r"([A-Za-z])[.):]\s*(\S.*)")  # B.rain: only before an option's own text
_SPACED = re.compile(r"([B-HJ-Z])\s+(\S.*)")  # B rain: the same

_REASON = re.compile(
    r"(?:[.!?。]\s|[,;:(]?\s*(?:-\s+)?\b(?:because|since|as|due\s+to|given|reason|explanation|which|so)\b|因为)",
    re.IGNORECASE,
)
_WRONG = re.compile(
    r"(?:(?:is|was|are|isn't|wasn't|can|could|cannot|can't|would|does|doesn't|has|should|seems|looks)\b.*?)?"
    r"(?:\b(?:wrong|incorrect|false|not|no|never|out|unlikely|impossible|ruled)\b|n't\b|[✗✘❌✖])",
    re.IGNORECASE,
)
_ALSO = re.compile(r"(?:and|or|&|\/|\+|,|和|或|与)*\s*[(\[]?([A-Z])[)\].]?\s*(?:$|[,;/&和或]|(?:and|or)\b)")
_LISTED = re.compile(r"(?:^|\s)[(\[]?([A-Z])[.):\]]+\s")
_CORRECTED = re.compile(
    r"(?:^|[.!?\n,]\s*|-\s+)(?:no[,.]?\s+)?(?:wait|actually|on\s+second\s+thought|correction|scratch\s+that"
    r"|let\s+me\s+(?:re|correct)|sorry|i\s+mean)\b",
    re.IGNORECASE,
)


def corrected(text: str) -> bool:
    """Whether a text withdraws what precedes it ("Wait, ...")."""
    return bool(_CORRECTED.search(text))


def read_letter(text: str, phrases: Phrases) -> set[int]:
    """The option whose letter a normalized text begins with; several indices if it is not certain.

    An explanation after the letter decides nothing. The letter is uncertain if it belongs to no option,
    stands beside another option's text or letter, begins a list of options, or is withdrawn.
    """
    first, *later = [line.strip() for line in strip_around(text).splitlines() if line.strip()] or [""]
    if (several := _SEVERAL.match(first)) and several[1] != several[2]:
        return {_option(several[1], phrases), _option(several[2], phrases), UNCLEAR}
    match = _match(first, phrases)
    if match is None:
        return set()
    letter, beside, enclosed = match
    option = _option(letter, phrases)
    agrees = phrases.equal(beside) == option != UNCLEAR
    if not (agrees or enclosed or _OPENED.match(text)) and _is_note(letter, phrases):
        return {option, UNCLEAR}
    if _lists_options(letter, "" if agrees else beside, later, phrases):
        return {option, UNCLEAR}
    if corrected("\n".join(["", "" if agrees else beside, *later])):
        return {option, UNCLEAR}
    below = phrases.equal(later[0]) if later and not beside else None
    return {option} | _beside(beside, option, phrases) | (set() if below is None else {below})


def _match(line: str, phrases: Phrases) -> tuple[str, str, bool] | None:
    """The letter, the text after it, and whether the letter stands in brackets or after "option"."""
    named = _NAMED.match(line)
    line = line[named.end() :] if named else line
    for form in _FORMS:
        if match := form.fullmatch(line):
            return match[1].upper(), (match[2] or "").strip(), bool(named) or form is _FORMS[0]
    for form in (_GLUED, _SPACED):
        if (match := form.fullmatch(line)) and phrases.equal(match[2]) is not None:
            return match[1].upper(), match[2].strip(), True
    return None


def _option(letter: str, phrases: Phrases) -> int:
    """Index of the option with this letter, the first of equal ones; UNCLEAR if there is none."""
    return phrases.first[phrases.labels.index(letter)] if letter in phrases.labels else UNCLEAR


def _is_note(letter: str, phrases: Phrases) -> bool:
    """Whether the letter by itself may be a note or a key of another option, such as "B minor"."""
    note = re.compile(rf"{letter}(?:[#♯♭]|b(?!\w)|\s+(?:major|minor|maj|min|flat|sharp|dur|moll)\b)")
    index_of_letter = phrases.labels.index(letter) if letter in phrases.labels else None
    return any(note.match(text) for index, text in enumerate(phrases.texts) if index != index_of_letter)


def _lists_options(letter: str, beside: str, later: Sequence[str], phrases: Phrases) -> bool:
    """Whether the letter begins a list of options, or another letter follows it."""
    follower = _match(later[0], phrases) if later else None
    other_letters = {other for other in phrases.labels if other.isalpha()} - {letter}
    letters_after = {match[1] for match in _LISTED.finditer(beside)}
    if (also := _ALSO.match(beside)) and phrases.equal(beside) is None:
        letters_after.add(also[1])
    if follower is not None:
        letters_after.add(follower[0])
    return bool(letters_after & other_letters)


def _before_reason(text: str) -> str:
    reason = _REASON.search(text)
    return text[: reason.start()] if reason else text


def _beside(text: str, option: int, phrases: Phrases) -> set[int]:
    """What the text beside a letter adds: other options that it names, or that it says is wrong."""
    same = phrases.equal(text)
    if same is not None:
        return {same}
    claim = _before_reason(text)
    same = phrases.equal(claim)
    if same is not None:
        return {same}
    if _WRONG.match(claim):
        return {UNCLEAR}
    affirmed = phrases.affirmed(claim)
    named = {span.option for span in phrases.spans(claim)}
    return {UNCLEAR} if option in named - affirmed else affirmed


# ------------------------------------------------------------------------------------ letters inside a text
_LETTER = r"([A-Z])(?=\s*(?:$|[.,;:!?)\]\"'\n]|(?:but|because|since|as|is|and|or|nor)\b))"
_INSIDE = (
    re.compile(r"[(\[]([A-Z])[)\]]"),
    re.compile(
        r"(?i:\b(?:option|choice|answer|letter)\s+)[\"'(]?"
        r"([B-HJ-Z](?![\w'#♯♭-])|[AI](?=\s*(?:$|[.,;:!?)\]\"']|is\b)))"
    ),
    re.compile(
        r"(?i:\b(?:not|nor|than|instead\s+of|(?:it|that|this|answer|option|choice|one)(?:'s|\s+is|\s+was"
        r"|\s+must\s+be|\s+should\s+be)|so|therefore|thus|hence|choose|chose|choosing|pick|picked|select"
        r"|selected|say|go\s+with|went\s+with)[,:]?\s+)[\"']?" + _LETTER
    ),
    re.compile(r"(?<![\w'])([A-Z])\s+(?:is|was)\s+(?:the\s+)?(?:correct|right|best|most|answer)\b"),
    re.compile(r"(?:选项?|选择|不是|是)\s*[\"(]?([A-Z])(?![A-Za-z])"),
    re.compile(r"(?<![A-Za-z])([A-Z])\s*(?:选项|项)"),
)

_ONE = re.compile(r"([A-Z])[)\]\"']?")
_NEXT = re.compile(
    r"(?:\s*[,/&或和与、]\s*(?:(?:or|and|nor)\s+)?|\s+(?:or|and|nor)\s+)(?:option\s+)?[(\[\"']?"
    r"([B-HJ-Z](?![\w'#♯♭-])|A(?=\s*(?:$|[.,;:!?)\]\"']|(?:or|and|nor)\b)))[)\]\"']?"
)
_OR = re.compile(r"[\s,]*(?:or|nor|/|或)", re.IGNORECASE)
_NOTE = re.compile(r"(?<![\w'#♯♭-])([B-HJ-Z])(?![\w'#♯♭-])")


def letter_spans(text: str, phrases: Phrases) -> list[Span]:
    """Places in a normalized text that name options by letters: "(B)", "option B", "I choose B".

    Letters are not read where letters may be notes or keys that options name.
    """
    spans = place_spans(text, phrases)
    for match in _NOTE.finditer(text):
        option = phrases.equal(match[1])
        if option is not None and match[1] not in phrases.labels:
            spans.append(Span(match.start(1), match.end(1), option))
    if any(_is_note(letter, phrases) for letter in map(chr, range(ord("A"), ord("H")))):
        return spans
    for form in _INSIDE:
        for match in form.finditer(text):
            spans += _letters_at(match.start(1), text, phrases)
    return spans


def _letters_at(place: int, text: str, phrases: Phrases) -> list[Span]:
    """The letter at a place and those coordinated with it ("A or B"), as far as they stand for options."""
    spans = []
    letter: re.Match[str] | None = _ONE.match(text, place)
    while letter and (letter[1] in phrases.labels or phrases.equal(letter[1]) is not None):
        spans.append(Span(letter.start(1), letter.end(1), _inside_option(letter[1], phrases)))
        end, letter = letter.end(), _NEXT.match(text, letter.end())
        if letter is None and _OR.match(text, end):  # "B or maybe C"
            spans.append(Span(end, end + 1, UNCLEAR))
    return spans


def _inside_option(letter: str, phrases: Phrases) -> int:
    """The option that a letter names; UNCLEAR where it is also the text of another option."""
    by_letter, by_text = _option(letter, phrases), phrases.equal(letter)
    if by_letter == UNCLEAR and by_text is not None:
        return by_text
    return by_letter if by_text in (None, by_letter) else UNCLEAR


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_ORDINAL = re.compile(
    rf"\b(?:the\s+)?({'|'.join(_ORDINALS)}|last)\s+(?:option|choice|answer)\b", re.IGNORECASE
)
_NUMBER = re.compile(r"\b(?:option|choice)\s+#?(\d)(?![\w.,:/-])", re.IGNORECASE)


def place_spans(text: str, phrases: Phrases) -> list[Span]:
    """Places that name options by position: "the second option"; "option 2", if no option has digits."""
    count = len(phrases.texts)
    spans = []
    for match in _ORDINAL.finditer(text):
        word = match[1].lower()
        place = count - 1 if word == "last" else _ORDINALS.index(word)
        spans.append(Span(match.start(), match.end(), phrases.first[place] if place < count else UNCLEAR))
    if not any(character.isdigit() for option in phrases.texts for character in option):
        for match in _NUMBER.finditer(text):
            place = int(match[1]) - 1
            exists = 0 <= place < count
            spans.append(Span(match.start(), match.end(), phrases.first[place] if exists else UNCLEAR))
    return spans
