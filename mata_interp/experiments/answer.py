"""What a study found, in plain English, whichever way it falls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..ranges import named_layers
from .dose_matching import TOLERANCE
from .effects import BASELINE, MATA, MATA_ON_TEXT, MATA_OTHER, OTHER, RANDOM_LAYERS, SILENT

__all__ = ["answer_text", "verdict"]

LEVEL = 0.05


def verdict(effect: Mapping[str, Any]) -> str:
    """``"helps"``, ``"hurts"`` or ``"undetected"``: an effect counts only if interval and test agree."""
    low, high = effect["low"], effect["high"]
    if effect["p"] < LEVEL and low is not None and low > 0:
        return "helps"
    if effect["p"] < LEVEL and high is not None and high < 0:
        return "hurts"
    return "undetected"


def answer_text(
    effects: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Any],
    sham: Mapping[str, Any],
    selection_clips: int,
    given: Mapping[str, Any] | None = None,
) -> str:
    """The answer, from the effects table and the configuration that was chosen.

    Two paragraphs, a blank line between them: the comparison that was fixed beforehand, and all that stands
    beside it.

    Args:
        effects: rows of `effects_table`.
        chosen: ``{"layers", "alpha", "rule"}``.
        sham: ``{"kl", "target_kl"}``, the strength of the sham on text and of MATA where they were matched.
        selection_clips: number of the other clips that it was chosen on.
        given: of layers that were not chosen there: what `given.origin` says.
    """
    primary = next(row for row in effects if row["family"] == "primary")
    on = "items whose caption contradicts the sound" if primary["subset"] else "items"
    finding = (
        f"On {primary['n']} {on} ({primary['n_clusters']} clips), MATA (rule {chosen['rule']}, alpha "
        f"{_chosen(chosen, selection_clips, given)}) "
        f"{_moved(primary)}: {primary['fixed']} wrong answers put right, {primary['broken']} right ones "
        f"broken ({_p(primary['p'])}; {_p(primary['p_holm'])} after Holm's correction over all that "
        f"is asked of MATA). {_judged(primary)}{_explored(given)}"
    )
    beside = " ".join([*_beside_the_shams(effects, primary, sham), *_elsewhere(effects, primary)])
    return "\n\n".join(paragraph for paragraph in (finding, beside) if paragraph)


def _chosen(chosen: Mapping[str, Any], clips: int, given: Mapping[str, Any] | None) -> str:
    """Strength and layers, and which of them were chosen here."""
    alpha, layers = f"{chosen['alpha']:g}", named_layers(chosen["layers"])
    here = f"chosen on {clips} other clips"
    return f"{alpha}, {layers}, {here}" if given is None else f"{alpha}, {here}, in {layers}, as given"


def _explored(given: Mapping[str, Any] | None) -> str:
    if not given or not given["test_clips"]:
        return ""
    return f" The layers were chosen on {given['test_clips']} of the tested clips: this is exploratory."


def _judged(primary: Mapping[str, Any]) -> str:
    judgement = verdict(primary)
    if judgement in ("helps", "hurts"):
        alone = ", by the comparison fixed beforehand; corrected, it would not count"
        return f"On these items MATA {judgement}{alone if primary['p_holm'] >= LEVEL else ''}."
    if primary["low"] is None or primary["high"] is None:
        return f"No difference is detectable, and there is no interval: {primary['note']}".strip()
    return (
        "No difference is detectable: the data are compatible with anything from "
        f"{_points(primary['low'])} to {_points(primary['high'])} points."
    )


def _beside_the_shams(
    effects: Sequence[Mapping[str, Any]], primary: Mapping[str, Any], sham: Mapping[str, Any]
) -> Iterable[str]:
    """Each sham's own effect on the same items, and whether MATA does better than it."""
    shams = [row for row in effects if _same_question(row, primary) and row["family"] == "sham"]
    changes = {row["after_condition"]: row for row in shams if row["before_condition"] == BASELINE}
    rivals = {row["before_condition"]: row for row in shams if row["after_condition"] == MATA}
    if text := changes.get(MATA_ON_TEXT):
        yield (
            f"The same rule on text, {_strength(sham)}, changes accuracy by {_change(text)}; "
            f"MATA {_compared(rivals[MATA_ON_TEXT])}."
        )
    draws = [name for name in changes if name.startswith(RANDOM_LAYERS)]
    if draws:
        moved = sorted(changes[name]["difference"] for name in draws)
        beaten = sum(verdict(rivals[name]) == "helps" for name in draws)
        yield (
            f"In {len(draws)} draws of random layers MATA changes it by {_points(moved[0])} to "
            f"{_points(moved[-1])} points; the chosen layers do detectably better than {beaten} of these."
        )
    if other := next((row for row in shams if row["after_condition"] == MATA_OTHER), None):
        yield f"With another clip's audio MATA changes it by {_change(other)}, against that audio's baseline."


def _elsewhere(effects: Sequence[Mapping[str, Any]], primary: Mapping[str, Any]) -> Iterable[str]:
    """MATA on the other captions, and what the audio itself is worth."""
    others = [
        f"{row['subset']['caption_condition']} items {_change(row)}"
        for row in effects
        if row["family"] == "mata" and row["kind"] == "binary"
    ]
    if others:
        yield f"Elsewhere MATA changes accuracy as follows: {'; '.join(others)}."
    for row in effects:
        if (
            _same_question(row, primary)
            and row["after_condition"] in (SILENT, OTHER)
            and row["family"] == "descriptive"
        ):
            without = "Without any audio" if row["after_condition"] == SILENT else "With another clip's audio"
            yield f"{without} accuracy is {_percent(row['after'])} instead of {_percent(row['before'])}."


def _same_question(row: Mapping[str, Any], primary: Mapping[str, Any]) -> bool:
    return row["subset"] == primary["subset"] and row["column"] == primary["column"]


def _strength(sham: Mapping[str, Any]) -> str:
    """Matched or not, honestly: text has fewer keys than audio, and cannot always be disturbed as much."""
    if abs(sham["kl"] / sham["target_kl"] - 1) <= TOLERANCE:
        return "at equal strength"
    return f"at the nearest strength there is (mean KL {sham['kl']:.2g} against {sham['target_kl']:.2g} nats)"


def _compared(effect: Mapping[str, Any]) -> str:
    words = {"helps": "does detectably better than that", "hurts": "does detectably worse than that"}
    words["undetected"] = "cannot be told apart from that"
    return f"{words[verdict(effect)]} ({_change(effect)})"


def _moved(effect: Mapping[str, Any]) -> str:
    change = f"({_change(effect)}" + (", 95 % interval)" if effect["low"] is not None else ")")
    return f"takes accuracy from {_percent(effect['before'])} to {_percent(effect['after'])} {change}"


def _change(effect: Mapping[str, Any]) -> str:
    """``+6.1 points [+2.0, +10.1]``."""
    low, high = effect["low"], effect["high"]
    interval = "" if low is None or high is None else f" [{_points(low)}, {_points(high)}]"
    return f"{_points(effect['difference'])} points{interval}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "\N{MINUS SIGN}")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
