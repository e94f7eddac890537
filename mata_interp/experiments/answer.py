"""The answer of a study in plain English, whichever way it falls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan

from ..ranges import named_layers
from .conditions import Role
from .effects import ComparisonResult, Effects
from .headline import headline_text
from .number_text import change_text, p_text, percent, points
from .planned_comparisons import Comparison
from .study_result import LayerOrigin, Selection, ShamMatch
from .verdicts import (
    control_words,
    effect_words,
    items_words,
    no_harm_words,
    other_findings,
    power_words,
    random_layers_words,
    sham_words,
)

__all__ = ["answer_text"]

HEAD_SHAMS: dict[str, tuple[Role, str]] = {
    "half": ("sham_random_heads", "MATA in a random half of the heads"),
    "signs": ("sham_random_signs", "MATA with the opposite sign in a random half of the heads"),
}
OTHER_INPUTS: dict[Role, str] = {
    "mata_other_audio": "another clip's audio",
    "mata_silence": "silence",
    "mata_reversed_audio": "reversed audio",
}
GENERATED = (
    " The answers were generated and scored by the option that each names; one that names none is wrong. "
    "Layers and strength were chosen by the log-probabilities of the options."
)


def answer_text(effects: Effects, selection: Selection, generated: bool = False) -> str:
    """The answer, from the effects and from what was chosen.

    Args:
        effects: All comparisons of the study, the primary one among them.
        selection: The chosen configuration, where it comes from, and the doses of the shams.
        generated: Whether the answers were generated, and scored by the option that each names.

    Returns:
        Four paragraphs with blank lines between them. The headline in plain sentences. Then its numbers: the
        primary comparison, MATA against the sham on text, and every other hypothesis on MATA that is
        significant. Then the items that MATA is not meant to help: claims of no harm, and what could have
        been detected. Then the controls.
    """
    primary = next(row for row in effects if row.comparison.family == "primary")
    numbers = [
        _finding(primary, selection),
        effect_words(primary) + _reuse(selection.layer_origin) + (GENERATED if generated else ""),
        *_against_text(effects, primary, selection.sham),
        *other_findings(effects),
    ]
    other_items = [*map(no_harm_words, effects.no_harm), *_undetected(effects)]
    controls = [*_controls(effects, primary, selection), *_other_audio(effects, primary)]
    parts = (" ".join(part) for part in (numbers, other_items, controls) if part)
    return "\n\n".join([headline_text(effects, selection), *parts])


def _finding(primary: ComparisonResult, selection: Selection) -> str:
    """The primary comparison in numbers."""
    effect = primary.effect
    interval = "" if isnan(effect.low) else ", 95 % interval"
    return (
        f"On {effect.n} {items_words(primary.comparison.subset)} ({effect.n_clusters} clips), MATA (rule "
        f"{selection.chosen.rule}, {_settings(selection)}) changes accuracy from {percent(effect.before)} to "
        f"{percent(effect.after)} ({_chance(primary)}{change_text(effect)}{interval}): {effect.fixed} "
        f"answers corrected, {effect.broken} broken ({_tests(primary)})."
    )


def _tests(row: ComparisonResult) -> str:
    if isnan(row.effect.p):
        return p_text(row.effect.p)
    return f"{p_text(row.effect.p)}; Holm-adjusted over all MATA hypotheses: {p_text(row.p_holm)}"


def _chance(row: ComparisonResult) -> str:
    return "" if isnan(row.chance) else f"chance {percent(row.chance)}; "


def _settings(selection: Selection) -> str:
    """Strength and layers, which of them the study chose, and whether the choice is at the grid's edge."""
    alpha, layers = f"alpha {selection.chosen.alpha:g}", named_layers(selection.chosen.layers)
    edge = f", at the edge of the grid: {' and '.join(selection.edges)}" if selection.edges else ""
    if selection.layer_origin is None:
        return f"{alpha}, {layers}, chosen on {selection.clips} other clips{edge}"
    return f"{alpha}, chosen on {selection.clips} other clips{edge}, in prespecified {layers}"


def _reuse(layer_origin: LayerOrigin | None) -> str:
    if layer_origin is None or not layer_origin.test_clips:
        return ""
    return f" The layers were chosen on {layer_origin.test_clips} of the test clips, so this is exploratory."


def _against_text(effects: Effects, primary: ComparisonResult, match: ShamMatch) -> Iterator[str]:
    """MATA against the sham on text: the difference of their changes, on the same items."""
    shams = _comparable(effects, primary, after_role="sham_text")
    differences = _comparable(effects, primary, before_role="sham_text")
    if shams and differences:
        sham, against = shams[0], differences[0]
        yield (
            f"The same rule on text tokens, {_dose(match)}, changes accuracy by {change_text(sham.effect)}; "
            f"MATA's change minus this one is {change_text(against.effect)} ({p_text(against.effect.p)}). "
            f"{sham_words(primary, sham, against)}"
        )


