"""The prompt of a batch with the audio that a condition calls for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks import Item
from .conditions import AudioKind

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["ask"]


def ask(
    lalm: LALM,
    batch: Sequence[Item],
    audio: AudioKind,
    partners: Mapping[str, Item],
    format: str,
    width: int | None = None,
) -> tuple[Prompt, list[dict[str, Any]]]:
    """The prompt of a batch, and of each item the columns of its record that tell what was asked.

    Args:
        partners: item id -> the item whose audio it hears if ``audio`` is ``"other"``.
        format: one of PROMPT_FORMATS.
        width: pad to so many tokens; None: to the batch's longest.
    """
    heard, sources = list(batch), [item.id if audio == "own" else None for item in batch]
    if audio == "other":
        heard = [item.with_audio(partners[item.id]) for item in batch]
        sources = [partners[item.id].id for item in batch]
    elif audio == "silence":
        heard = [item.with_audio(_silence(item, lalm.sampling_rate)) for item in batch]
    sound = None if audio == "none" else "own"
    prompt = lalm.prompt(heard, audio=sound, format=format, width=width)
    audio_tokens = prompt.groups["audio"].sum(1).tolist()
    prompt_tokens = prompt.inputs["attention_mask"].sum(1).tolist()
    return prompt, [
        {
            "audio_from": sources[row],
            "audio_seconds": prompt.audio_seconds[row],
            "truncated_seconds": prompt.truncated_seconds[row],
            "prompt_tokens": prompt_tokens[row],
            "audio_tokens": audio_tokens[row],
            "padded_width": prompt.width,
        }
        for row in range(len(batch))
    ]


def _silence(item: Item, rate: int) -> tuple[np.ndarray, int]:
    """Zeros, as many as the item's own audio has samples."""
    return np.zeros_like(item.load_audio(rate).samples), rate
