"""The canary counts in steps of the number format: it finds faults, and rounding of large logits is none."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ModelError
from mata_interp.interventions import Mata
from mata_interp.sweeps import SweepWarning, shared_prefill
from mata_interp.sweeps.canary import STEPS, Rounding, token_counts
from mata_interp.sweeps.rounding_noise import FACTOR, _moved_by_a_step, logits_with_rounding
from tests.tiny import tiny_qwen2_audio

from .test_sweep import CONFIGURATIONS, ITEMS, looped

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("dtype", "size", "step"),
    [
        (torch.bfloat16, 38.0, 0.25),
        (torch.bfloat16, 64.0, 0.5),
        (torch.float16, 38.0, 2.0**-5),
        (torch.float32, 38.0, 2.0**-18),
        (torch.bfloat16, 0.01, 2.0**-7),
    ],
)
def test_a_step_is_the_distance_to_the_next_number(dtype, size, step):
    steps = Rounding.at(dtype, np.array([[0.5 * size, -size]])).step
    assert steps == [step]
    if size >= 1:
        value = torch.tensor(size, dtype=dtype)
        assert float(torch.nextafter(value, torch.tensor(torch.inf, dtype=dtype)) - value) == step


def test_differences_in_steps():
    rounding = Rounding(torch.bfloat16, np.array([0.25, 0.5]))
    logits = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rounding.of_logits(logits + np.array([[0, 1], [0, -1]]), logits).tolist() == [4, 2]
    plain = np.array([[-1.0, -2.0], [-3.0, np.nan]])
    tokens = token_counts([[[5], [6, 7]], [[8, 9, 10]]], plain.shape)
    moved = plain + np.array([[0.25, 1.0], [0.75, 0]])
    assert tokens.tolist() == [[1, 2], [3, 0]]
    assert rounding.of_options(moved, plain, tokens).tolist() == [2, 0.5]
    broken = np.array([[np.nan, -2.0], [-3.0, np.nan]])
    assert np.isnan(rounding.of_options(broken, plain, tokens)).tolist() == [True, False]
    assert rounding.of_options(np.zeros((2, 0)), np.zeros((2, 0)), np.zeros((2, 0))).tolist() == [0, 0]


def large_logits(dtype: torch.dtype, size: float = 40.0) -> mi.LALM:
    """A model whose largest logit is about ``size``."""
    model, processor = tiny_qwen2_audio(seed=3)
    lalm = mi.LALM(model, processor)
    largest = float(lalm.logits(lalm.prompt(ITEMS)).abs().max())
    with torch.no_grad():
        model.lm_head.weight.mul_(size / largest)
    return mi.LALM(model.to(dtype), processor)


def test_rounding_of_large_logits_is_no_fault(monkeypatch):
    """Log p near 0 of logits near 40 may be off by more than a twentieth of itself in bfloat16: by a step."""
    lalm = large_logits(torch.bfloat16)
    items = [replace(item, choices=("r", "("), answer="r") for item in ITEMS]
    plain = looped(lalm, items, {"baseline": None})
    assert 0.05 * np.abs(plain).clip(1).min() < 0.24
    right = shared_prefill._options

    def rounded(reading, hidden, answers):
        swept = right(reading, hidden, answers)
        swept[:, 0] -= 0.24
        return swept

    monkeypatch.setattr(shared_prefill, "_options", rounded)
    swept = mi.sweep(lalm, items, [None, Mata(1.0, [1])], progress=False)
    assert swept.attrs["looped"] == 0
    assert 0.9 < swept.attrs["canary"] < STEPS[torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [4.0, 40.0])
def test_rows_that_are_mixed_are_found(dtype, size):
    lalm = large_logits(dtype, size)
    assert mi.sweep(lalm, ITEMS, CONFIGURATIONS, progress=False).attrs["looped"] == 0
    layer = lalm.structure.decoder.layers[2]
    handle = layer.register_forward_hook(lambda m, args, out: out + 0.2 * out.mean(-2, keepdim=True))
    try:
        with pytest.warns(SweepWarning, match="steps of"):
            swept = mi.sweep(lalm, ITEMS, CONFIGURATIONS, progress=False)
        assert swept.attrs["looped"] == len(ITEMS)
        np.testing.assert_array_equal(swept.values, looped(lalm, ITEMS, CONFIGURATIONS))
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_options_scored_on_a_wrong_token_are_found(dtype, monkeypatch):
    """Logits of the next token are right, and each option's log p is read one slot too early."""
    lalm = large_logits(dtype)
    right = shared_prefill._options

    def wrong(reading, hidden, answers):
        return right(reading, hidden.roll(1, 2), answers)

    monkeypatch.setattr(shared_prefill, "_options", wrong)
    with pytest.warns(SweepWarning, match="after the last layer"):
        swept = mi.sweep(lalm, ITEMS, [Mata(1.0, [1])], progress=False)
    assert swept.attrs["looped"] == len(ITEMS)


def with_rounding(lalm, prompt):
    """Logits of a whole forward pass under rounding: the reference for those of one row."""
    return logits_with_rounding(lalm, lambda: lalm.logits(prompt).float().numpy())


def test_rounding_that_layers_amplify_is_no_fault(monkeypatch):
    """An unedited row that is further off than the fixed bound, but as close as rounding allows."""
    lalm = large_logits(torch.bfloat16)
    prompt = lalm.prompt(ITEMS)
    plain = lalm.logits(prompt).float().numpy()
    noise = Rounding.at(lalm.dtype, plain).of_logits(with_rounding(lalm, prompt), plain)
    monkeypatch.setitem(STEPS, torch.bfloat16, 1e-3)
    assert (noise > STEPS[torch.bfloat16]).all()
    result = mi.sweep(lalm, ITEMS, CONFIGURATIONS, progress=False)
    assert result.attrs["looped"] == 0
    assert STEPS[torch.bfloat16] < result.attrs["canary"] <= FACTOR * noise.max()


def test_measured_rounding_is_a_step_a_layer():
    """The input of a layer moves by one step of its dtype, and the model is left as it was."""
    states = torch.tensor([[1.0, -3.0, 0.0, 100.0]] * 50, dtype=torch.bfloat16)
    moved = _moved_by_a_step(states, np.random.default_rng(0))
    steps = (moved.double() - states.double()).abs() / (states.double().abs() * 2.0**-7).clamp(min=1e-30)
    assert ((steps[:, [0, 1, 3]] > 0.4) & (steps[:, [0, 1, 3]] < 1.5)).all()
    assert (moved[:, 2] == 0).all()
    lalm = large_logits(torch.float32)
    before, plain = lalm.fingerprint(), lalm.logits(lalm.prompt(ITEMS))
    moved = torch.from_numpy(with_rounding(lalm, lalm.prompt(ITEMS)))
    assert 0 < (moved - plain).abs().max() < 1e-3
    assert lalm.fingerprint() == before
    assert torch.equal(lalm.logits(lalm.prompt(ITEMS)), plain)


def test_a_loop_is_announced_before_it_runs(monkeypatch):
    lalm = large_logits(torch.float32)

    def refuse(*args, **kwargs):
        raise ModelError("rows cannot run here.")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    module = importlib.import_module("mata_interp.sweeps.run_sweep")
    monkeypatch.setattr(module, "shared", refuse)
    monkeypatch.setattr(module, "_loop", interrupt)
    warning = rf"cannot run here\. .* {len(CONFIGURATIONS)} configurations"
    with pytest.warns(SweepWarning, match=warning), pytest.raises(KeyboardInterrupt):
        mi.sweep(lalm, ITEMS, CONFIGURATIONS, progress=False)
