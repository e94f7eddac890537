"""Models whose weights accelerate keeps on the CPU or on disk: they are on meta until a forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload

import mata_interp as mi
from mata_interp.lalm import LALM
from mata_interp.lalm.fingerprint import weights_sha256
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=2)[::2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model. (This family cannot be saved with its embedding as output head.)"""
    model, processor = tiny_qwen2_audio(seed=0)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def from_disk(folder, tmp_path) -> LALM:
    layers = {f"model.language_model.layers.{layer}": ("cpu", "disk")[layer % 2] for layer in range(4)}
    on_disk = {f"model.language_model.{name}": "disk" for name in ("embed_tokens", "norm", "rotary_emb")}
    # this family's encoder asks its own weights for their device, so that transformers cannot offload it
    places = {"model.audio_tower": "cpu", "model.multi_modal_projector": "disk", "lm_head": "disk"}
    return LALM.from_pretrained(folder, device_map=layers | on_disk | places)


def to_cpu(folder, tmp_path) -> LALM:
    lalm = LALM.from_pretrained(folder, device_map="cpu")
    cpu_offload(lalm.structure.decoder, torch.device("cpu"))
    return lalm


def to_disk(folder, tmp_path) -> LALM:
    lalm = LALM.from_pretrained(folder, device_map="cpu")
    disk_offload(lalm.structure.decoder, tmp_path, torch.device("cpu"))
    return lalm


@pytest.mark.parametrize("offload", [from_disk, to_cpu, to_disk])
def test_an_offloaded_model_is_the_same_model(folder, tmp_path, items, offload):
    whole = LALM.from_pretrained(folder, device_map="cpu")
    lalm = offload(folder, tmp_path)
    assert any(weight.is_meta for weight in lalm.model.parameters())
    assert lalm.device == torch.device("cpu")
    expected, result = whole.fingerprint(), lalm.fingerprint()
    assert result == expected
    traced = [mi.trace(one, items, progress=False) for one in (whole, lalm)]
    np.testing.assert_array_equal(traced[1]["mass"], traced[0]["mass"])
    edits = {"none": None, "mata": mi.Mata(1.0, [1, 2])}
    swept = [mi.sweep(one, items, edits, progress=False).values for one in (whole, lalm)]
    np.testing.assert_array_equal(swept[1], swept[0])
    criteria = ["attribution", "saliency_last", "lens_last"]
    assert mi.fusion_layers(lalm, items[:1], criteria=criteria, progress=False).refused == {}


def test_another_weight_on_disk_is_another_model(folder, tmp_path):
    lalm = LALM.from_pretrained(folder, device_map="cpu")
    before = weights_sha256(lalm.model)
    with torch.no_grad():
        lalm.structure.blocks[2].mlp.up_proj.weight[0, 0] += 1e-3
    disk_offload(lalm.model, tmp_path, torch.device("cpu"))
    assert weights_sha256(lalm.model) != before
