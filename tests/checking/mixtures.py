"""A mixture of experts with a processor: the encoder of Audio Flamingo and the experts of Qwen 3."""

from __future__ import annotations

import torch
from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

from mata_interp.lalm import LALM
from tests.families.all_processors import PROCESSORS
from tests.families.family import AUDIO, seeded
from tests.families.whispers import FLAMINGO, TEXT, configured


def mixture(dtype: torch.dtype = torch.bfloat16, experts: int = 8) -> LALM:
    """Four layers, each with three of eight experts per token."""
    text = {
        "model_type": "qwen3_moe", **TEXT, "num_hidden_layers": 4, "head_dim": 8, "num_experts": experts,
        "num_experts_per_tok": 3, "moe_intermediate_size": 16,
    }  # fmt: skip
    config = AudioFlamingo3Config(audio_config=FLAMINGO, text_config=text, audio_token_id=AUDIO)
    model = seeded(lambda: AudioFlamingo3ForConditionalGeneration(configured(config, None)))
    return LALM(model.to(dtype), PROCESSORS["audioflamingo3"]())
