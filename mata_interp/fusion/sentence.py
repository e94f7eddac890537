"""What a profile says, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mata_interp.ranges import named_layers

from .bounds import Boundary
from .criteria import CRITERIA
from .recommend import CAUSES, SPREAD, Choice
from .windows import EFFECT, overlap

__all__ = ["say"]

Total = tuple[float, float, float]  # mean, and its 95 % interval: NaN where there is none
AGREE = 0.5  # IoU from which two windows are said to agree


def say(
    choice: Choice,
    window: Sequence[int],
    windows: Mapping[str, Sequence[int]],
    edges: Sequence[Boundary],
    totals: Mapping[str, Total],
    carried: float,
) -> str:
    """One to four sentences.

    Args:
        choice: what was chosen, and why.
        window: its layers.
        windows: of each criterion.
        edges: boundaries of the window.
        totals: of each criterion, the sum of its profile with its interval; of a cause, the whole effect of
            the sound on the margin, nats.
        carried: share of that effect that lies in the window.
    """
    told = [_verdict(choice, window, edges, totals, carried)]
    if choice.verdict in ("found", "noise", "spread"):
        told += [part for part in (_causes(windows), _last(windows, totals)) if part]
    told += [part for part in (_elsewhere(choice, window, windows),) if part]
    return " ".join(told)


def _verdict(
    choice: Choice,
    window: Sequence[int],
    edges: Sequence[Boundary],
    totals: Mapping[str, Total],
    carried: float,
) -> str:
    effects = " and ".join(
        f"{_DOES[name]} costs {_nats(totals[name])} of margin" for name in choice.on if name in _DOES
    )
    if choice.verdict == "nothing measured":
        return "None of the criteria that a window is chosen by could be measured."
    if choice.verdict == "no effect":
        return (
            f"On these items the sound has no effect on the answers that can be told from none ({effects}; "
            f"{EFFECT:g} and an interval above 0 are asked for): there is no fusion, and no window."
        )
    if choice.verdict == "spread":
        return (
            f"Text reads the sound in more than {SPREAD:.0%} of the layers ({effects}): fusion is not "
            "concentrated, and there is no window."
        )
    if choice.verdict == "noise":
        return (
            f"The sound seems to have an effect ({effects}), but on these items it does not stand out from "
            "the noise, as a whole or in any layer: there is no window. More clips may show one."
        )
    if not set(choice.on) & set(CAUSES):
        return f"By saliency, which is no cause, text reads the sound in {named_layers(window)}."
    carries = "it carries" if len(window) == 1 else "they carry"
    return (
        f"Text reads the sound in {named_layers(window)}{_how_sure(edges)}: {carries} {carried:.0%} of its "
        f"effect on the answer ({effects})."
    )


_DOES = {
    "knockout_text": "hiding it from all text",
    "restoration_audio": "putting another sound in its place",
}


def _nats(total: Total) -> str:
    mean, low, high = total
    return f"{mean:.2f} nats" + (f" ({low:.2f} to {high:.2f})" if low == low else "")


def _how_sure(edges: Sequence[Boundary]) -> str:
    """The 95 % intervals of the boundaries."""
    told = []
    for edge in edges:
        first, last = edge["first_interval"], edge["last_interval"]
        if isinstance(first, list) and isinstance(last, list):
            told.append(f"first {_span(first)}, last {_span(last)}")
    return f" (95 % intervals: {'; '.join(told)})" if told else ""


def _span(interval: list[int]) -> str:
    low, high = interval
    return f"{low}" if low == high else f"{low} to {high}"


def _causes(windows: Mapping[str, Sequence[int]]) -> str:
    """Whether the causes agree."""
    if not all(name in windows for name in CAUSES):
        return ""
    a, b = (windows[name] for name in CAUSES)
    if overlap(a, b) >= AGREE:
        return ""
    return (
        f"The causes disagree: by knockout it is {named_layers(a)}, by putting another sound in its place "
        f"{named_layers(b)}."
    )


def _last(windows: Mapping[str, Sequence[int]], totals: Mapping[str, Total]) -> str:
    """Reading out at the last token, which is what MATA edits."""
    if "knockout_last" not in windows:
        return ""
    own = windows["knockout_last"]
    if own:
        return f"The last token itself reads it in {named_layers(own)}."
    if totals["knockout_last"][0] < EFFECT:
        return (
            "The last token's own reading of it has no measurable effect: what it says comes by way of other "
            "text, and an edit of its attention alone (queries='last') has little to work on; "
            "queries='text' has."
        )
    return "Of the last token's own reading, no layer stands out from the noise."


def _elsewhere(choice: Choice, window: Sequence[int], windows: Mapping[str, Sequence[int]]) -> str:
    """Criteria that are no causes and say something else."""
    if choice.verdict == "nothing measured":
        return ""
    others = {
        name: layers
        for name, layers in windows.items()
        if CRITERIA[name].evidence in ("attention", "gradient") and layers and not name.startswith("lens")
    }
    off = [name for name, layers in others.items() if overlap(layers, window) < AGREE]
    if not off:
        return ""
    told = "; ".join(f"{CRITERIA[name].label}: {named_layers(others[name])}" for name in off)
    ways = f"{len(off)} of {len(others)} ways ({told})"
    return f"Attention and gradients say otherwise in {ways}, and are no causes."
