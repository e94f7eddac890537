"""Part of the audio, named by its time: a name of a group of tokens such as ``"audio:2-4s"``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mata_interp.errors import InterventionError

__all__ = ["seconds", "with_spans"]

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
    found = {name: match for name in sorted(names) if (match := _NAME.fullmatch(name))}
    return dict(groups) | {
        name: _span(groups["audio"], float(match[1]), float(match[2]), lengths)
        for name, match in found.items()
    }


def _span(audio: Tensor, begin: float, end: float, lengths: Sequence[float]) -> Tensor:
    seconds_of_row = torch.tensor(list(lengths), dtype=torch.float64)[:, None].to(audio.device)
    if seconds_of_row.isnan().any():
        raise InterventionError("A span in seconds needs prompts made from items: their length is not known.")
    number = audio.cumsum(1) - 1
    step = seconds_of_row / audio.sum(1, keepdim=True).clamp(min=1)
    inside = audio & (number * step < end) & ((number + 1) * step > begin)
    if not inside.any(1).all():
        row = int((~inside.any(1)).nonzero()[0])
        raise InterventionError(f"Row {row} of the prompt has no audio at {begin:g}-{end:g} s.")
    return inside
