"""The answer of a study in plain English, whichever way it falls."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from ..ranges import named_layers
from .dose_matching import TOLERANCE
from .effects import Comparison, ComparisonResult, Effects
from .study_result import Configuration, LayerOrigin, ShamMatch

__all__ = ["answer_text"]

LEVEL = 0.05
GENERATED = (
    " The answers were generated and scored by the option that each names; one that names none is wrong. "
    "Layers and strength were chosen by the log-probabilities of the options."
)


def answer_text(
    effects: Effects,
    chosen: Configuration,
    sham: ShamMatch,
    selection_clips: int,
    layer_origin: LayerOrigin | None = None,
    generated: bool = False,
) -> str:
    """The answer, from the effects and the chosen configuration.

    Args:
        effects: All comparisons of the study, the primary one among them.
        chosen: MATA's settings.
        sham: The sham on text, and how well its strength matches MATA's.
        selection_clips: Number of clips that the settings were chosen on.
        layer_origin: Where the layers come from if the study did not choose them.
        generated: Whether the answers were generated, and scored by the option that each names.

    Returns:
        Two paragraphs with a blank line between them: the primary comparison, then everything else.
    """
    primary = next(row for row in effects if row.comparison.family == "primary")
    effect = primary.effect
    items = "items whose caption contradicts the audio" if primary.comparison.subset else "items"
    interval = f"{_change(primary)}{', 95 % interval' if not isnan(effect.low) else ''}"
    finding = (
        f"On {effect.n} {items} ({effect.n_clusters} clips), MATA (rule {chosen.rule}, "
        f"{_settings(chosen, selection_clips, layer_origin)}) changes accuracy from "
        f"{_percent(effect.before)} to {_percent(effect.after)} ({interval}): {effect.fixed} answers "
        f"corrected, {effect.broken} broken ({_p(effect.p)}; Holm-adjusted over all MATA hypotheses: "
        f"{_p(primary.p_holm)}). {_judgement(primary)}{_reuse(layer_origin)}{GENERATED if generated else ''}"
    )
    rest = " ".join(
        [*_shams(effects, primary, sham), *_other_items(effects), *_other_audio(effects, primary)]
    )
    return "\n\n".join(paragraph for paragraph in (finding, rest) if paragraph)


def _settings(chosen: Configuration, clips: int, layer_origin: LayerOrigin | None) -> str:
    """Strength and layers, and which of them the study chose."""
    alpha, layers = f"alpha {chosen.alpha:g}", named_layers(chosen.layers)
    if layer_origin is None:
        return f"{alpha}, {layers}, chosen on {clips} other clips"
    return f"{alpha}, chosen on {clips} other clips, in prespecified {layers}"


def _reuse(layer_origin: LayerOrigin | None) -> str:
    if layer_origin is None or not layer_origin.test_clips:
        return ""
    return f" The layers were chosen on {layer_origin.test_clips} of the test clips, so this is exploratory."


def _judgement(primary: ComparisonResult) -> str:
    if primary.verdict != "undetected":
        uncorrected = " (before Holm's correction, but not after it)" if primary.p_holm >= LEVEL else ""
        return f"On these items MATA {primary.verdict}{uncorrected}."
    effect = primary.effect
    if isnan(effect.low) or isnan(effect.high):
        return f"No difference is detectable, and there is no interval. {effect.note}".strip()
    return (
        "No difference is detectable: the data are compatible with any change from "
        f"{_points(effect.low)} to {_points(effect.high)} points."
    )


def _shams(effects: Effects, primary: ComparisonResult, sham: ShamMatch) -> Iterator[str]:
    """The effect of each sham on the items of the primary comparison, and MATA against it."""
    rows = [
        row for row in effects if _is_comparable(row.comparison, primary) and row.comparison.family == "sham"
    ]
    shams = {row.comparison.after: row for row in rows if row.comparison.before_role == "baseline"}
    against = {row.comparison.before: row for row in rows if row.comparison.after_role == "mata"}
    for name, row in shams.items():
        if row.comparison.after_role == "sham_text":
            yield (
                f"The same rule on text tokens, {_strength(sham)}, changes accuracy by {_change(row)}; "
                f"MATA {_compared(against[name])}."
            )
    draws = [name for name, row in shams.items() if row.comparison.after_role == "sham_random_layers"]
    if draws:
        changes = sorted(shams[name].effect.difference for name in draws)
        better = sum(against[name].verdict == "helps" for name in draws)
        yield (
            f"In {len(draws)} draws of random layers MATA changes accuracy by {_points(changes[0])} to "
            f"{_points(changes[-1])} points; MATA in its own layers is detectably better than {better} of "
            "them."
        )
    for row in rows:
        if row.comparison.after_role == "mata_other_audio":
            yield (
                f"With another clip's audio, MATA changes accuracy by {_change(row)} relative to that audio "
                "without MATA."
            )


def _other_items(effects: Effects) -> Iterator[str]:
    """MATA on the items with other captions."""
    rows = effects.select(family="mata", column="correct")
    if rows:
        changes = [f"{_change(row)} on {row.comparison.subset['caption_condition']} items" for row in rows]
        yield f"On other items MATA changes accuracy by {'; '.join(changes)}."


def _other_audio(effects: Effects, primary: ComparisonResult) -> Iterator[str]:
    """Accuracy without the audio, and with another clip's, on the items of the primary comparison."""
    openings = {"no_audio": "Without audio", "other_audio": "With another clip's audio"}
    for row in effects.select(family="descriptive", column="correct"):
        opening = openings.get(row.comparison.after_role)
        if opening and _is_comparable(row.comparison, primary):
            after, before = _percent(row.effect.after), _percent(row.effect.before)
            yield f"{opening}, accuracy is {after} instead of {before}."


def _is_comparable(comparison: Comparison, primary: ComparisonResult) -> bool:
    """Whether a comparison is on the same items and the same score as the primary one."""
    other = primary.comparison
    return comparison.subset == other.subset and comparison.column == other.column


def _strength(sham: ShamMatch) -> str:
    """Text has fewer keys than audio, so its attention cannot always be disturbed as much."""
    if abs(sham.kl / sham.target_kl - 1) <= TOLERANCE:
        return "at equal strength"
    return f"at the closest possible strength (mean KL {sham.kl:.2g} against {sham.target_kl:.2g} nats)"


def _compared(row: ComparisonResult) -> str:
    words = {
        "helps": "is detectably better",
        "hurts": "is detectably worse",
        "undetected": "is not detectably different",
    }
    return f"{words[row.verdict]} ({_change(row)})"


def _change(row: ComparisonResult) -> str:
    """``+6.1 points [+2.0, +10.1]``."""
    low, high = row.effect.low, row.effect.high
    interval = "" if isnan(low) or isnan(high) else f" [{_points(low)}, {_points(high)}]"
    return f"{_points(row.effect.difference)} points{interval}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "\N{MINUS SIGN}")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
