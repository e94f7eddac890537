"""A model of the true shape of Qwen2-Audio-7B with random weights, written as sharded safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

import mata_interp as mi

__all__ = ["SECONDS", "build", "operations"]

SECONDS = 30.0  # of audio: 750 tokens
SHARD_BYTES = 2 * 10**9
SCALE = 0.02  # standard deviation of weights, that of the released config's initializer_range


def shape(layers: int, audio_token: int) -> Qwen2AudioConfig:
    """Sizes of the config of Qwen/Qwen2-Audio-7B-Instruct."""
    return Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "max_source_positions": 1500,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": 156_032,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": layers,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000,
        },
        audio_token_index=audio_token,
    )


def build(folder: Path, layers: int, seed: int = 0) -> None:
    """Write config, processor and weights; the weights are drawn and written shard by shard.

    Args:
        folder: a new folder.
        layers: number of decoder layers.
        seed: seed of the weights.
    """
    tokenizer = mi.LALM.from_pretrained("organism").processor.tokenizer
    config = shape(layers, tokenizer.convert_tokens_to_ids("<|AUDIO|>"))
    parts: tuple[Any, ...] = (config, config.text_config)
    for part in parts:
        part.eos_token_id, part.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.architectures, config.dtype = ["Qwen2AudioForConditionalGeneration"], torch.bfloat16
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(config)
    write_weights(folder, dict(model.state_dict()), seed)
    template = mi.LALM.from_pretrained("organism").processor.chat_template
    Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=128), tokenizer, chat_template=template
    ).save_pretrained(folder)
    config.save_pretrained(folder)  # last: the folder is complete


def write_weights(folder: Path, shapes: dict[str, torch.Tensor], seed: int) -> None:
    """Draw and write bfloat16 weights in shards with an index, as a download has them."""
    generator = torch.Generator().manual_seed(seed)
    shards: list[dict[str, torch.Tensor]] = [{}]
    places: dict[str, int] = {}
    size = total = 0
    for name, empty in shapes.items():
        bytes_ = 2 * empty.numel()
        if size + bytes_ > SHARD_BYTES and shards[-1]:
            save_file(shards[-1], folder / f"shard-{len(shards)}.safetensors", {"format": "pt"})
            shards[-1].clear()  # written: only the place is kept
            shards.append({})
            size = 0
        shards[-1][name] = drawn(name, empty.shape, generator)
        places[name] = len(shards)
        size, total = size + bytes_, total + bytes_
    save_file(shards[-1], folder / f"shard-{len(shards)}.safetensors", {"format": "pt"})
    names = {n: f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)}
    for number, name in names.items():
        (folder / f"shard-{number}.safetensors").rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {name: names[n] for name, n in places.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def drawn(name: str, size: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Random weights; norms are 1 and biases 0."""
    if len(size) == 1:
        value = 0.0 if name.endswith("bias") else 1.0
        return torch.full(size, value, dtype=torch.bfloat16)
    return torch.empty(size, dtype=torch.bfloat16).normal_(0.0, SCALE, generator=generator)


def operations(lalm: Any, tokens: int) -> float:
    """Floating-point operations of a forward pass: two for each parameter and token, encoder included once
    for each of its 1,500 frames."""
    decoder = sum(weight.numel() for weight in lalm.structure.decoder.parameters())
    named = lalm.model.named_parameters()
    encoder = sum(weight.numel() for name, weight in named if "audio_tower" in name)
    return 2.0 * (decoder * tokens + encoder * 1500)
