"""Processors that load only beside torchvision, torchaudio or mistral-common: real classes, small settings.

`make acceptance-families` builds an environment in which all of these packages load together.
"""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import is_torchaudio_available, is_torchvision_available

from .family import byte_tokenizer
from .hybrids import LFM2
from .mistral import HEARD, MISSING, tekken, voxtral_processor
from .mistral import voxtral as voxtral_model
from .processors import RATE, template, tokens
from .registry import FAMILIES
from .whispers import MELS

__all__ = ["BUILDERS", "LACKING", "audio_id", "model_for_items"]


def qwen2_5_omni(checkpoint: bool = False) -> Any:
    """Its checkpoints have windows of 300 s."""
    features = transformers.WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, chunk_length=300 if checkpoint else 1
    )
    return _omni(transformers.Qwen2_5OmniProcessor, features, "<|AUDIO|>")


def qwen3_omni_moe(checkpoint: bool = False) -> Any:
    features = transformers.WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE)
    return _omni(transformers.Qwen3OmniMoeProcessor, features, "<|audio_pad|>")


def _omni(kind: Any, features: Any, audio: str) -> Any:
    pictures, videos = transformers.Qwen2VLImageProcessor(), transformers.Qwen2VLVideoProcessor()
    written = template(f"<|audio_bos|>{audio}<|audio_eos|>")
    return kind(pictures, videos, features, tokens(audio), chat_template=written)


def gemma3n(checkpoint: bool = False) -> Any:
    """188 placeholders for any clip in its checkpoints; 24 here, as the tiny model has."""
    named = {"<|pad of text|>": None, "<|end|>": None, "<|turn|>": None, "<|boa|>": "boa_token"}
    named |= {"<|eoa|>": "eoa_token", "<|image|>": "image_token", "<|boi|>": "boi_token"}
    named |= {"<|eoi|>": "eoi_token", **{f"<|{n}|>": None for n in range(264, 270)}}
    named |= {"<|audio|>": "audio_token"}  # the vocabulary of sound starts at 268: see conformers.py
    marked = byte_tokenizer(named, pad_token="<|pad of text|>", eos_token="<|end|>")
    features = transformers.Gemma3nAudioFeatureExtractor(feature_size=MELS)
    return transformers.Gemma3nProcessor(
        features, transformers.SiglipImageProcessor(), marked, chat_template=template("<|audio|>"),
        audio_seq_length=188 if checkpoint else 24,
    )  # fmt: skip


def _gemma_tokens() -> Any:
    named = {"<|pad of text|>": None, "<|end|>": None, "<|audio|>": "audio_token", "<|boa|>": "boa_token"}
    named |= {"<|eoa|>": "eoa_token", "<|image|>": "image_token", "<|video|>": None, "<|turn|>": None}
    named |= {"<|boi|>": "boi_token", "<|eoi|>": "eoi_token"}
    return byte_tokenizer(named, pad_token="<|pad of text|>", eos_token="<|end|>")


def gemma4(checkpoint: bool = False) -> Any:
    return transformers.Gemma4Processor(
        transformers.Gemma4AudioFeatureExtractor(feature_size=MELS), transformers.Gemma4ImageProcessor(),
        _gemma_tokens(), transformers.Gemma4VideoProcessor(), chat_template=template("<|audio|>"),
    )  # fmt: skip


def gemma4_unified(checkpoint: bool = False) -> Any:
    """A token for 640 samples in its checkpoints; for 64 here, as the tiny model has."""
    samples = 640 if checkpoint else 64
    features = transformers.Gemma4UnifiedAudioFeatureExtractor(
        feature_size=samples, audio_samples_per_token=samples
    )
    return transformers.Gemma4UnifiedProcessor(
        features, transformers.Gemma4UnifiedImageProcessor(), _gemma_tokens(),
        transformers.Gemma4UnifiedVideoProcessor(), chat_template=template("<|audio|>"),
    )  # fmt: skip


def granite_speech(checkpoint: bool = False) -> Any:
    """Two frames side by side are one of the encoder's."""
    features = transformers.GraniteSpeechFeatureExtractor(n_mels=MELS // 2)
    return transformers.GraniteSpeechProcessor(
        features, tokens("<|audio|>"), chat_template=template("<|audio|>")
    )


def inkling_mm_model(checkpoint: bool = False) -> Any:
    return transformers.InklingProcessor(
        transformers.InklingFeatureExtractor(feature_size=MELS), transformers.InklingImageProcessor(),
        tokens("<|audio|>"), chat_template=template("<|audio_bos|><|audio|>"),
        image_bos_token="<|video|>", audio_bos_token="<|audio_bos|>",
    )  # fmt: skip


def nemotron_h_omni(checkpoint: bool = False) -> Any:
    return transformers.NemotronH_Omni_Reasoning_V3Processor(
        transformers.NemotronH_Omni_Reasoning_V3ImageProcessor(),
        transformers.NemotronH_Omni_Reasoning_V3VideoProcessor(),
        tokens("<|audio|>", "<so_start>", "<so_end>"),
        transformers.ParakeetFeatureExtractor(feature_size=MELS, sampling_rate=RATE),
        chat_template=template("<|audio|>"),
    )


def voxtral(checkpoint: bool = False) -> Any:
    folder = tempfile.TemporaryDirectory(prefix="voxtral-")
    atexit.register(folder.cleanup)
    return voxtral_processor(tekken(Path(folder.name)))


BUILDERS = {
    "qwen2_5_omni": (qwen2_5_omni, "torchvision"),
    "qwen3_omni_moe": (qwen3_omni_moe, "torchvision"),
    "gemma3n": (gemma3n, "torchvision"),
    "gemma4": (gemma4, "torchvision"),
    "gemma4_unified": (gemma4_unified, "torchvision"),
    "inkling_mm_model": (inkling_mm_model, "torchvision"),
    "nemotron_h_omni": (nemotron_h_omni, "torchvision"),
    "granite_speech": (granite_speech, "torchaudio"),
    "granite_speech_plus": (granite_speech, "torchaudio"),
    "granite_speech on granitemoehybrid": (granite_speech, "torchaudio"),
    "voxtral": (voxtral, "mistral-common"),
    "voxtral on lfm2": (voxtral, "mistral-common"),
}
"""Family -> ``make(checkpoint)`` and the package without which it fails."""

LACKING = {
    "torchvision": "" if is_torchvision_available() else "its processor needs torchvision",
    "torchaudio": "" if is_torchaudio_available() else "its feature extractor needs torchaudio",
    "mistral-common": MISSING,
}
"""Package -> why there is no processor here; empty where the package loads."""


def model_for_items(name: str) -> Any:
    """A tiny model for the inputs of the processor: the registry's, or one that takes windows of 30 s."""
    if name == "voxtral":
        return voxtral_model(None)
    if name == "voxtral on lfm2":
        return voxtral_model(None, text=LFM2)
    return FAMILIES[name].model(None)


def audio_id(name: str) -> int:
    """The placeholder's id in ``model_for_items``."""
    return HEARD if name.startswith("voxtral") else FAMILIES[name].audio
