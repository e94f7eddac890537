"""The model of the true shape, small: it is loaded like a download, and every stage is measured."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

import mata_interp as mi
from tests.support.analyses import import_analysis


def test_shards_and_stages(tmp_path, monkeypatch):
    size = import_analysis("support.shape_of_qwen2_audio")
    script = import_analysis("real_size")
    whole = size.shape

    def small(layers: int, audio_token: int):
        config = whole(layers, audio_token)
        for name, value in {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}.items():
            setattr(config.text_config, name, value)
        config.text_config.num_key_value_heads, config.text_config.vocab_size = 4, 4096
        for name, value in {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 32}.items():
            setattr(config.audio_config, name, value)
        config.audio_config.encoder_attention_heads = 4
        return config

    monkeypatch.setattr(size, "shape", small)
    monkeypatch.setattr(size, "SHARD_BYTES", 200_000)
    size.build(tmp_path / "model", layers=2)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2
    assert {path.name for path in (tmp_path / "model").glob("*.safetensors")} == files
    sizes = [sum(2 * w.numel() for w in load_file(tmp_path / "model" / name).values()) for name in files]
    assert sum(sizes) == index["metadata"]["total_size"]
    lalm = mi.LALM.from_pretrained(tmp_path / "model")
    assert (lalm.dtype, lalm.num_layers) == (torch.bfloat16, 2)
    prompt = lalm.prompt(script.question())
    assert int(prompt.groups["audio"].sum()) == 750  # 30 s
    result = script.measured(tmp_path, "trace")
    assert result["ratio"] > 0
    assert result["peak_bytes"] >= result["peak_of_plain_forward"]
