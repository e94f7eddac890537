"""Families whose audio enters as whole numbers: codes of a codec, or of a quantised spectrogram."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    HiggsAudioV2Config,
    HiggsAudioV2ForConditionalGeneration,
    InklingConfig,
    InklingForConditionalGeneration,
)

from .family import AUDIO, PAD, VOCAB, seeded
from .whispers import MELS, TEXT, configured

BINS = 16  # values of a code


def codes(rows: int, frames: int, books: int) -> Tensor:
    """Codes [rows, frames, books] from 0 to BINS - 1."""
    drawn = torch.Generator().manual_seed(5)
    return torch.randint(0, BINS, (rows, frames, books), generator=drawn, dtype=torch.int32)


def inkling(attention: str | None) -> Any:
    """Quantised spectrograms; attention with a relative bias, sliding in some layers, and convolutions."""
    text = {
        **TEXT, "num_hidden_layers": 3, "head_dim": 8, "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2, "swa_head_dim": 8, "sliding_window_size": 12, "d_rel": 4,
        "rel_extent": 32, "local_layer_ids": [0, 2], "mlp_layer_types": ["dense", "sparse", "sparse"],
        "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
        "logits_mup_width_multiplier": 1.0, "route_scale": 1.0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 4,
        "temporal_patch_size": 2,
    }  # fmt: skip
    return seeded(
        lambda: InklingForConditionalGeneration(
            configured(
                InklingConfig(
                    text_config=text, audio_config={"n_mel_bins": MELS, "mel_vocab_size": BINS},
                    vision_config=vision, audio_token_id=AUDIO, audio_bos_token_id=259, image_token_id=261,
                    image_bos_token_id=262,
                ),
                attention,
            )
        ),
        normed_sharpness=4.0,
    )  # fmt: skip


def inkling_sound(rows: int) -> tuple[dict[str, Tensor], list[int]]:
    """A token for each frame of a clip; the mask leaves out padding."""
    counts = [20 - 5 * row for row in range(rows)]
    mask = torch.arange(20) < torch.tensor(counts)[:, None]
    return {"audio_input_ids": codes(rows, 20, MELS), "audio_input_ids_mask": mask}, counts


def higgs(attention: str | None) -> Any:
    """Codes of eight books in a decoder with weights of their own for audio; it answers in codes."""
    text = {name: value for name, value in TEXT.items() if name != "bos_token_id"}
    config = HiggsAudioV2Config(
        **text, head_dim=8, num_codebooks=4, codebook_size=BINS, audio_token_id=AUDIO,
        audio_bos_token_id=259, audio_delay_token_id=260, audio_stream_bos_id=0, audio_stream_eos_id=1,
        bos_token_id=1,
    )  # fmt: skip
    model = HiggsAudioV2ForConditionalGeneration(configured(config, attention)).eval()
    assert (config.vocab_size, config.pad_token_id) == (VOCAB, PAD)
    return model


def higgs_inputs() -> dict[str, Tensor]:
    """Two prompts, the second padded, of twelve and nine frames."""
    ids = torch.full((2, 24), 65)
    ids[:, 4:16] = AUDIO
    ids[1, :3] = PAD
    ids[1, 13:16] = 66
    frames = torch.arange(12) < torch.tensor([12, 9])[:, None]
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "audio_input_ids": codes(2, 12, 4).long(),
        "audio_input_ids_mask": frames,
    }
