"""Verdicts in words, generated from the numbers and never stronger than them.

A direction (helps, hurts, raises, lowers, better, worse) is only said where the interval excludes zero *and*
the test is below 0.05; of a hypothesis on MATA, Holm's correction has to hold as well. "No difference" is
always "none detectable", with the change that would have been detected. "No harm" is only said where a claim
with a margin fixed beforehand is shown. What was chosen on the clips that it is compared on has no p-value:
then nothing is said to be detectable or not, but why there is no test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from ..ranges import named_layers
from ..statistics.choices import REFUSED
from .effects import ComparisonResult, Effects
from .no_harm import NoHarmClaim
from .number_text import change_text, nats, p_text, points, size_text
from .power import POWER
from .study_result import ShamMatch

__all__ = [
    "control_words",
    "effect_words",
    "is_untested",
    "items_words",
    "no_harm_words",
    "other_findings",
    "power_words",
    "random_layers_words",
    "sham_words",
]

LEVEL = 0.05
ITEMS = {
    "conflict": "items whose caption contradicts the audio",
    "neutral": "items with a neutral caption or none",
    "congruent": "items whose caption agrees with the audio",
}
MEASURES = {"binary": "accuracy", "margin": "the margin"}
UNTESTED = (
    "There is no p-value, because the intervention was chosen on some of the clips that it is compared on: "
    "the change and its interval describe these clips and are too favourable, so nothing is claimed."
)


def items_words(subset: Mapping[str, str]) -> str:
    """``{"caption_condition": "conflict"}`` -> ``items whose caption contradicts the audio``."""
    if not subset:
        return "items"
    return ", ".join(ITEMS.get(value, f"items with {column} {value}") for column, value in subset.items())


def effect_words(row: ComparisonResult) -> str:
    """Whether MATA helps, hurts, or neither detectably, on the items of a hypothesis."""
    if is_untested(row):
        return UNTESTED
    if row.verdict == "undetected":
        if row.p_holm < LEVEL and not isnan(row.effect.low):
            return "The test is significant, but the interval does not exclude zero, so nothing is claimed."
        return power_words(row)
    if row.p_holm >= LEVEL:
        return f"On these items MATA {row.verdict} before Holm's correction, but not after it."
    return f"On these items MATA {row.verdict}."


def is_untested(row: ComparisonResult) -> bool:
    """Whether a comparison has no p-value because what it compares was chosen on the same clips."""
    return row.effect.p_method == REFUSED


def power_words(row: ComparisonResult) -> str:
    """What a comparison without a detectable difference leaves open, and what it could have detected."""
    effect = row.effect
    if is_untested(row):
        return UNTESTED
    if isnan(effect.low) or isnan(effect.high):
        return f"No difference is detectable, and there is no interval. {effect.note}".strip()
    low, high = (points(effect.low), points(effect.high)) if effect.kind == "binary" else (
        nats(effect.low), nats(effect.high))  # fmt: skip
    unit = "points" if effect.kind == "binary" else "nats"
    return (
        f"No difference is detectable: the data are compatible with any change from {low} to {high} {unit}. "
        f"{_detectable(row)}"
    ).strip()


def _detectable(row: ComparisonResult) -> str:
    """The smallest change that would have been detected."""
    effect = row.effect
    if not isnan(row.detectable):
        size = size_text(row.detectable, effect.kind)
        return f"A change of {size} would have been detected with {100 * POWER:.0f} % power."
    if effect.fixed is None or effect.broken is None:
        return ""
    if effect.fixed + effect.broken == 0:
        return "No answer changed from right to wrong or back."
    return (
        f"With {effect.fixed + effect.broken} changed answers of {effect.n}, no change would have been "
        f"detected with {100 * POWER:.0f} % power."
    )


def sham_words(mata: ComparisonResult, sham: ComparisonResult, against: ComparisonResult) -> str:
    """What the comparison with the sham on text says.

    Args:
        mata, sham: MATA and the sham, each against the baseline.
        against: MATA against the sham, on the same items: the difference of the two changes.
    """
    if is_untested(against):
        return UNTESTED
    if against.verdict == "undetected":
        return (
            "It is not shown that MATA differs from an equal change of attention to text. "
            f"{_detectable(against)}"
        ).strip()
    if against.verdict == "hurts":
        return "The same rule does better on text than on audio."
    if is_untested(mata):
        return f"MATA is better than this control. Against no intervention: {UNTESTED}"
    if mata.verdict != "helps":
        harm = ", which lowers accuracy" if sham.verdict == "hurts" else ""
        return f"MATA is better than this control{harm}, but not detectably better than no intervention."
    if sham.verdict == "helps":
        return "Attention to text helps as well, but less: a part of the gain needs no attention to audio."
    if sham.verdict == "hurts":
        return (
            "The gain depends on which tokens get the attention. A part of this difference is harm done by "
            "the control; MATA's own gain is its change against the baseline."
        )
    return "The gain depends on which tokens get the attention."


def other_findings(effects: Effects) -> Iterator[str]:
    """A sentence for every other Holm-significant hypothesis on MATA, harm first."""
    rows = [row for row in effects.select(family="mata") if row.p_holm < LEVEL]
    for row in sorted(rows, key=lambda row: row.verdict != "hurts"):
        measure, items = MEASURES[row.comparison.kind], items_words(row.comparison.subset)
        numbers = f"{change_text(row.effect)} (Holm-adjusted {p_text(row.p_holm)})"
        if row.verdict == "undetected":
            yield (
                f"On {items}, the test of {measure} is significant, but the interval does not exclude "
                f"zero: {numbers}."
            )
        else:
            opening = "Harm: MATA lowers" if row.verdict == "hurts" else "MATA also raises"
            yield f"{opening} {measure} on {items} by {numbers}."


def control_words(row: ComparisonResult) -> str:
    """What follows from a control whose interval excludes zero; empty where it does not.

    Args:
        row: A control against its baseline: a sham with the item's audio, or MATA with another audio.
    """
    if not _excludes_zero(row):
        return ""
    if is_untested(row):
        return UNTESTED
    if row.verdict == "undetected":
        return (
            f"Its interval excludes zero, but its test is not significant ({p_text(row.effect.p)}): nothing "
            "follows."
        )
    meaning = {
        ("sham_text", "helps"): "So a change of attention that adds none to audio helps as well.",
        ("sham_text", "hurts"): "So an equal change of attention towards text is harmful.",
        ("mata_other_audio", "helps"): "So a part of MATA's effect does not need the matching audio.",
        ("mata_other_audio", "hurts"): (
            "So MATA makes the answers follow the audio that is given, even where it is the wrong one."
        ),
        ("sham_random_heads", "helps"): "So more attention to audio in half of the heads helps as well.",
        ("sham_random_heads", "hurts"): "So more attention to audio in half of the heads is harmful.",
        ("sham_random_signs", "helps"): (
            "So more attention to audio in some heads and less of it in others helps as well."
        ),
        ("sham_random_signs", "hurts"): (
            "So more attention to audio in some heads and less of it in others is harmful."
        ),
        ("mata_silence", "helps"): "So a part of MATA's effect does not need any sound.",
        ("mata_silence", "hurts"): "So more attention to silence is harmful.",
        (
            "mata_reversed_audio",
            "helps",
        ): "So a part of MATA's effect does not need the audio's order in time.",
        ("mata_reversed_audio", "hurts"): "So more attention to reversed audio is harmful.",
    }
    return meaning.get((row.comparison.after_role, row.verdict), "")


def random_layers_words(draws: Sequence[ComparisonResult], matches: Sequence[ShamMatch]) -> Iterator[str]:
    """What follows from MATA in random layers, where an interval excludes zero.

    Args:
        draws: Each draw against the baseline.
        matches: The layers and the dose of each draw, in the same order.
    """
    matched = list(zip(draws, matches, strict=True)) if len(draws) == len(matches) else []
    for direction, verb in (("helps", "raise"), ("hurts", "lower")):
        shown = [(row, match) for row, match in matched if row.verdict == direction]
        if not shown:
            continue
        apart = [match for _, match in shown if not match.shared_layers]
        opening = f"{len(shown)} of the draws {verb if len(shown) > 1 else verb + 's'} accuracy detectably"
        if direction == "hurts":
            yield f"{opening}, so MATA's effect depends on the layers."
        elif apart:
            names = "; ".join(named_layers(match.layers) for match in apart)
            yield (
                f"{opening}, and {len(apart)} of them without any layer of the chosen window ({names}): "
                "more attention to audio in other layers helps as well."
            )
        else:
            yield (
                f"{opening}, but all of them share layers with the chosen window: whether other layers alone "
                "help is not tested."
            )
    for row, match in matched:
        if is_untested(row):
            yield f"In {named_layers(match.layers)}: {UNTESTED}"
        elif _excludes_zero(row) and row.verdict == "undetected":
            yield (
                f"The interval of the draw {named_layers(match.layers)} excludes zero, but its test is not "
                f"significant ({p_text(row.effect.p)}): nothing follows."
            )


def _excludes_zero(row: ComparisonResult) -> bool:
    return row.effect.low > 0 or row.effect.high < 0


def no_harm_words(claim: NoHarmClaim) -> str:
    """Whether a claim of no harm is shown, on which items and with which numbers."""
    test, items = claim.test, items_words(claim.comparison.subset)
    measure, margin = MEASURES[test.kind], size_text(test.margin, test.kind).replace(".0 ", " ")
    numbers = f"{change_text(test)}, 90 % interval" if not isnan(test.low) else "no interval"
    if test.method == REFUSED:
        return f"On {items}, no claim about harm to {measure} is tested ({change_text(test)}). {UNTESTED}"
    p = f"Holm-adjusted {p_text(claim.p_holm)}"
    if claim.verdict == "no harm":
        equal = claim.claim == "equivalence"
        within = (
            f"stays within {margin} of that without MATA" if equal else f"is not lower by {margin} or more"
        )
        return f"No harm to {measure} on {items}: it {within} ({numbers}; {p})."
    below = "; the interval lies below zero" if test.high < 0 else ""
    verb = "changes" if claim.claim == "equivalence" else "falls"
    return f"On {items}, it is not shown that {measure} {verb} by less than {margin} ({numbers}; {p}){below}."
