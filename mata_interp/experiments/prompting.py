"""The prompt of a batch with the kind of audio that a condition asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks import Item
from ..benchmarks.audio import AudioSource
from .conditions import AudioKind

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["build_batch"]


def build_batch(
    lalm: LALM,
    batch: Sequence[Item],
    audio: AudioKind,
    partners: Mapping[str, Item],
    format: str,
    width: int | None = None,
) -> tuple[Prompt, list[dict[str, Any]]]:
    """Build the prompt of a batch, and the columns of each item's record that describe its input.

    Args:
        lalm: The model.
        batch: The items.
        audio: Kind of audio.
        partners: Item id -> the item whose audio replaces its own if ``audio`` is ``"other"``.
        format: One of PROMPT_FORMATS.
        width: Pad to this many tokens; None: to the batch's longest prompt.
    """
    inputs, sources = list(batch), [item.id if audio == "own" else None for item in batch]
    if audio == "other":
        inputs = [_with_partners_audio(item, partners[item.id]) for item in batch]
        sources = [partners[item.id].id for item in batch]
    elif audio == "silence":
        inputs = [item.with_audio(_silence(item, lalm.sampling_rate)) for item in batch]
    elif audio == "reversed":
        inputs = [item.with_audio(_reversed(item, lalm.sampling_rate)) for item in batch]
        sources = [item.id for item in batch]
    in_prompt = None if audio == "none" else "own"
    prompt = lalm.prompt(inputs, audio=in_prompt, format=format, width=width)
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


def _with_partners_audio(item: Item, partner: Item) -> Item:
    """The item with the audio of another item: with as many clips as before, the other's clips in turn."""
    count, clips = len(item.clips), partner.clips
    if count == len(clips) or count < 2:
        return item.with_audio(partner)
    return item.with_audio(partner.with_audio([clips[n % len(clips)] for n in range(count)]))


def _silence(item: Item, rate: int) -> list[AudioSource]:
    """Zeros, for each clip as many as it has samples."""
    return [(np.zeros_like(clip.samples), rate) for clip in item.load_clips(rate)]


def _reversed(item: Item, rate: int) -> list[AudioSource]:
    """Each clip backwards."""
    return [(clip.samples[::-1].copy(), rate) for clip in item.load_clips(rate)]
