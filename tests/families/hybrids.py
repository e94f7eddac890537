"""Decoders of which only some layers have attention; the others mix tokens by a state, or not at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    NemotronH_Omni_Reasoning_V3,
    NemotronH_Omni_Reasoning_V3_Config,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from .conformers import granite_of
from .family import AUDIO, seeded, sounding
from .whispers import FLAMINGO, MELS, TEXT, VOXTRAL, configured, eighth

EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}


def nemotron_h_omni(attention: str | None) -> Any:
    """Mamba 2, attention, experts and plain layers, each a layer by itself; no cache in the last two."""
    mixed = ("linear_attention", "full_attention", "moe", "full_attention", "linear_attention", "mlp")
    return nemotron_of((*mixed, "full_attention"), attention)


def nemotron_of(layers: tuple[str, ...], attention: str | None) -> Any:
    text = {
        "model_type": "nemotron_h", **TEXT, **EXPERTS, "head_dim": 8, "bos_token_id": 1,
        "layers_block_type": list(layers),
        "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 16,
        "n_routed_experts": 4, "moe_shared_expert_intermediate_size": 16,
    }  # fmt: skip
    text.pop("num_hidden_layers")
    audio = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "subsampling_conv_channels": 8, "num_mel_bins": MELS, "conv_kernel_size": 3,
        "projection_hidden_size": 16, "projection_bias": False,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": 32, "patch_size": 16, "video_temporal_patch_size": 2,
    }  # fmt: skip
    return seeded(
        lambda: NemotronH_Omni_Reasoning_V3(
            configured(
                NemotronH_Omni_Reasoning_V3_Config(
                    text_config=text, audio_config=audio, vision_config=vision, vision_hidden_size=16,
                    projector_hidden_size=16, audio_token_id=AUDIO, image_token_id=261,
                ),
                attention,
            )
        )
    )  # fmt: skip


def nemotron_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    lengths = torch.tensor([95 - 16 * row for row in range(rows)])
    mask = torch.arange(96) < lengths[:, None]
    held = {"input_features": sounding(rows, 96, MELS), "input_features_mask": mask}
    return held, [eighth(int(n) + 1) for n in lengths]


LAYERS = [0, 1, 0, 1, 1]  # which of five have attention


def _kinds(other: str, attention: str = "full_attention") -> list[str]:
    return [attention if one else other for one in LAYERS]


def granite_hybrid(attention: str | None) -> Any:
    """Mamba 2 between attention, experts behind both."""
    text = {
        "model_type": "granitemoehybrid", **TEXT, "num_hidden_layers": 5,
        "layer_types": _kinds("mamba", "attention"), "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 16, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8,
        "mamba_n_groups": 1, "mamba_chunk_size": 16, "attention_multiplier": 0.05,
        "position_embedding_type": "rope",
    }  # fmt: skip
    return granite_of(text, attention)


def flamingo_delta(attention: str | None) -> Any:
    """Gated delta rule between attention whose output is gated; experts behind both."""
    text = {
        "model_type": "qwen3_next", **TEXT, **EXPERTS, "num_hidden_layers": 5,
        "layer_types": _kinds("linear_attention"), "head_dim": 8, "num_experts": 4,
        "shared_expert_intermediate_size": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    }  # fmt: skip
    settings = {"audio_config": FLAMINGO, "text_config": text, "audio_token_id": AUDIO}
    return seeded(
        lambda: AudioFlamingo3ForConditionalGeneration(
            configured(AudioFlamingo3Config(**settings), attention)
        )
    )


LFM2: dict[str, Any] = {
    "model_type": "lfm2", **TEXT, "num_hidden_layers": 5, "layer_types": _kinds("conv"),
    "block_auto_adjust_ff_dim": False,
}  # fmt: skip


def voxtral_convolving(attention: str | None) -> Any:
    """Short convolutions between attention."""
    settings = {"audio_config": VOXTRAL, "text_config": LFM2, "audio_token_id": AUDIO}
    return seeded(lambda: VoxtralForConditionalGeneration(configured(VoxtralConfig(**settings), attention)))
