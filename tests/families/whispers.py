"""Families whose encoder is of Whisper's kind and whose decoder is a plain one, or a mixture of experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3ASRConfig,
    Qwen3ASRForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from .family import AUDIO, END, PAD, VOCAB, seeded, sounding

MELS = 16
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": END,
}
WHISPER: dict[str, Any] = {
    "num_mel_bins": MELS,
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}


def configured(config: Any, attention: str | None) -> Any:
    if attention is not None:
        config._attn_implementation = attention
    return config


def masked(rows: int, frames: int, divide: Any, name: str) -> tuple[dict[str, Tensor], list[int]]:
    """Features of clips of unlike length with a mask of that name."""
    lengths = torch.tensor([frames - 12 * row for row in range(rows)])
    mask = (torch.arange(frames) < lengths[:, None]).long()
    features = sounding(rows, MELS, frames) * mask[:, None]
    return {"input_features": features, name: mask}, [int(divide(int(n))) for n in lengths]


def qwen2_audio(attention: str | None) -> Any:
    return seeded(
        lambda: Qwen2AudioForConditionalGeneration(
            configured(
                Qwen2AudioConfig(
                    audio_config={
                        "model_type": "qwen2_audio_encoder", **WHISPER, "max_source_positions": 50
                    },
                    text_config={"model_type": "qwen2", **TEXT},
                    audio_token_index=AUDIO,
                ),
                attention,
            )
        )
    )  # fmt: skip


def quartered(frames: int) -> int:
    """Two convolutions, of which one halves, then an average of two."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def qwen2_audio_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    return masked(rows, 100, quartered, "feature_attention_mask")


FLAMINGO = {"model_type": "audioflamingo3_encoder", **WHISPER, "max_source_positions": 50}


def _flamingo(model: Any, config: Any, attention: str | None, **more: Any) -> Any:
    text = {"model_type": "qwen2", **TEXT}
    settings = {"audio_config": FLAMINGO, "text_config": text, "audio_token_id": AUDIO, **more}
    return seeded(lambda: model(configured(config(**settings), attention)))


def audioflamingo3(attention: str | None) -> Any:
    return _flamingo(AudioFlamingo3ForConditionalGeneration, AudioFlamingo3Config, attention)


def musicflamingo(attention: str | None) -> Any:
    return _flamingo(
        MusicFlamingoForConditionalGeneration, MusicFlamingoConfig, attention,
        audio_bos_token_id=259, audio_eos_token_id=260,
    )  # fmt: skip


def flamingo_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    return masked(rows, 100, quartered, "input_features_mask")


VOXTRAL = {
    "model_type": "voxtral_encoder", "num_mel_bins": MELS, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 64, "max_source_positions": 40, "vocab_size": VOCAB,
}  # fmt: skip


def voxtral(attention: str | None) -> Any:
    text = {"model_type": "llama", **TEXT, "head_dim": 8}
    return seeded(
        lambda: VoxtralForConditionalGeneration(
            configured(VoxtralConfig(audio_config=VOXTRAL, text_config=text, audio_token_id=AUDIO), attention)
        )
    )


def voxtral_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    """Every clip fills whole chunks; four frames of the encoder make a token."""
    return {"input_features": sounding(rows, MELS, 80)}, [10] * rows


def glmasr(attention: str | None) -> Any:
    encoder = {
        "model_type": "glmasr_encoder", "num_mel_bins": MELS, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 64,
    }  # fmt: skip
    text = {"model_type": "llama", **TEXT, "head_dim": 8}
    return seeded(
        lambda: GlmAsrForConditionalGeneration(
            configured(GlmAsrConfig(audio_config=encoder, text_config=text, audio_token_id=AUDIO), attention)
        )
    )


def glmasr_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    return masked(rows, 96, lambda n: ((n - 1) // 2 + 1 - 4) // 4 + 1, "input_features_mask")


def qwen3_asr(attention: str | None) -> Any:
    encoder = {
        "model_type": "qwen3_asr_encoder", **WHISPER, "output_dim": 32, "n_window": 50, "n_window_infer": 100,
        "downsample_hidden_size": 8,
    }  # fmt: skip
    text = {"model_type": "qwen3", **TEXT, "head_dim": 8}
    return seeded(
        lambda: Qwen3ASRForConditionalGeneration(
            configured(
                Qwen3ASRConfig(
                    audio_config=encoder, text_config=text, audio_token_id=AUDIO, timestamp_token_id=261,
                    pad_token_id=PAD, eos_token_id=END,
                ),
                attention,
            )
        )
    )  # fmt: skip


def eighth(frames: int) -> int:
    for _ in range(3):
        frames = (frames - 1) // 2 + 1
    return frames


def qwen3_asr_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    return masked(rows, 100, eighth, "input_features_mask")


VISION = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4,
    "out_hidden_size": 32,
}  # fmt: skip
# the start of an image is looked up even where there is none; checkpoints name it
OMNI: dict[str, Any] = {"audio_start_token_id": 259, "user_token_id": 263, "vision_start_token_id": 264}


def qwen2_5_omni(attention: str | None) -> Any:
    text = {
        "model_type": "qwen2_5_omni_text", **TEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    audio = {**WHISPER, "n_window": 50, "output_dim": 32, "max_source_positions": 50}
    return seeded(
        lambda: Qwen2_5OmniThinkerForConditionalGeneration(
            configured(
                Qwen2_5OmniThinkerConfig(
                    audio_config=audio, vision_config=VISION, text_config=text, audio_token_index=AUDIO,
                    image_token_index=261, video_token_index=262, audio_end_token_id=260, **OMNI,
                ),
                attention,
            )
        )
    )  # fmt: skip


def qwen2_5_omni_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    return masked(rows, 100, quartered, "feature_attention_mask")


def qwen3_omni_moe(attention: str | None) -> Any:
    text = {
        "model_type": "qwen3_omni_moe_text", **TEXT, "head_dim": 8, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1], "interleaved": True
        },
    }  # fmt: skip
    audio = {
        **WHISPER, "n_window": 50, "n_window_infer": 100, "output_dim": 32, "max_source_positions": 50,
        "downsample_hidden_size": 8,
    }  # fmt: skip
    vision = VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return seeded(
        lambda: Qwen3OmniMoeThinkerForConditionalGeneration(
            configured(
                Qwen3OmniMoeThinkerConfig(
                    audio_config=audio, vision_config=vision, text_config=text, audio_token_id=AUDIO,
                    image_token_id=261, video_token_id=262, **OMNI,
                ),
                attention,
            )
        )
    )  # fmt: skip


def qwen3_omni_moe_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    return masked(rows, 100, eighth, "feature_attention_mask")
