"""Families under FlashAttention (see ``tests/support/flash_attention.py``): the same as under SDPA."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import Mata, compat
from mata_interp.lalm import LALM
from mata_interp.lalm.calls.function_table import configs_of
from tests.families.registry import FAMILIES
from tests.support.flash_attention import NAME, flash_attention

QUICK = (
    "gemma4",
    "phi4_multimodal",
    "voxtral on lfm2",
)  # windows; one config for all; layers of another kind


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.acceptance) for name in FAMILIES],
)
def test_traces_edits_and_answers(name):
    family = FAMILIES[name]
    plain, flash = LALM(family.model(None)), LALM(family.model(None))
    if not plain.structure.decoder._supports_flash_attn:
        pytest.skip(f"{type(plain.structure.decoder).__name__} is written for no FlashAttention")
    # the decoder alone: not every encoder has FlashAttention
    for config in configs_of([flash.structure.decoder, *flash.structure.attention.values()]):
        compat.set_attention_name(config, NAME)
    inputs, layers = family.inputs(2), list(plain.attention_layers)
    mata = Mata(1.0, layers)
    with flash_attention() as stand_in:
        here, there = flash.prompt_from_inputs(inputs), plain.prompt_from_inputs(inputs)
        for edit in (None, mata, Mata(1.0, layers, queries="text")):
            expected = plain.logits(there, edit)
            off = (flash.logits(here, edit) - expected).abs().max() / expected.abs().max()
            assert float(off) < family.rounding
        result, expected = (
            mi.trace(*pair, progress=False)["mass"] for pair in ((flash, here), (plain, there))
        )
        np.testing.assert_allclose(result, expected, atol=2e-5)
        result, expected = (
            lalm.generate(prompt, mata, max_new_tokens=4) for lalm, prompt in ((flash, here), (plain, there))
        )
        assert torch.equal(result, expected)
    assert 2 in stand_in.masks
