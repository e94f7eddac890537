"""A Qwen2-Audio of medium size with random weights: measuring costs needs no trained model.

It has 12 decoder layers of width 512 with 8 query and 4 key heads. The audio encoder is small, with the rate
of the released model, 25 tokens a second, and its limit of 30 s. Nothing is downloaded.
"""

from __future__ import annotations

import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

import mata_interp as mi

__all__ = ["CLIP_TOKENS", "RATE", "ask", "medium_lalm"]

RATE = 25  # audio tokens a second
CLIP_SECONDS = 30
CLIP_TOKENS = RATE * CLIP_SECONDS
MELS, FRAMES = 32, 100 * CLIP_SECONDS  # of a clip's spectrogram
AUDIO, BEGIN, END, FIRST_WORD, VOCABULARY = 0, 1, 2, 3, 2048


def medium_lalm(attention: str | None = None, longest: int = 32_768) -> mi.LALM:
    """The model; its weights are the same in every call.

    Args:
        attention: ``attn_implementation`` of transformers; SDPA if omitted.
        longest: number of positions of the decoder.
    """
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": MELS,
            "d_model": 64,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 128,
            "max_source_positions": FRAMES // 2,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": VOCABULARY,
            "hidden_size": 512,
            "intermediate_size": 1408,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": longest,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        audio_token_index=AUDIO,
    )
    if attention is not None:
        config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2AudioForConditionalGeneration(config).eval()
    return mi.LALM(model, name="medium")


def ask(lalm: mi.LALM, audio_seconds: float, words: int = 48) -> mi.Prompt:
    """One prompt: a word, clips of noise of up to 30 s between their markers, and a question.

    Args:
        lalm: the model.
        audio_seconds: length of all clips together; 25 audio tokens a second.
        words: number of tokens of the question.
    """
    draw = torch.Generator().manual_seed(1)
    left, tokens, lengths = round(audio_seconds * RATE), [FIRST_WORD], []
    while left > 0:
        lengths.append(min(left, CLIP_TOKENS))
        tokens += [BEGIN, *[AUDIO] * lengths[-1], END]
        left -= lengths[-1]
    tokens += torch.randint(FIRST_WORD, VOCABULARY, (words,), generator=draw).tolist()
    frames = 4 * torch.tensor(lengths)  # the encoder halves them twice
    return lalm.prompt_from_inputs(
        {
            "input_ids": torch.tensor([tokens]),
            "attention_mask": torch.ones(1, len(tokens), dtype=torch.long),
            "input_features": torch.randn(len(lengths), MELS, FRAMES, generator=draw),
            "feature_attention_mask": (torch.arange(FRAMES) < frames[:, None]).long(),
        },
    )
