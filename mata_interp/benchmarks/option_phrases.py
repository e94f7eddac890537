"""Options inside a text: where each stands, and whether the text affirms or rejects it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from .answer_text import normalized

__all__ = ["UNCLEAR", "Phrases", "Span", "letters_of", "plain", "strip_around"]

UNCLEAR = -1  # among indices of options: what is named is no option, or not certain

# ------------------------------------------------------------------------------------------------ comparison
_AROUND = " \t\r\n\"'`*_~.,;:!?。、·•>|"
_LEFT = re.compile(r"(?:[\s\"'`*_~;:!?。、·•>|]|[.,](?!\d)|[-#]+\s)+")
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=[^\W\d])")
_ARTICLE = re.compile(r"(?:an?|the)\s+(?=\S)(?!(?:major|minor|maj|min|flat|sharp|dur|moll)\b)")


def strip_around(text: str) -> str:
    """The text without quotes, brackets, bullets and punctuation around it. A sign or a leading "." stays."""
    before = None
    while text != before:
        before = text
        text = text.rstrip(_AROUND)
        text = text[left.end() :] if (left := _LEFT.match(text)) else text
        inner = text[1:-1]
        if inner and _PAIRS.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(inner):
            text = inner
    return text


def plain(text: str) -> str:
    """The text for comparison: case folded, hyphens as spaces, single spaces, nothing around it."""
    return " ".join(_HYPHEN.sub(" ", strip_around(normalized(text)).casefold()).split())


def without_article(text: str) -> str:
    """A plain text without the article that it begins with."""
    return _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text


# -------------------------------------------------------------------------------------- other forms
_NUMBERS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
]
_LABEL = re.compile(r"[(\[]?([A-Za-z]|\d{1,2})\s*(?:[.:]\s+|[)\]][.:]?\s*)(?=\S)")  # none in "1.5" or "A:maj"


def labels_of(choices: Sequence[str]) -> tuple[list[str], list[str]]:
    """The label of each option and its text without it; A, B, C, ... where the options bring none along.

    Options bring labels along if each begins with one and these are the first letters or numbers, in any
    order, as in ``["B. cat", "A. dog"]``.
    """
    texts = [normalized(choice).strip() for choice in choices]
    matches = [_LABEL.match(text) for text in texts]
    letters = [chr(ord("A") + n) for n in range(len(texts))]
    labels = [match[1].upper() for match in matches if match]
    if sorted(labels) in (letters, sorted(str(n + 1) for n in range(len(texts)))) and len(texts) > 1:
        return labels, [text[match.end() :] for text, match in zip(texts, matches, strict=True) if match]
    return letters, texts


def letters_of(choices: Sequence[str]) -> list[str]:
    """The letter of each option: its own, or by position where options bring numbers or nothing along."""
    labels, _ = labels_of(choices)
    numbered = any(label.isdigit() for label in labels)
    return [chr(ord("A") + n) for n in range(len(labels))] if numbered else labels


def _other_forms(text: str) -> set[str]:
    """Other ways to write an option: without its article, in the plural, a number in words or digits."""
    core = without_article(text)
    forms = {core}
    if text in _NUMBERS and text != "one":  # "one" is mostly a pronoun
        forms.add(str(_NUMBERS.index(text)))
    if text.isascii() and text.isdigit() and int(text) < len(_NUMBERS) and text not in ("1", "01"):
        forms.add(_NUMBERS[int(text)])
    if core.isascii() and re.fullmatch(r"(?:[a-z]+ )*[a-z]{3,}", core) and text not in _NUMBERS:
        forms |= _other_numbers(core)
    return forms - {text, ""}


def _other_numbers(text: str) -> set[str]:
    """The plural of a phrase in the singular, the singular of one in the plural."""
    if text.endswith("s"):
        return set() if text.endswith("ss") else {text[:-1]}
    return {f"{text}es"} if text.endswith(("sh", "ch", "x", "z")) else {f"{text}s"}


def _number_alone(text: str) -> set[str]:
    """The number of an option that is a number and a unit, such as "5 seconds"; "1" of "one"."""
    if text in ("1", "one"):
        return {"one"} if text == "1" else {"1"}
    number = re.fullmatch(r"([-+]?\d[\d.,:/]*) [a-z]+", text)
    return {number[1]} if number else set()


# ------------------------------------------------------------------------------------------ places in a text
class Span(NamedTuple):
    """A place that names an option.

    Attributes:
        start, end: its characters.
        option: index of the option; UNCLEAR of a number that is compared or one end of a range.
    """

    start: int
    end: int
    option: int


_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_BEFORE_CJK = rf"(?:(?<![{_CJK}])|(?<=[是为選选有即到像了听只个個条位名种有个头])|(?<=叫做))"
_AFTER_CJK = rf"(?=[^{_CJK}]|[的了吧呢啊在和或与及而,]|$)"
_BEFORE_PRONOUN = (
    "the", "this", "that", "last", "first", "each", "every", "another", "which", "other", "only", "no"
)  # fmt: skip
_BEFORE_ONE = "".join(rf"(?<!\b{word}\s)" for word in _BEFORE_PRONOUN)
_MORE = (
    r"\s*(?:%|\d|(?:percent|million|billion|thousand|hundred|dozen|point|and\s+a\s+(?:half|quarter)"
    rf"|{'|'.join(_NUMBERS)})\b)"
)
_BEFORE_NUMBER = re.compile(
    r"(?:minus|negative|plus|point|(?:more|less|fewer|greater|higher|lower|longer|shorter)\s+than|over|under"
    r"|above|below|at\s+least|at\s+most|up\s+to|exceed(?:s|ing)?|beyond|nearly|twenty|thirty|forty|fifty"
    r"|sixty|seventy|eighty|ninety|hundred|thousand|\d\s*(?:-|to|through|~))\s*$",
    re.IGNORECASE,
)
_AFTER_NUMBER = re.compile(r"\s*(?:-|to|or|through|~)\s*\d", re.IGNORECASE)


def _pattern(form: str) -> str:
    """A regular expression for a form of an option that is no part of another word or number."""
    body = r"[\s-]+".join(re.escape(word) for word in form.split())
    first, last = form[0], form[-1]
    before, after = r"(?<!\w)", r"(?!\w)"
    if first.isdigit() or form in _NUMBERS:
        before += r"(?<![-+±~$€£#])(?<!\d[.,:/])(?<![.,:/]\d)(?<!\.)"
    elif re.match(f"[{_CJK}]", first):
        before = _BEFORE_CJK
    elif first.isalnum():
        before += r"(?<!\w['-])"
    if last.isdigit() or form in _NUMBERS:
        after += rf"(?![.,:/-]\d)(?!-\w)(?!{_MORE})"
    if form == "one":
        before, after = before + _BEFORE_ONE, after + r"(?!\s+(?:of|that|who|which|in)\b)"
    elif re.match(f"[{_CJK}]", last):
        after = _AFTER_CJK
    elif last.isalnum():
        after += r"(?!-\w)(?!'(?!s\b)\w)(?![#♯♭])"
    return before + body + after


# ------------------------------------------------------------------------------------------------- rejection
_CUE = re.compile(
    r"\b(?:not|no|nor|neither|never|without|cannot|rather\s+than|instead\s+of|other\s+than|different\s+from"
    r"|apart\s+from|far\s+from|as\s+opposed\s+to|opposite|than|except|unlike|unlikely|hardly|barely|lack(?:s|ing)?"
    r"|absen(?:t|ce)|(?:rul|exclud|eliminat|reject|dismiss|discard)(?:e|es|ed|ing)(?:\s+out)?"
    r"|incorrect|wrong|false|untrue|impossible|inconsistent|doubt|whether|unclear|unsure"
    r"|uncertain|unless|were|(?<!as\s)if|would(?!\s+(?:say|choose|pick|select|go|guess|answer|opt)\b)"
    r"|(?:anything|everything|all|none|nothing|any)\s+but)\b"
    r"|n't\b|不是|并非|排除|除了|不|没有|没|非(?!常)|无|✗|✘|❌|✖",
    re.IGNORECASE,
)
_GLUE = re.compile(
    r"(?:\s*\b(?:an?|the|any|of|by|from|like|just|really|option|choice|(?:sound|sounds|sounding|noise)(?:\s+of)?)\b"
    r"|\s*[是为\"'(])*\s*",
    re.IGNORECASE,
)
_AND = re.compile(
    r"\s*[\"')]?\s*(?:,\s*(?:or|nor|and)?|or|nor|and|/|或|和|、)\s*(?:an?\s|the\s)?\s*[\"'(]?\s*",
    re.IGNORECASE,
)


class Phrases:
    """The texts of options, in the forms in which an answer may write them.

    Args:
        choices: all options.

    Attributes:
        labels: the label of each option, such as ``"B"``.
        texts: each option without its label, normalized.
        first: index of each option -> the index of the first option with an equal text.
    """

    def __init__(self, choices: Sequence[str]) -> None:
        labels, texts = labels_of(choices)
        self.labels = letters_of(choices)
        self.texts = texts
        whole, short = [plain(choice) for choice in choices], [plain(text) for text in texts]
        self.first = [short.index(text) for text in short]
        self._forms: dict[str, int] = {}
        self._only_whole: dict[str, int] = {}  # forms that are an answer by themselves, but not in a sentence
        for index, text in [*enumerate(whole), *enumerate(short)]:
            if text:
                self._forms.setdefault(text, self.first[index])
        self._add_other_forms(short)
        for index, label in enumerate(labels):
            if label.isdigit():
                self._only_whole.setdefault(label, self.first[index])

    @cached_property
    def _patterns(self) -> list[re.Pattern[str] | None]:
        return [self._option_pattern(index) for index in range(len(self.first))]

    def _add_other_forms(self, texts: Sequence[str]) -> None:
        """Add the forms that belong to one option only, and are not part of another option."""
        for forms_of, table in ((_other_forms, self._forms), (_number_alone, self._only_whole)):
            forms = {index: forms_of(text) for index, text in enumerate(texts) if self.first[index] == index}
            counts = Counter(form for forms_of_option in forms.values() for form in forms_of_option)
            for index, forms_of_option in forms.items():
                core = without_article(texts[index])
                rest = [text for text in texts if text != texts[index]]
                for form in forms_of_option:
                    free = counts[form] == 1 and form not in self._forms
                    if free and (form == core or not any(_contains(text, form) for text in rest)):
                        table[form] = index

    def _option_pattern(self, index: int) -> re.Pattern[str] | None:
        forms = [form for form, option in self._forms.items() if option == index and not _is_letter(form)]
        forms.sort(key=len, reverse=True)
        return re.compile("|".join(map(_pattern, forms)), re.IGNORECASE) if forms else None

    def equal(self, text: str) -> int | None:
        """Index of the option whose text this is, but for an article; None if it is no option's."""
        whole = plain(text)
        for form in (whole, without_article(whole)):
            for table in (self._forms, self._only_whole):
                if form in table:
                    return table[form]
        return None

    def spans(self, text: str) -> list[Span]:
        """Places of options in a normalized text, without those inside the place of a longer option."""
        spans = [
            Span(match.start(), match.end(), index)
            for index, pattern in enumerate(self._patterns)
            if pattern is not None
            for match in pattern.finditer(text)
        ]
        spans = [
            span._replace(option=UNCLEAR) if self._is_part_of_a_number(span, text) else span for span in spans
        ]
        return [span for span in spans if not any(_inside(span, other) for other in spans)]

    def _is_part_of_a_number(self, span: Span, text: str) -> bool:
        """Whether a number is negated, compared ("more than 2"), or one end of a range."""
        place = text[span.start : span.end].lower()
        if not re.match(r"[-+]?\d", place) and place not in _NUMBERS:
            return False
        before = _BEFORE_NUMBER.search(text[max(0, span.start - 20) : span.start])
        return bool(before or _AFTER_NUMBER.match(text, span.end))

    def affirmed(self, text: str, letters: Sequence[Span] = ()) -> set[int]:
        """Indices of the options that a normalized text names without rejecting them.

        "not a dog, a cat" and "a cat rather than a dog" affirm a cat. The set is empty if the text has a
        negation or a condition that does not stand right before an option, since it may reject what it names.

        Args:
            text: normalized text.
            letters: places that name options by their letters.
        """
        spans = sorted([*self.spans(text), *letters])
        starts = {span.start: span for span in spans}
        rejected: set[Span] = set()
        for cue in _CUE.finditer(text):
            if any(span.start <= cue.start() < span.end for span in spans):
                continue
            chain = _chain(text, cue.end(), starts)
            if not chain:
                return set()
            rejected.update(chain)
        options = {span.option for span in spans if span not in rejected}
        return set() if options & {span.option for span in rejected} else options


def _contains(text: str, form: str) -> bool:
    return form in text and re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text) is not None


def _is_letter(form: str) -> bool:
    return len(form) == 1 and form.isascii() and form.isalpha()


def _inside(span: Span, other: Span) -> bool:
    longer = other.end - other.start > span.end - span.start
    return longer and span.option != other.option and other.start <= span.start and span.end <= other.end


def _chain(text: str, position: int, starts: dict[int, Span]) -> list[Span]:
    """The options that a negation before ``position`` rejects: "not a dog, a cat or a bird"."""
    chain: list[Span] = []
    link: re.Match[str] | None = _GLUE.match(text, position)
    while link and (span := _next_span(link, starts)):
        chain.append(span)
        link = _AND.match(text, span.end)
    return chain


def _next_span(link: re.Match[str], starts: dict[int, Span]) -> Span | None:
    """The option that begins within or right after a link: its article may be part of the option."""
    places = (place for place in range(link.end(), link.start() - 1, -1) if place in starts)
    return next((starts[place] for place in places), None)
