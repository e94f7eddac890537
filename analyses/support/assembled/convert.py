"""A stock Qwen2-Audio model of pretrained parts: Whisper's base encoder and SmolLM2-135M-Instruct."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from mata_interp.errors import MataError

from .clips import SECONDS
from .ctranslate2 import whisper_encoder_weights

__all__ = ["AUDIO_TOKENS", "convert", "require_gguf"]

ENCODER_FRAMES = SECONDS * 50  # Whisper's convolutions leave 50 frames per second
AUDIO_TOKENS = ENCODER_FRAMES // 2  # Qwen2-Audio's encoder averages pairs of frames
HEAD_WIDTH = 64
SPECIAL_TOKENS = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' or 'audio' in part or 'audio_url' in part %}"
    "Audio: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def require_gguf() -> None:
    """Raise `MataError` unless the package gguf, with which transformers reads GGUF files, is installed."""
    if find_spec("gguf") is None:
        raise MataError(
            "The package gguf, which reads the decoder's weights, is not installed. Install it with "
            "`pip install 'gguf>=0.19'` (or mata-interp's extra: `pip install 'mata-interp[assembled]'`)."
        )


def convert(encoder_bin: Path, decoder_gguf: Path, folder: Path) -> None:
    """Write model and processor of the assembled model, its projector at random, to ``folder``.

    The decoder's matrices are dequantised to float32 and stored so. Qwen2-Audio's class has no tied output
    head, so the head is a copy of the embeddings.

    Args:
        encoder_bin: a CTranslate2 Whisper.
        decoder_gguf: SmolLM2-135M-Instruct.
        folder: written as `save_pretrained` writes it.
    """
    require_gguf()
    source = {"gguf_file": decoder_gguf.name}
    tokenizer = _tokenizer(decoder_gguf.parent, source)
    decoder: Any = AutoModelForCausalLM.from_pretrained(decoder_gguf.parent, dtype=torch.float32, **source)
    torch.manual_seed(0)  # resize_token_embeddings draws the new rows around the mean of the old ones
    decoder.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    encoder = whisper_encoder_weights(encoder_bin)
    encoder["embed_positions.weight"] = encoder["embed_positions.weight"][:ENCODER_FRAMES]
    model = _empty_model(encoder, decoder.config, tokenizer)
    model.model.audio_tower.load_state_dict(encoder)
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.lm_head.load_state_dict({"weight": decoder.lm_head.weight.data})
    model.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=SECONDS)
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE).save_pretrained(folder)


def _tokenizer(folder: Path, source: dict[str, str]) -> PreTrainedTokenizerFast:
    """SmolLM2's tokenizer with three tokens more, which mark the audio."""
    plain = AutoTokenizer.from_pretrained(folder, **source)
    return PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens=SPECIAL_TOKENS,
    )


def _empty_model(
    encoder: dict[str, Tensor], text_config: Any, tokenizer: PreTrainedTokenizerFast
) -> Qwen2AudioForConditionalGeneration:
    """A Qwen2-Audio of the parts' shapes with fresh weights."""
    if hasattr(text_config, "quantization_config"):
        del text_config.quantization_config  # the weights are no longer quantised
    text_config.tie_word_embeddings = False
    width = encoder["layer_norm.weight"].numel()
    token_settings: dict[str, Any] = {
        "audio_token_index": tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS["audio_token"]),
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=80,
            d_model=width,
            encoder_layers=sum(name.endswith("fc1.bias") for name in encoder),
            encoder_attention_heads=width // HEAD_WIDTH,
            encoder_ffn_dim=4 * width,
            max_source_positions=ENCODER_FRAMES,
        ),
        text_config=text_config,
        **token_settings,
    )
    return Qwen2AudioForConditionalGeneration(config).eval()
