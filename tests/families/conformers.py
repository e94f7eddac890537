"""Families with encoders of their own kind, or with none, and those that cannot be split at all."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import (
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechPlusConfig,
    GraniteSpeechPlusForConditionalGeneration,
    KyutaiSpeechToTextConfig,
    KyutaiSpeechToTextForConditionalGeneration,
    Phi4MultimodalConfig,
    Phi4MultimodalForCausalLM,
    VibeVoiceAsrConfig,
    VibeVoiceAsrForConditionalGeneration,
    VoxtralRealtimeConfig,
    VoxtralRealtimeForConditionalGeneration,
)
from transformers.models.gemma3n import modeling_gemma3n

from .family import AUDIO, END, VOCAB, seeded, sounding
from .whispers import MELS, TEXT, configured

GRANITE: dict[str, Any] = {
    "model_type": "granite", **TEXT, "attention_multiplier": 0.05, "residual_multiplier": 0.7,
    "embedding_multiplier": 3.0, "logits_scaling": 2.0,
}  # fmt: skip


def _granite(model: Any, config: Any, attention: str | None, text: dict = GRANITE, **encoder: Any) -> Any:
    wide = 32 if encoder else 16
    return seeded(
        lambda: model(
            configured(
                config(
                    text_config=text,
                    encoder_config={
                        "input_dim": MELS, "num_layers": 2, "hidden_dim": 16, "feedforward_mult": 2,
                        "num_heads": 2, "output_dim": 8, "context_size": 20, "max_pos_emb": 32,
                        "conv_kernel_size": 3, **encoder,
                    },
                    projector_config={
                        "model_type": "blip_2_qformer", "hidden_size": 16, "num_hidden_layers": 1,
                        "num_attention_heads": 2, "intermediate_size": 16, "encoder_hidden_size": wide,
                        "cross_attention_frequency": 1,
                    },
                    audio_token_index=AUDIO, has_lora_adapter=False, tie_word_embeddings=False,
                ),
                attention,
            )
        )
    )  # fmt: skip


def granite_speech(attention: str | None) -> Any:
    return _granite(GraniteSpeechForConditionalGeneration, GraniteSpeechConfig, attention)


def granite_of(text: dict[str, Any], attention: str | None) -> Any:
    """Granite Speech around another decoder."""
    return _granite(GraniteSpeechForConditionalGeneration, GraniteSpeechConfig, attention, text)


def granite_speech_plus(attention: str | None) -> Any:
    return _granite(
        GraniteSpeechPlusForConditionalGeneration, GraniteSpeechPlusConfig, attention, cat_hidden_layers=[1]
    )


def granite_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    """Windows of 15 frames give 3 tokens each; the mask is of tokens."""
    counts = [12 - 3 * row for row in range(rows)]
    mask = torch.arange(12) < torch.tensor(counts)[:, None]
    return {"input_features": sounding(rows, 60, MELS), "input_features_mask": mask}, counts


def phi4_multimodal(attention: str | None) -> Any:
    return seeded(
        lambda: Phi4MultimodalForCausalLM(
            configured(
                Phi4MultimodalConfig(
                    **{k: v for k, v in TEXT.items() if k != "eos_token_id"}, eos_token_id=END,
                    original_max_position_embeddings=1024,
                    audio_config={
                        "hidden_size": 16, "intermediate_size": 16, "num_blocks": 1, "num_attention_heads": 2,
                        "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "input_size": MELS,
                        "nemo_conv_channels": 8, "bias_max_distance": 20, "audio_token_id": AUDIO,
                    },
                    vision_config={
                        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
                        "num_attention_heads": 2, "image_size": 28, "crop_size": 28, "image_token_id": 261,
                    },
                ),
                attention,
            )
        )
    )  # fmt: skip


def phi4_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    lengths = torch.tensor([80 - 16 * row for row in range(rows)])
    counts = [-(-int(n) // 8) for n in lengths]
    held = {
        "audio_input_features": sounding(rows, 80, MELS),
        "audio_embed_sizes": torch.tensor(counts),
        "audio_attention_mask": torch.arange(80) < lengths[:, None],
    }
    return held, counts


def vibevoice_asr(attention: str | None) -> Any:
    tokenizer = {
        "model_type": "vibevoice_acoustic_tokenizer_encoder", "num_filters": 4,
        "downsampling_ratios": [8, 20, 20], "depths": [1, 1, 1, 1],
    }  # fmt: skip
    return seeded(
        lambda: VibeVoiceAsrForConditionalGeneration(
            configured(
                VibeVoiceAsrConfig(
                    text_config={"model_type": "qwen2", **TEXT},
                    acoustic_tokenizer_encoder_config={**tokenizer, "hidden_size": 8},
                    semantic_tokenizer_encoder_config={**tokenizer, "hidden_size": 12},
                    audio_token_id=AUDIO, audio_bos_token_id=259, audio_eos_token_id=260,
                    acoustic_tokenizer_chunk_size=64000,
                ),
                attention,
            )
        )
    )  # fmt: skip


def vibevoice_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    """A token for 3,200 samples of the waveform itself."""
    counts = [10 - 3 * row for row in range(rows)]
    mask = torch.arange(32000) < 3200 * torch.tensor(counts)[:, None]
    held = {"input_values": sounding(rows, 1, 32000) * mask[:, None], "padding_mask": mask, "sample": False}
    return held, counts  # without ``sample`` the reference would draw noise; the package sets it by itself


GEMMA: dict[str, Any] = {
    **TEXT,
    "num_hidden_layers": 4,
    "head_dim": 8,
    "sliding_window": 12,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "bos_token_id": 2,
}


def gemma4(attention: str | None) -> Any:
    """Layers 2 and 3 use the keys of 0 and 1; full layers have wider heads."""
    text = {
        **GEMMA, "num_kv_shared_layers": 2, "global_head_dim": 16, "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 8, "final_logit_softcapping": 30.0,
    }  # fmt: skip
    audio = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "subsampling_conv_channels": [MELS, 4], "output_proj_dims": 16, "attention_chunk_size": 4,
        "attention_context_left": 5,
    }  # fmt: skip
    return seeded(
        lambda: Gemma4ForConditionalGeneration(
            configured(
                Gemma4Config(
                    text_config=text, vision_config=None, audio_config=audio, audio_token_id=AUDIO,
                    image_token_id=261, video_token_id=262, boa_token_id=259, eoa_token_index=260,
                    tie_word_embeddings=False,
                ),
                attention,
            )
        ),
        normed_sharpness=1.0,
    )  # fmt: skip


def gemma4_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    lengths = torch.tensor([80 - 16 * row for row in range(rows)])
    mask = torch.arange(80) < lengths[:, None]
    return {"input_features": sounding(rows, 80, MELS), "input_features_mask": mask}, [
        -(-int(n) // 4) for n in lengths
    ]


def gemma4_unified(attention: str | None) -> Any:
    """No encoder: pieces of the waveform themselves; global layers have other key heads."""
    text = {
        **GEMMA, "num_kv_shared_layers": 0, "global_head_dim": 16, "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
    }  # fmt: skip
    return seeded(
        lambda: Gemma4UnifiedForConditionalGeneration(
            configured(
                Gemma4UnifiedConfig(
                    text_config=text, vision_config=None, audio_config={"audio_embed_dim": 64},
                    audio_token_id=AUDIO, image_token_id=261, video_token_id=262, boa_token_id=259,
                    eoa_token_index=260, tie_word_embeddings=False,
                ),
                attention,
            )
        ),
        normed_sharpness=1.0,
    )  # fmt: skip


def gemma4_unified_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    counts = [20 - 4 * row for row in range(rows)]
    mask = torch.arange(20) < torch.tensor(counts)[:, None]
    return {"input_features": sounding(rows, 20, 64), "input_features_mask": mask}, counts


class _NoVision(torch.nn.Module):
    """In the place of a vision tower where timm, which needs torchvision, is missing."""


def gemma3n(attention: str | None) -> Any:
    """With its vision tower where timm is here, else without. Placeholders are of a fixed number."""
    text = {
        **{k: v for k, v in GEMMA.items() if k != "num_attention_heads"}, "num_attention_heads": 4,
        "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 264, "hidden_size_per_layer_input": 8,
        "laurel_rank": 8, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 4,
    }  # fmt: skip
    audio = {
        "vocab_offset": 268, "vocab_size": 52, "input_feat_size": 16, "hidden_size": 16,
        "conf_num_attention_heads": 2, "conf_num_hidden_layers": 1, "sscp_conv_channel_size": [8, 4],
    }  # fmt: skip
    towers = modeling_gemma3n.AutoModel.from_config

    def tower(config: Any = None, **kwargs: Any) -> Any:
        without = config.model_type == "gemma3n_vision" and find_spec("timm") is None
        return _NoVision() if without else towers(config, **kwargs)

    with patch.object(modeling_gemma3n.AutoModel, "from_config", tower):
        return seeded(
        lambda: Gemma3nForConditionalGeneration(
            configured(
                Gemma3nConfig(
                    text_config=text, audio_config=audio, audio_token_id=270, image_token_id=261,
                    audio_soft_tokens_per_image=24,
                    vision_config={"architecture": "resnet18", "vocab_offset": 264, "vocab_size": 4},
                ),
                attention,
            )
        ),
        normed_sharpness=1.0,
    )  # fmt: skip


def gemma3n_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    """24 placeholders whatever the length, the rest of them filled up with padding."""
    mask = torch.arange(80) < torch.tensor([80 - 16 * row for row in range(rows)])[:, None]
    return {"input_features": sounding(rows, 80, 16), "input_features_mask": mask}, [24] * rows


def voxtral_realtime(attention: str | None) -> Any:
    encoder = {
        "num_mel_bins": MELS, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 16, "vocab_size": VOCAB,
    }  # fmt: skip
    text = {**TEXT, "head_dim": 8, "sliding_window": 64}
    return seeded(
        lambda: VoxtralRealtimeForConditionalGeneration(
            configured(VoxtralRealtimeConfig(audio_config=encoder, text_config=text), attention)
        )
    )


def kyutai(attention: str | None) -> Any:
    return seeded(
        lambda: KyutaiSpeechToTextForConditionalGeneration(
            configured(
                KyutaiSpeechToTextConfig(
                    vocab_size=VOCAB, codebook_vocab_size=32, hidden_size=32, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=8, ffn_dim=64, num_codebooks=4,
                    max_position_embeddings=128, sliding_window=64, audio_bos_token_id=31,
                    audio_pad_token_id=32, pad_token_id=3, bos_token_id=1,
                    codec_config={
                        "model_type": "mimi", "hidden_size": 16, "num_hidden_layers": 1,
                        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
                        "intermediate_size": 16, "num_filters": 4,
                        "codebook_dim": 8, "codebook_size": 32, "vector_quantization_hidden_dimension": 8,
                        "num_quantizers": 4, "num_semantic_quantizers": 1,
                        "upsampling_ratios": [8, 6, 5, 4], "upsample_groups": 16,
                    },
                ),
                attention,
            )
        )
    )  # fmt: skip
