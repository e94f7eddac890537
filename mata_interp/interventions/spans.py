"""Part of the audio, named by its time: a name of a group of tokens such as ``"audio:2-4s"``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mata_interp.errors import InterventionError

__all__ = ["is_span", "seconds", "span_groups", "with_spans"]

_NAME = re.compile(r"audio:([0-9.e+-]+)-([0-9.e+]+)s")


def seconds(begin: float, end: float) -> str:
    """The audio tokens between two times, for any ``keys`` argument.

    The tokens of a clip are taken to share its length equally; those that overlap the span belong to it.

    Args:
        begin: in seconds from the start of the clip, at least 0.
        end: in seconds, later than ``begin``.

    Raises:
        InterventionError: the times make no sense.

    Example:
        >>> import mata_interp as mi
        >>> mi.seconds(2, 4)
        'audio:2-4s'
        >>> mi.Mata(0.5, layers=[3], keys=mi.seconds(0, 0.5)).keys
        'audio:0-0.5s'
    """
    if not (math.isfinite(begin) and math.isfinite(end) and 0 <= begin < end):
        raise InterventionError(f"{begin} to {end} seconds: give 0 <= begin < end.")
    return f"audio:{begin:g}-{end:g}s"


def with_spans(
    groups: Mapping[str, Tensor], parts: Iterable[Any], lengths: Sequence[float]
) -> dict[str, Tensor]:
    """The groups of a prompt, and one more for each span of time that the parts name in ``keys``.

    Args:
        groups: group -> bool [B, P].
        parts: interventions.
        lengths: seconds of audio, one per row.

    Raises:
        InterventionError: a row has no audio in the span, or its length is not known.
    """
    names = {keys for part in parts if isinstance(keys := getattr(part, "keys", None), str)}
    spans = sorted(name for name in names if is_span(name))
    return dict(groups) | (span_groups(groups["audio"], spans, lengths) if spans else {})


def is_span(name: str) -> bool:
    """Whether a name stands for a part of the audio, as `seconds` makes it.

    Example:
        >>> is_span("audio:2-4s"), is_span("audio")
        (True, False)
    """
    return bool(_NAME.fullmatch(name))


def span_groups(
    audio: Tensor, names: Iterable[str], lengths: Sequence[float], needed: bool = True
) -> dict[str, Tensor]:
    """The tokens of each span: name -> bool [B, P].

    Args:
        audio: bool [B, P], the tokens of audio.
        names: from `seconds`.
        lengths: seconds of audio, one per row.
        needed: whether every row must have audio in each span.

    Raises:
        InterventionError: a name is not that of a span; a row has no audio in it, and it is needed; or its
            length is not known.
    """
    masks = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise InterventionError(f"{name!r} is not a span of time: make one with mi.seconds(begin, end).")
        masks[name] = _span(audio, float(match[1]), float(match[2]), lengths, needed)
    return masks


def _span(audio: Tensor, begin: float, end: float, lengths: Sequence[float], needed: bool) -> Tensor:
    seconds_of_row = torch.tensor(list(lengths), dtype=torch.float64)[:, None].to(audio.device)
    if seconds_of_row.isnan().any():
        raise InterventionError("A span in seconds needs prompts made from items: their length is not known.")
    number = audio.cumsum(1) - 1
    step = seconds_of_row / audio.sum(1, keepdim=True).clamp(min=1)
    inside = audio & (number * step < end) & ((number + 1) * step > begin)
    if needed and not inside.any(1).all():
        row = int((~inside.any(1)).nonzero()[0])
        raise InterventionError(f"Row {row} of the prompt has no audio at {begin:g}-{end:g} s.")
    return inside
