"""The frozen encoder's output for a series of clips, computed once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from .clips import Clip, ClipMaker, Segment
from .progress import Progress
from .speech import RATE

__all__ = ["EncodedClips", "encode", "load_features", "save_features"]

BATCH = 16


@dataclass(frozen=True)
class EncodedClips:
    """Features of a series of clips, float16 [clips, audio tokens, width], with kinds and segments."""

    features: Tensor
    kinds: list[str]
    segments: list[tuple[Segment, ...]]

    def __len__(self) -> int:
        return len(self.kinds)


@torch.inference_mode()
def encode(
    model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, clips: list[Clip]
) -> Tensor:
    """Return the encoder's output for clips, float16 [clips, audio tokens, encoder width]."""
    audio = [clip.audio for clip in clips]
    mel = processor.feature_extractor(audio, sampling_rate=RATE, padding="max_length", return_tensors="pt")
    return model.model.audio_tower(mel["input_features"]).last_hidden_state.half()


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
    pieces, kinds, segments = [], [], []
    with Progress(f"encoding {series} clips", count) as progress:
        for first in range(0, count, BATCH):
            clips = [maker.clip(series, index) for index in range(first, min(first + BATCH, count))]
            pieces.append(encode(model, processor, clips))
            kinds += [clip.kind for clip in clips]
            segments += [[asdict(segment) for segment in clip.segments] for clip in clips]
            progress.advance(len(clips))
    notes = {"kinds": json.dumps(kinds), "segments": json.dumps(segments)}
    save_file({"features": torch.cat(pieces)}, path, metadata=notes)


def load_features(path: Path) -> EncodedClips:
    """Read what `save_features` wrote."""
    with safe_open(path, "pt") as stored:
        notes = stored.metadata()
        segments = [tuple(Segment(**one) for one in clip) for clip in json.loads(notes["segments"])]
        return EncodedClips(stored.get_tensor("features"), json.loads(notes["kinds"]), segments)
