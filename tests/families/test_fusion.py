"""Criteria of fusion on every family: suffix runs equal the model, and refusals give their reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mata_interp import Mata
from mata_interp.errors import ModelError
from mata_interp.fusion.criteria import CRITERIA, attribution, knockout, restoration
from mata_interp.fusion.item_context import Decision, ItemContext
from mata_interp.lalm.discovery.audio_positions import audio_input_names

RIGHT, WRONG = 40, 41
NO_SUM = {"granite_speech", "granite_speech_plus", "gemma3n", "gemma4", "gemma4_unified"}
"""Families in which more than a projection stands between attention and residual stream."""

SHARING = {"gemma3n", "gemma4"}
"""Families whose layers share keys and values."""


def margin(built, prompt, *parts) -> float:
    logits = built.lalm.logits(prompt, parts)[0].double()
    return float(logits[RIGHT] - logits[WRONG])


@pytest.fixture
def other(built):
    """The same prompt with other audio."""
    inputs = dict(built.alone.inputs)
    noise = torch.Generator().manual_seed(5)
    for name in audio_input_names(inputs):
        x = inputs[name]
        inputs[name] = x + torch.randn(x.shape, generator=noise) if x.is_floating_point() else x.flip(1)
    return replace(built.alone, inputs=inputs)


@pytest.fixture
def context(built, other, verified) -> ItemContext:
    if built.family.states:
        with pytest.raises(ModelError, match="keys and values"):
            ItemContext(built.lalm, built.alone, Decision(RIGHT, WRONG), other)
        verified(built, "layers", "refused: some layers keep a state")
        pytest.skip(f"{built.family.name} is refused: its layers keep a recurrent state")
    if "linear" in built.lalm.structure.kinds:
        with pytest.raises(ModelError):
            ItemContext(built.lalm, built.alone, Decision(RIGHT, WRONG), other)
        verified(built, "layers", "refused: some layers keep a state")
        pytest.skip(f"{built.family.name} is refused: not all layers have keys and values")
    return ItemContext(built.lalm, built.alone, Decision(RIGHT, WRONG), other)


def test_suffix_runs_equal_the_model(built, context, verified):
    plain = margin(built, built.alone)
    alone = ItemContext(built.lalm, built.alone, Decision(RIGHT, WRONG), last_token_only=True)
    assert len(alone.last_token_trace.states[0]) == 1
    assert alone.last_token_trace.margin == pytest.approx(plain, abs=1e-4)
    assert context.suffix_trace.margin == pytest.approx(plain, abs=1e-4)
    hidden = margin(built, built.alone, Mata(1.0, context.layers, "knockout", queries="text"))
    assert knockout.costs(context, "text")["order"].sum() == pytest.approx(plain - hidden, abs=1e-4)
    for name in ("saliency_text", "saliency_last", "lens_audio", "deficit"):
        assert np.isfinite(CRITERIA[name].measure(context)).all()
    verified(built, "layers")


def test_restoration_starts_and_ends_at_clean_and_corrupted_runs(built, context, other):
    if built.family.name in SHARING:
        with pytest.raises(ModelError, match="every layer"):
            restoration.margins(context)
        return
    result = restoration.margins(context)
    clean, corrupted = margin(built, built.alone), margin(built, other)
    for kind, ends in {"restored audio": (clean, corrupted), "corrupted audio": (corrupted, clean)}.items():
        np.testing.assert_allclose(result[kind][[0, -1]], ends, atol=1e-4)
    for kind in ("restored text", "restored last"):
        np.testing.assert_allclose(result[kind][[0, -1]], (corrupted, clean), atol=1e-4)


def test_attribution_adds_up_to_the_margin_or_is_refused(built, context):
    if built.family.name in NO_SUM:
        with pytest.raises(ModelError, match=r"follows the (attention|output head)"):
            attribution.head_attributions(context)
        return
    parts = attribution.decomposition(context)
    total = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert total == pytest.approx(parts["margin"], abs=1e-3)
