"""The encoder's output for a series of clips, computed once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from .adapter import TUNED
from .clips import Clip, ClipMaker, Segment
from .progress import Progress
from .speech import RATE

__all__ = ["EncodedClips", "encode", "last_layers", "load_features", "save_features", "save_tuned_features"]

BATCH = 16


@dataclass(frozen=True)
class EncodedClips:
    """Features of a series of clips, with kinds and segments.

    Attributes:
        features: the encoder's output, float16 [clips, audio tokens, width].
        kinds: of the clips.
        segments: of the clips.
        states: inputs of the encoder's last `TUNED` layers, float16 [clips, frames, width]; empty where the
            encoder stays as it is.
    """

    features: Tensor
    kinds: list[str]
    segments: list[tuple[Segment, ...]]
    states: Tensor

    def __len__(self) -> int:
        return len(self.kinds)


@torch.inference_mode()
def encode(
    model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, clips: list[Clip]
) -> tuple[Tensor, Tensor]:
    """Return the encoder's output for clips and the inputs of its last layers, as in `EncodedClips`."""
    audio = [clip.audio for clip in clips]
    mel = processor.feature_extractor(audio, sampling_rate=RATE, padding="max_length", return_tensors="pt")
    tower: Any = model.model.audio_tower
    states: list[Tensor] = []
    hook = tower.layers[-TUNED].register_forward_pre_hook(lambda _, args: states.append(args[0].half()))
    try:
        features = tower(mel["input_features"]).last_hidden_state.half()
    finally:
        hook.remove()
    return features, states[0]


def last_layers(model: Qwen2AudioForConditionalGeneration, states: Tensor) -> Tensor:
    """Run the encoder's last layers on their inputs; returns its output [clips, audio tokens, width]."""
    tower: Any = model.model.audio_tower
    for layer in tower.layers[-TUNED:]:
        states = layer(states, None)
    pooled = tower.avg_pooler(states.transpose(1, 2)).transpose(1, 2)
    return tower.layer_norm(pooled)


def save_features(
    path: Path,
    model: Qwen2AudioForConditionalGeneration,
    processor: Qwen2AudioProcessor,
    maker: ClipMaker,
    series: str,
    count: int,
) -> None:
    """Encode clips 0 to ``count`` - 1 of a series and write them to a safetensors file.

    Args:
        path: the file.
        model: its encoder is used.
        processor: its feature extractor is used.
        maker: makes the clips.
        series: name of the series.
        count: number of clips.
    """
    features, states, kinds, segments = [], [], [], []
    with Progress(f"encoding {series} clips", count) as progress:
        for first in range(0, count, BATCH):
            clips = [maker.clip(series, index) for index in range(first, min(first + BATCH, count))]
            for found, piece in zip((features, states), encode(model, processor, clips), strict=True):
                found.append(piece)
            kinds += [clip.kind for clip in clips]
            segments += [clip.segments for clip in clips]
            progress.advance(len(clips))
    _save(path, EncodedClips(torch.cat(features), kinds, segments, torch.cat(states)))


@torch.inference_mode()
def save_tuned_features(path: Path, model: Qwen2AudioForConditionalGeneration, clips: EncodedClips) -> None:
    """Run the changed last layers of the encoder on encoded clips and write the result.

    Args:
        path: the safetensors file.
        model: its encoder's last layers are used.
        clips: with ``states``.
    """
    pieces = []
    with Progress("encoding with the changed layers", len(clips)) as progress:
        for states in clips.states.split(BATCH):
            pieces.append(last_layers(model, states.float()).half())
            progress.advance(len(states))
    _save(path, EncodedClips(torch.cat(pieces), clips.kinds, clips.segments, torch.empty(0)))


def _save(path: Path, clips: EncodedClips) -> None:
    segments = [[asdict(segment) for segment in one] for one in clips.segments]
    notes = {"kinds": json.dumps(clips.kinds), "segments": json.dumps(segments)}
    save_file({"features": clips.features, "states": clips.states}, path, metadata=notes)


def load_features(path: Path) -> EncodedClips:
    """Read what `save_features` or `save_tuned_features` wrote."""
    with safe_open(path, "pt") as stored:
        notes = stored.metadata()
        segments = [tuple(Segment(**one) for one in clip) for clip in json.loads(notes["segments"])]
        features, states = stored.get_tensor("features"), stored.get_tensor("states")
        return EncodedClips(features, json.loads(notes["kinds"]), segments, states)
