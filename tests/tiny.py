"""A tiny Qwen2-Audio with random weights and its real processor: real classes, real code paths, no download.

Every room's tests build on it::

    from tests.tiny import tiny_qwen2_audio
    model, processor = tiny_qwen2_audio(seed=0)
"""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

RATE = 16_000
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]


def tiny_processor(chunk_length: int = 1, hop_length: int = 160) -> Qwen2AudioProcessor:
    """Whisper features of ``chunk_length`` seconds and a byte-level BPE of 256 bytes without merges."""
    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytes_only = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens={
            "audio_token": "<|AUDIO|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
    )
    features = WhisperFeatureExtractor(
        feature_size=32, sampling_rate=RATE, hop_length=hop_length, chunk_length=chunk_length
    )
    return Qwen2AudioProcessor(features, tokenizer)


def tiny_qwen2_audio(  # noqa: PLR0913 one keyword per size of the model
    seed: int = 0,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 8,
    encoder_layers: int = 1,
    chunk_length: int = 1,
    hop_length: int = 160,
    sharpness: float = 12.0,
    attention: str | None = None,
) -> tuple[Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor]:
    """A seeded model in eval mode and its processor.

    Args:
        sharpness: factor on the query and key weights of the decoder. Freshly drawn weights attend almost
            evenly, so that no edit of the scores would show; sharpened ones make a wrong edit visible.
        attention: ``attn_implementation``; None takes the default (SDPA).
    """
    processor = tiny_processor(chunk_length, hop_length)
    tokenizer = processor.tokenizer
    hidden = heads * head_dim
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 32,
            "d_model": 16,
            "encoder_layers": encoder_layers,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            # the encoder wants exactly the frames of one chunk: conv stride 2, then positions
            "max_source_positions": chunk_length * RATE // hop_length // 2,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 2048,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    if attention is not None:
        config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 1 and "norm" not in name:
                    parameter.normal_(std=0.1)  # biases start at zero: as if there were none
                elif "layer" not in name or ".mlp." in name or ".v_proj" in name or ".o_proj" in name:
                    parameter.mul_(5.0)  # at the initial 0.02 the residual stream ignores attention
                if "language_model" in name and (".q_proj.weight" in name or ".k_proj.weight" in name):
                    parameter.mul_(sharpness)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, processor