def _dose(match: ShamMatch) -> str:
    """A sham cannot always disturb attention as much: text has fewer keys, half of the heads fewer rows."""
    kl = f"mean row KL {match.kl:.3g} against {match.target_kl:.3g} nats"
    return f"at {'equal dose' if match.is_matched else 'the closest possible dose'} ({kl})"


def _undetected(effects: Effects) -> Iterator[str]:
    """MATA on the items with other captions, with what could have been detected there."""
    for row in effects.select(family="mata", column="correct"):
        items = items_words(row.comparison.subset)
        power = f" {power_words(row)}" if row.verdict == "undetected" else ""
        yield (
            f"On {items}, MATA changes accuracy from {percent(row.effect.before)} by "
            f"{change_text(row.effect)}{f' ({_chance(row)[:-2]})' if _chance(row) else ''}.{power}"
        )


def _controls(effects: Effects, primary: ComparisonResult, selection: Selection) -> Iterator[str]:
    """Each control on the items of the primary comparison, and what follows from it."""
    text = _comparable(effects, primary, after_role="sham_text")
    if text and (words := control_words(text[0])):
        yield f"The control on text changes accuracy by {change_text(text[0].effect)}. {words}"
    draws = _comparable(effects, primary, after_role="sham_random_layers")
    if draws:
        yield _random_layers(effects, primary, draws, selection)
        yield from random_layers_words(draws, selection.random_layers)
    for match in selection.shams_in_heads:
        yield from _in_heads(effects, primary, match)
    for role, audio in OTHER_INPUTS.items():
        for row in _comparable(effects, primary, after_role=role):
            yield (
                f"With {audio}, MATA changes accuracy by {change_text(row.effect)} relative to that audio "
                f"without MATA. {control_words(row)}"
            ).strip()


def _in_heads(effects: Effects, primary: ComparisonResult, match: ShamMatch) -> Iterator[str]:
    """The sham in random heads or with random signs: its change, and MATA's minus this one."""
    role, name = HEAD_SHAMS[match.heads]
    shams = _comparable(effects, primary, after_role=role)
    for sham, against in zip(shams, _comparable(effects, primary, before_role=role), strict=True):
        yield (
            f"{name}, {_dose(match)}, changes accuracy by {change_text(sham.effect)}; MATA's change minus "
            f"this one is {change_text(against.effect)} ({p_text(against.effect.p)}). {control_words(sham)}"
        ).strip()


def _random_layers(
    effects: Effects,
    primary: ComparisonResult,
    draws: tuple[ComparisonResult, ...],
    selection: Selection,
) -> str:
    """The draws of random layers in numbers, with their doses and their overlap with the chosen window."""
    changes = sorted(row.effect.difference for row in draws)
    against = _comparable(effects, primary, before_role="sham_random_layers")
    better = sum(row.verdict == "helps" for row in against)
    return (
        f"In {len(draws)} draws of random layers, {_doses(selection.random_layers)}, accuracy changes by "
        f"{points(changes[0])} to {points(changes[-1])} points; MATA in its own layers is detectably better "
        f"than {better} of them.{_overlap(selection.random_layers)}"
    )


def _doses(matches: Sequence[ShamMatch]) -> str:
    off = [match for match in matches if not match.is_matched]
    if not off:
        return "at MATA's dose"
    low, high = min(match.kl for match in off), max(match.kl for match in off)
    return (
        f"at MATA's dose or, for {len(off)} of them, the closest possible (mean row KL {low:.3g} to "
        f"{high:.3g} against {off[0].target_kl:.3g} nats)"
    )


def _overlap(matches: Sequence[ShamMatch]) -> str:
    """How many draws share layers with the chosen window: those that had to."""
    shared = [len(match.shared_layers) for match in matches if match.shared_layers]
    if not shared:
        return ""
    few = str(min(shared)) if min(shared) == max(shared) else f"{min(shared)} to {max(shared)}"
    return (
        f" {len(shared)} of the {len(matches)} draws had to share {few} of the {len(matches[0].mata.layers)} "
        "layers of the chosen window."
    )


def _other_audio(effects: Effects, primary: ComparisonResult) -> Iterator[str]:
    """Accuracy without the audio, and with another clip's, on the items of the primary comparison."""
    openings = {"no_audio": "Without audio", "other_audio": "With another clip's audio"}
    for row in effects.select(family="descriptive", column="correct"):
        opening = openings.get(row.comparison.after_role)
        if opening and _is_comparable(row.comparison, primary):
            chance = f" ({_chance(row)[:-2]})" if _chance(row) else ""
            after, before = percent(row.effect.after), percent(row.effect.before)
            yield f"{opening}, accuracy is {after} instead of {before}{chance}."


def _comparable(effects: Effects, primary: ComparisonResult, **roles) -> tuple[ComparisonResult, ...]:
    """The controls with this role on the items and by the score of the primary comparison."""
    rows = effects.select(family="sham", **roles)
    return tuple(row for row in rows if _is_comparable(row.comparison, primary))


def _is_comparable(comparison: Comparison, primary: ComparisonResult) -> bool:
    """Whether a comparison is on the same items and the same score as the primary one."""
    other = primary.comparison
    return comparison.subset == other.subset and comparison.column == other.column
