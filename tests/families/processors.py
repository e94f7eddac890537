"""Processors without a download: features of tiny encoders, 256 bytes, the special tokens of each family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import is_torchvision_available

from .family import byte_tokenizer
from .whispers import MELS

__all__ = ["BUILDERS", "RATE", "template", "tokens", "whisper", "with_windows"]

RATE = 16_000


def template(sound: str) -> str:
    """A chat template for families that ship none, or lose it when saved: ``sound`` marks a clip."""
    return (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{% for c in m.content %}"
        "{% if c.type == 'audio' %}" + sound + "{% else %}{{ c.text }}{% endif %}"
        "{% endfor %}<|end|>\n{% endfor %}<|turn|>assistant\n"
    )


def tokens(audio: str, begin: str = "<|audio_bos|>", end: str = "<|audio_eos|>", **more: Any) -> Any:
    """A tokenizer whose special tokens have the ids that the tiny models know (see family.py)."""
    named = {"<|pad of text|>": None, "<|end|>": None, audio: "audio_token"}
    named |= {begin: "audio_bos_token", end: "audio_eos_token", "<|image|>": "image_token"}
    named |= {"<|video|>": "video_token", "<|turn|>": None, "<|vision_bos|>": "vision_bos_token"}
    named |= {"<|vision_eos|>": "vision_eos_token"} | more
    return byte_tokenizer(named, pad_token="<|pad of text|>", eos_token="<|end|>")


def whisper(**more: Any) -> Any:
    return transformers.WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE, chunk_length=1, **more)


def qwen2_audio() -> Any:
    return transformers.Qwen2AudioProcessor(whisper(), tokens("<|AUDIO|>"))


def audioflamingo3() -> Any:
    return transformers.AudioFlamingo3Processor(
        whisper(), tokens("<sound>"), chat_template=template("<sound>"), max_audio_len=1
    )


def musicflamingo() -> Any:
    marked = tokens("<sound>", "<|sound_bos|>", "<|sound_eos|>")
    return transformers.MusicFlamingoProcessor(
        whisper(), marked, chat_template=template("<sound>"), max_audio_len=1
    )


def glmasr() -> Any:
    return transformers.GlmAsrProcessor(
        whisper(hop_length=125), tokens("<|pad|>"), chat_template=template("<|pad|>"), max_audio_len=1
    )


def qwen3_asr() -> Any:
    features = transformers.Qwen3ASRFeatureExtractor(feature_size=MELS, sampling_rate=RATE)
    marked = tokens("<|audio_pad|>")
    return transformers.Qwen3ASRProcessor(
        features, marked, chat_template=template("<|audio_bos|><|audio_pad|><|audio_eos|>")
    )


def vibevoice_asr() -> Any:
    features = transformers.VibeVoiceAcousticTokenizerFeatureExtractor(sampling_rate=RATE)
    marked = tokens("<|box_start|>", "<|object_ref_start|>", "<|object_ref_end|>")
    return transformers.VibeVoiceAsrProcessor(
        features, marked, chat_template=template("<|object_ref_start|><|box_start|><|object_ref_end|>")
    )


class _NoPictures(BaseImageProcessor):
    """In the place of Phi 4's image processor where torchvision does not load."""


def phi4_multimodal() -> Any:
    features = transformers.Phi4MultimodalFeatureExtractor(feature_size=MELS)
    pictures = transformers.Phi4MultimodalImageProcessor() if is_torchvision_available() else _NoPictures()
    return transformers.Phi4MultimodalProcessor(
        pictures, features, tokens("<|audio|>"), chat_template=template("<|audio|>")
    )


BUILDERS = {
    make.__name__: make
    for make in (
        qwen2_audio,
        audioflamingo3,
        musicflamingo,
        glmasr,
        qwen3_asr,
        vibevoice_asr,
        phi4_multimodal,
    )
}


def with_windows(name: str) -> Callable[[], Any]:
    """Makes a processor with the windows and the longest audio of its checkpoints, which are its defaults."""

    def make() -> Any:
        processor = BUILDERS[name]()
        kind, features = type(processor), getattr(processor, "feature_extractor", None)
        if isinstance(features, transformers.WhisperFeatureExtractor):
            features = transformers.WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE)
            return kind(features, processor.tokenizer, chat_template=processor.chat_template)
        return processor

    return make
