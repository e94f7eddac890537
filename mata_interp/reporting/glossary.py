"""The terms of a page: a list at its end, and an explanation where a section first uses one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from markupsafe import Markup, escape

__all__ = ["TERMS", "Glossary", "Marker", "used_terms"]

TERMS: Mapping[str, str] = {
    "MATA": "An intervention without training: in chosen decoder layers it raises the attention scores from "
    "the last token to the audio tokens, before the softmax.",
    "rule": "How a score A changes: abs A + \u03b1|A|, mul A(1 + \u03b1), add A + \u03b1. Which rule the "
    "papers use is not settled.",
    "alpha": "The strength \u03b1 of an intervention.",
    "audio share": "Attention on audio over attention on audio and text, the first token (the attention "
    "sink) left out.",
    "attention sink": "The first token, which gets most of the attention whatever it is.",
    "sham": "A control that should not help: the same rule on text tokens, in random layers, or with another "
    "clip's audio.",
    "dose": "How much an intervention changes attention: the KL divergence of the edited attention row from "
    "the unedited one, in nats.",
    "margin": "Log-probability of the right option minus that of the best other option, in nats. It can "
    "change where the answer does not.",
    "nats": "Unit of log-probabilities: +1 nat multiplies the odds of the right option by 2.7.",
    "chance": "Accuracy of answers drawn at random from the options.",
    "corrected": "Wrong without the intervention, right with it.",
    "broken": "Right without the intervention, wrong with it.",
    "churned": "Wrong both times, with another wrong answer. Accuracy does not show it.",
    "95 % interval": "The changes that the data are compatible with: an interval made this way contains the "
    "true change in 95 of 100 studies.",
    "Holm-adjusted": "A p-value corrected for the number of hypotheses on MATA, so that one false finding "
    "among all of them is as unlikely as for a single test.",
    "equivalence": "A claim that a change lies within a tolerance fixed beforehand, on both sides.",
    "non-inferiority": "A claim that a change is not worse than a tolerance fixed beforehand.",
    "selection clips": "The recordings on which layers and strength are chosen. None of them is used in the "
    "test.",
    "text-prior rate": "Accuracy without the audio over accuracy with it; near 1 the audio is not needed.",
    "text-dominance ratio": "Of the answers that follow either the caption's false claim or the audio, the "
    "fraction that follows the caption.",
    "knockout": "An edit that hides keys from queries: their attention becomes 0.",
}


class Glossary:
    """The terms that a page explains."""

    def __init__(self, terms: Mapping[str, str]) -> None:
        self.terms = terms
        self._ids = {term.lower(): f"term-{_slug(term)}" for term in terms}
        names = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w-])({names})(?![\w-])", re.IGNORECASE) if terms else None

    def entries(self) -> Iterator[tuple[str, str, str]]:
        """Id, term and meaning of each, in alphabetical order."""
        for term in sorted(self.terms, key=str.lower):
            yield self._ids[term.lower()], term, self.terms[term]

    def marker(self) -> Marker:
        """A function for one section: it marks each term where the section first uses it."""
        return Marker(self)

    def mark(self, text: str, explained: set[str]) -> Markup:
        """``text``, escaped, with a link to the glossary at each term that is not in ``seen`` yet."""
        if self._pattern is None:
            return escape(text)
        meanings = {term.lower(): meaning for term, meaning in self.terms.items()}
        parts, end = [], 0
        for match in self._pattern.finditer(text.replace("\u202f", " ")):  # both one character
            term = match[0].lower()
            if term in explained:
                continue
            explained.add(term)
            shown = text[match.start() : match.end()]
            parts += [escape(text[end : match.start()]), _link(self._ids[term], shown, meanings[term])]
            end = match.end()
        return Markup("").join([*parts, escape(text[end:])])


class Marker:
    """Marks the terms of one section; call it with each text of the section in turn."""

    def __init__(self, glossary: Glossary) -> None:
        self._glossary, self._seen = glossary, set[str]()

    def __call__(self, text: str) -> Markup:
        return self._glossary.mark(text, self._seen)


def used_terms(text: str) -> dict[str, str]:
    """The terms of `TERMS` that ``text`` uses, with their meanings."""
    lower = text.replace("\u202f", " ").lower()
    return {term: meaning for term, meaning in TERMS.items() if term.lower() in lower}


def _link(id: str, shown: str, meaning: str) -> Markup:
    return Markup('<a class="term" href="#{}" data-tip="{}">{}</a>').format(id, meaning, shown)


def _slug(term: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")
