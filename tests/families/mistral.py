"""Mistral's tokens without a download: a tekken.json of 256 bytes and the control tokens that Voxtral has."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import transformers
from transformers.utils.import_utils import MISTRAL_COMMON_MIN_VERSION, is_mistral_common_available

from .family import VOCAB, seeded
from .whispers import MELS, TEXT, configured

__all__ = ["HEARD", "MISSING", "tekken", "voxtral", "voxtral_processor"]

MISSING = (
    ""
    if is_mistral_common_available()
    else f"its tokens need mistral-common {MISTRAL_COMMON_MIN_VERSION} or later"
)
"""Why there is no Voxtral processor here: transformers passes over an older mistral-common in silence."""

NAMES = """
    <unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS]
    [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT]
    [/SYSTEM_PROMPT] [TOOL_CONTENT] [ARGS] [CALL_ID] <22> <23> [AUDIO] [BEGIN_AUDIO]
    <26> <27> <28> <29> <30> <31> <32> <33> [TRANSCRIBE]
"""
HEARD = 24  # [AUDIO] in every Voxtral: its processor has the number written into it
SPECIAL = 64  # ids before the bytes
PATTERN = r"\s?\p{L}+|\s?\p{N}|\s?[^\s\p{L}\p{N}]+|\s+"


def tekken(folder: Path) -> Path:
    """Write the file; 30 s of sound are 375 tokens."""
    written = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": 256,
            "default_vocab_size": 256 + SPECIAL,
            "default_num_special_tokens": SPECIAL,
            "version": "v11",
        },
        "vocab": [
            {"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode(), "token_str": None}
            for byte in range(256)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(NAMES.split())
        ],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "chunk_length_s": 30.0,
            "audio_encoding_config": {"num_mel_bins": MELS, "hop_length": 160, "window_size": 400},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tekken.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


def voxtral(attention: str | None, audio: int = HEARD, text: dict[str, Any] | None = None) -> Any:
    """A tiny model whose encoder takes chunks of 30 s, as the processor makes them."""
    encoder = {
        "model_type": "voxtral_encoder", "num_mel_bins": MELS, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 64, "max_source_positions": 1500, "vocab_size": VOCAB,
    }  # fmt: skip
    text = text or {"model_type": "llama", **TEXT, "head_dim": 8}
    config = transformers.VoxtralConfig(audio_config=encoder, text_config=text, audio_token_id=audio)
    return seeded(lambda: transformers.VoxtralForConditionalGeneration(configured(config, attention)))


def voxtral_processor(folder: Path, tokenizer: Any = None) -> Any:
    """The real one, over the file in ``folder`` or over another tokenizer."""
    if tokenizer is None:
        from transformers.tokenization_mistral_common import MistralCommonBackend

        tokenizer = MistralCommonBackend.from_pretrained(folder)
    features = transformers.WhisperFeatureExtractor(feature_size=MELS, sampling_rate=16_000)
    return transformers.VoxtralProcessor(features, tokenizer)
