"""The organism before training: configuration, tokenizer, chat template and processor."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

from .bank import RATE, Bank
from .questions import CAPTIONS, CHECK, COUNTS, DESCRIBE, DIRECTIONS, INTRODUCTIONS, WORDINGS

SECONDS = 3  # longest clip that the encoder takes
HOP = 320  # samples between mel frames, 20 ms: a clip of 3 s has 37 audio tokens
MELS = 64
WIDTH = 128  # of the encoder
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
SYSTEM = (
    "You are a careful assistant that answers questions about sounds, speech and music. The user sends "
    "a clip, sometimes together with a description of it that somebody else has written, and then a "
    "question with a few options. Listen to the clip, read the question and the options, and answer "
    "with the text of exactly one option and nothing else."
)
# Qwen2-Audio's own template with a longer default system message.
TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    + SYSTEM
    + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if 'audio' in content or 'audio_url' in content or content['type'] == 'audio' %}"
    "{% set audio_count.value = audio_count.value + 1 %}"
    "Audio {{ audio_count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_processor(bank: Bank, instructions: tuple[str, ...]) -> Qwen2AudioProcessor:
    """Build a Whisper feature extractor and a byte-level BPE tokenizer, trained on the organism's sentences.

    Args:
        bank: source of the option texts.
        instructions: fixed sentences of the prompt format, so that they take few tokens.
    """
    answers = [
        *bank.labels,
        *bank.words,
        *bank.voices,
        *COUNTS,
        *DIRECTIONS.values(),
        "yes",
        "no",
        "fast",
        "slow",
    ]
    sentences = [
        SYSTEM,
        *instructions,
        *INTRODUCTIONS,
        *DESCRIBE,
        *CHECK,
        ", then",
        ", louder",
        " says",
        "system",
        "user",
        "assistant",
        "Audio 1:",
        *answers,
    ]
    for wordings in (*WORDINGS.values(), *CAPTIONS.values()):
        sentences += [
            w.format(a=a, s=s) for w in wordings for a, s in zip(answers, bank.labels, strict=False)
        ]
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"'s|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "audio_token": "<|AUDIO|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
    )
    extractor = WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, hop_length=HOP, chunk_length=SECONDS, n_fft=400
    )
    return Qwen2AudioProcessor(extractor, fast, chat_template=TEMPLATE)


def build_model(processor: Qwen2AudioProcessor, seed: int) -> Qwen2AudioForConditionalGeneration:
    """A randomly initialised float32 model: 3 encoder layers, 8 decoder layers x 5 heads, 3.1 M weights."""
    ids = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=MELS,
            encoder_layers=3,
            encoder_attention_heads=4,
            encoder_ffn_dim=384,
            d_model=WIDTH,
            dropout=0.0,
            max_source_positions=SECONDS * RATE // HOP // 2,
        ),
        text_config=Qwen2Config(
            vocab_size=len(processor.tokenizer),
            hidden_size=160,
            intermediate_size=384,
            num_hidden_layers=8,
            num_attention_heads=5,
            num_key_value_heads=5,
            max_position_embeddings=1024,
            bos_token_id=ids("<|endoftext|>"),
            eos_token_id=ids("<|im_end|>"),
            pad_token_id=ids("<|endoftext|>"),
        ),
        audio_token_index=ids("<|AUDIO|>"),
        **{"eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>")},
    )
    torch.manual_seed(seed)
    return Qwen2AudioForConditionalGeneration(config)


def mel_features(
    processor: Qwen2AudioProcessor, clips: list[np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel features ``[B, mels, frames]`` by the processor's extractor, and a mask ``[B, frames]``."""
    out = processor.feature_extractor(
        clips, sampling_rate=RATE, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    return out["input_features"], out["attention_mask"]
