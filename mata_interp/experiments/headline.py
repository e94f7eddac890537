"""The headline of a study: its answer in plain sentences, with the harm if there is one.

A direction (raises, lowers, costs) is said only of a hypothesis whose interval excludes zero and whose test
is significant after Holm's correction. All other numbers are in the rest of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from ..ranges import named_layers
from .effects import ComparisonResult, Effects
from .number_text import change_text, nats, percent_pair, percent_text
from .study_result import Selection
from .verdicts import LEVEL, is_untested, sham_words

__all__ = ["headline_text"]

WHEN = {
    "conflict": "when the caption is wrong",
    "neutral": "when there is no caption",
    "congruent": "when the caption is right",
}
ACTIONS = {
    "abs": "Turning up attention to the audio in {layers}",
    "add": "Turning up attention to the audio in {layers}",
    "mul": "Scaling the attention scores of the audio in {layers}",
}


def headline_text(effects: Effects, selection: Selection) -> str:
    """The answer in plain sentences: the effect, harms, MATA against the sham on text, and other gains.

    Every hypothesis on MATA that is significant after Holm's correction is said, whichever way. Further
    sentences follow only where the reader has to know: layers that were chosen on tested clips, and a choice
    at the edge of the grid.

    Args:
        effects: All comparisons of the study, the primary one among them.
        selection: The chosen configuration, and where it comes from.
    """
    primary = next(row for row in effects if row.comparison.family == "primary")
    action = ACTIONS.get(selection.chosen.rule, "Changing attention to the audio in {layers}")
    sentences = [
        f"{action.format(layers=named_layers(selection.chosen.layers))} {_effect(primary)}{_harms(effects)}.",
        _against_text(effects, primary),
        _gains(effects),
        *_warnings(selection),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _effect(row: ComparisonResult) -> str:
    """What the primary comparison shows: ``raises accuracy from 38 to 65 % when the caption is wrong``."""
    before, after = percent_pair(row.effect.before, row.effect.after)
    chance = "" if isnan(row.chance) else f" (chance {percent_text(row.chance)})"
    when = _when(row.comparison.subset)
    if row.verdict != "undetected" and row.p_holm < LEVEL:
        verb = "raises" if row.verdict == "helps" else "lowers"
        return f"{verb} accuracy {_from_to(row)} {when}{chance}"
    if is_untested(row):
        return (
            f"was chosen on some of these clips, so whether it changes accuracy {when} is not tested: "
            f"{before} % without it, {after} % with it{chance}"
        )
    reason = "no detectable difference to accuracy"
    if row.verdict != "undetected":
        reason = "no difference to accuracy that holds after correction for several tests"
    return f"makes {reason} {when}: {before} % without it, {after} % with it{chance}"


def _from_to(row: ComparisonResult) -> str:
    """``from 38 to 65 %``."""
    before, after = percent_pair(row.effect.before, row.effect.after)
    return f"from {before} to {after} %"


def _harms(effects: Effects) -> str:
    """Every other hypothesis on which MATA hurts, as clauses."""
    clauses = []
    for row in _significant(effects, "hurts"):
        when = _when(row.comparison.subset)
        if row.comparison.kind == "margin":
            clauses.append(f"; {when}, it costs confidence ({nats(row.effect.difference)} nats)")
        else:
            clauses.append(f"; {when}, it lowers accuracy {_from_to(row)}")
    return "".join(clauses)


def _gains(effects: Effects) -> str:
    """Every other hypothesis on which MATA helps, as a sentence; empty if there is none."""
    raised, added = [], []
    for row in _significant(effects, "helps"):
        when = _when(row.comparison.subset)
        if row.comparison.kind == "margin":
            added.append(f"{when} ({nats(row.effect.difference)} nats)")
        else:
            raised.append(f"{when} ({_from_to(row)})")
    clauses = []
    if raised:
        clauses.append(f"raises accuracy {' and '.join(raised)}")
    if added:
        clauses.append(f"adds confidence {' and '.join(added)}")
    return f"MATA also {' and '.join(clauses)}." if clauses else ""


def _significant(effects: Effects, verdict: str) -> list[ComparisonResult]:
    """The hypotheses on MATA beside the primary one with this verdict, significant after correction."""
    rows = effects.select(family="mata")
    return [row for row in rows if row.verdict == verdict and row.p_holm < LEVEL]


def _against_text(effects: Effects, primary: ComparisonResult) -> str:
    """MATA against the sham on text, on the items of the primary comparison; empty if there is no sham."""
    subset, column = primary.comparison.subset, primary.comparison.column
    shams = effects.select(family="sham", after_role="sham_text", column=column, subset=subset)
    differences = effects.select(
        family="sham", before_role="sham_text", after_role="mata", column=column, subset=subset
    )
    if not shams or not differences:
        return ""
    against = differences[0]
    meaning = sham_words(primary, shams[0], against).split(". ")[0].rstrip(".")
    return (
        f"{meaning}: MATA's change minus that of the same rule on the text is {change_text(against.effect)}."
    )


def _warnings(selection: Selection) -> list[str]:
    warnings = []
    if selection.layer_origin is not None and selection.layer_origin.test_clips:
        warnings.append("The layers were chosen on some of the test clips, so this is exploratory.")
    if selection.edges:
        warnings.append(
            f"The choice is {' and '.join(selection.edges)} that was tried, so a larger one may do better."
        )
    return warnings


def _when(subset: Mapping[str, str]) -> str:
    """``{"caption_condition": "conflict"}`` -> ``when the caption is wrong``; ``{}`` -> ``on all items``."""
    if not subset:
        return "on all items"
    return " and ".join(
        WHEN.get(value, f"on items with {column} {value}") for column, value in subset.items()
    )
