"""The finding of a fusion profile in plain English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mata_interp.ranges import named_layers

from .boundaries import Boundary
from .criteria import CRITERIA
from .recommend import DECIDING, IN_ORDER
from .share_window import MIN_EFFECT, SPREAD, WORTH, ShareWindow
from .windows import overlap

__all__ = ["Findings", "summarize"]

Total = tuple[float, float, float]
"""A mean and its 95 % interval, whose ends are NaN if there is none."""

AGREE = 0.5  # IoU from which two windows count as agreeing


@dataclass(frozen=True, eq=False)
class Findings:
    """What a summary is made of.

    Attributes:
        choice: the recommended window and what it rests on.
        deciding: names of the criteria that decided it.
        window: its layers.
        windows: window of each criterion.
        edges: boundaries of the recommended window.
        totals: of each criterion, the sum of its profile with its interval. For causal criteria in order
            this is the whole effect of the audio on the margin, nats.
        effect: what it costs to hide the audio from all text in all layers, nats, with its interval.
        replaceable: layers of the window that suffice and are not needed.
    """

    choice: ShareWindow
    deciding: Sequence[str]
    window: Sequence[int]
    windows: Mapping[str, Sequence[int]]
    edges: Sequence[Boundary]
    totals: Mapping[str, Total]
    effect: Total | None = None
    replaceable: Sequence[int] = ()


def summarize(findings: Findings) -> str:
    """One to five sentences."""
    verdict = findings.choice.verdict
    sentences = [_verdict_sentence(findings), _replaceable_sentence(findings)]
    if verdict in ("found", "too few clips", "spread"):
        sentences += [_disagreement_sentence(findings), _last_token_sentence(findings)]
    if verdict != "nothing measured":
        sentences.append(_attention_sentence(findings))
    return " ".join(filter(None, sentences))


def _verdict_sentence(findings: Findings) -> str:
    choice = findings.choice
    effects = _effects(findings)
    if choice.verdict == "nothing measured":
        return "No recommended window: none of the criteria that decide it could be measured."
    if choice.verdict == "no effect":
        return (
            f"No detectable effect of audio on the answers ({effects}; an effect counts from {MIN_EFFECT:g} "
            "nats on, with an interval above 0), so there is no window."
        )
    if choice.verdict == "spread":
        return (
            f"Text reads the audio in more than {SPREAD:.0%} of the layers ({effects}). Fusion is not "
            "concentrated, so there is no window."
        )
    if choice.verdict == "too few clips":
        needed = "" if choice.clips_needed is None else f": about {choice.clips_needed} are needed"
        return (
            f"The audio may affect the answers ({effects}), but {_clips(choice.clips)} cannot show in which "
            f"layers{needed}. No window is recommended."
        )
    if not {*findings.deciding} & {*DECIDING, *IN_ORDER}:
        return (
            f"By saliency, which is not causal, text reads the audio in {named_layers(findings.window)}"
            f"{_stability(choice)}."
        )
    verb = "carries" if len(findings.window) == 1 else "carry"
    where = f"{named_layers(findings.window)}{_boundary_intervals(findings.edges)}"
    return (
        f"Text reads the audio in {where}, which "
        f"{verb} {choice.share_inside:.0%} of its effect on the answer ({effects}){_stability(choice)}."
    )


def _effects(findings: Findings) -> str:
    """The whole effect of the audio, as the deciding criteria see it."""
    if findings.effect is not None and tuple(findings.deciding) == DECIDING:
        return f"hiding it from all text lowers the margin by {_nats(findings.effect)}"
    return " and ".join(
        f"{_MEASURES[name]} lowers the margin by {_nats(findings.totals[name])}"
        for name in findings.deciding
        if name in _MEASURES
    )


def _clips(count: int) -> str:
    return "one clip" if count == 1 else f"{count} clips"


def _stability(choice: ShareWindow) -> str:
    """How often as many other clips would lead to a similar window."""
    return (
        f"; stability {choice.stability:.0%}, the predicted chance that {_clips(choice.clips)} drawn anew "
        "give a similar window"
    )


def _replaceable_sentence(findings: Findings) -> str:
    """Layers of the window that give the audio back alone, and of which none is needed."""
    if not findings.replaceable:
        return ""
    return (
        f"Hiding the audio in {named_layers(findings.replaceable)} alone costs less than {WORTH:.0%} of what "
        "it gives back there alone: other layers make up for it."
    )


_MEASURES = {
    "knockout_text": "hiding it from all text",
    "restoration_audio": "replacing it with another clip",
}


def _nats(total: Total) -> str:
    mean, low, high = total
    interval = f" ({low:.2f} to {high:.2f})" if low == low else ""
    return f"{mean:.2f} nats{interval}"


def _boundary_intervals(edges: Sequence[Boundary]) -> str:
    """The 95 % intervals of the boundaries."""
    intervals = []
    for edge in edges:
        first, last = edge["first_interval"], edge["last_interval"]
        if isinstance(first, list) and isinstance(last, list):
            intervals.append(f"first {_span(first)}, last {_span(last)}")
    return f" (95 % intervals: {'; '.join(intervals)})" if intervals else ""


def _span(interval: list[int]) -> str:
    low, high = interval
    return f"{low}" if low == high else f"{low} to {high}"


def _disagreement_sentence(findings: Findings) -> str:
    """Whether replacing the audio with another clip's gives other layers than hiding it."""
    in_order = tuple(findings.deciding) == IN_ORDER
    hidden = findings.windows[IN_ORDER[0]] if in_order else findings.window
    replaced = findings.windows.get(IN_ORDER[1], ())
    if not hidden or not replaced or overlap(hidden, replaced) >= AGREE:
        return ""
    return (
        f"The causal criteria disagree: hiding the audio gives {named_layers(hidden)}, replacing it with "
        f"another clip's gives {named_layers(replaced)}."
    )


def _last_token_sentence(findings: Findings) -> str:
    """Where the last token, which MATA edits, reads the audio itself."""
    if "knockout_last" not in findings.windows:
        return ""
    layers = findings.windows["knockout_last"]
    if layers:
        return f"The last token itself reads the audio in {named_layers(layers)}."
    if findings.totals["knockout_last"][0] < MIN_EFFECT:
        return (
            "Attention of the last token itself to the audio has no measurable effect: the answer depends on "
            "the audio through other text tokens, which edits with queries='text' reach and edits with "
            "queries='last' do not."
        )
    return "In the last token's own attention to the audio, no layer stands out from the noise."


def _attention_sentence(findings: Findings) -> str:
    """Which attention and gradient criteria disagree with the window."""
    compared = {
        name: layers
        for name, layers in findings.windows.items()
        if CRITERIA[name].evidence in ("attention", "gradient") and layers and not name.startswith("lens")
    }
    differing = [name for name, layers in compared.items() if overlap(layers, findings.window) < AGREE]
    if not differing:
        return ""
    listed = "; ".join(f"{CRITERIA[name].label}: {named_layers(compared[name])}" for name in differing)
    return (
        f"{len(differing)} of {len(compared)} attention and gradient criteria give other layers ({listed}); "
        "they are not causal."
    )
