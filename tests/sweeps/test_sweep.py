"""A sweep equals the loop over `LALM.score` and `LALM.logits`, which share no row with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.interventions import Mata
from mata_interp.sweeps import sweep
from mata_interp.sweeps.shared import CANARY
from mata_interp.sweeps.sweep import SweepWarning
from tests.tiny import RATE, tiny_qwen2_audio

EDITS = [
    None,
    Mata(0.7, [1, 2]),
    Mata(0.7, [1, 2, 3]),
    Mata(0.7, [1, 2], rule="mul"),
    Mata(-0.4, [0], rule="add", heads=[1, 3]),
    Mata(1.5, [2, 3], heads={2: [0], 3: [1, 2]}),
    (Mata(1.0, [0]), Mata(0.5, [0, 3], keys="text")),
    (Mata(0.5, [0, 3], keys="text"), Mata(1.0, [0])),
    Mata(2.0, [1], phase="decode"),
    Mata(2.0, [1], phase="prefill"),
    (Mata(1.0, [1], phase="prefill"), Mata(2.0, [1, 2], phase="decode", keys="generated")),
    Mata(0.9, [3], keys="sink"),
]


def items():
    rng = np.random.default_rng(0)
    sounds = [(rng.normal(size=n).astype(np.float32) * 0.1, RATE) for n in (RATE, RATE // 2, RATE // 3)]
    asked = [("Which?", ["a dog", "a bell"]), ("What is it that is heard?", ["x", "rain", "the sea"])]
    return [
        mi.Item(audio=sound, question=asked[i % 2][0], choices=asked[i % 2][1], answer=asked[i % 2][1][0])
        for i, sound in enumerate(sounds)
    ]


def loop(lalm, asked):
    """[B, configurations, C], each item alone or in the batch given."""
    prompt = lalm.prompt(asked)
    choices = [item.choices for item in asked]
    return np.stack([lalm.score(prompt, choices, edit).logprob for edit in EDITS], 1)


@pytest.mark.parametrize("count", [1, 3])
def test_equals_the_loop(tiny_lalm, count):
    asked = items()[:count]
    found = sweep(tiny_lalm, asked, EDITS, progress=False)
    assert set(found["method"].values) == {"rows"}
    expected = loop(tiny_lalm, asked)
    assert np.nanmax(abs(expected - expected[:, :1])) > 0.1  # the edits show
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_logits_of_prompts_equal_the_loop(tiny_lalm):
    prompt = tiny_lalm.prompt(items())
    found = sweep(tiny_lalm, prompt, EDITS, progress=False)
    expected = np.stack([tiny_lalm.logits(prompt, edit).numpy() for edit in EDITS], 1)
    assert found.dims == ("item", "configuration", "vocab")
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_blocks_change_nothing(tiny_lalm, monkeypatch):
    whole = sweep(tiny_lalm, items(), EDITS, progress=False)
    monkeypatch.setattr("mata_interp.sweeps.shared.rows_that_fit", lambda *_: 5)
    np.testing.assert_allclose(sweep(tiny_lalm, items(), EDITS, progress=False), whole, atol=1e-5)


def test_bfloat16_is_as_near_to_exact_as_the_loop():
    model, processor = tiny_qwen2_audio(seed=0)
    exact = loop(mi.LALM(model, processor), items())
    half = mi.LALM(model.to(torch.bfloat16), processor)
    found = sweep(half, items(), EDITS, progress=False)
    assert set(found["method"].values) == {"rows"}
    ours, loops = (np.nanmean(abs(x - exact)) for x in (found.values, loop(half, items())))
    assert ours < 1.5 * loops + 1e-3


def test_the_loop_when_the_canary_is_off(tiny_lalm, monkeypatch):
    monkeypatch.setitem(CANARY, torch.float32, -1.0)
    with pytest.warns(SweepWarning, match="unedited row"):
        found = sweep(tiny_lalm, items(), EDITS, progress=False)
    assert set(found["method"].values) == {"loop"}
    np.testing.assert_allclose(found.values, loop(tiny_lalm, items()), atol=1e-6)


def test_the_model_is_left_as_it_was(tiny_lalm):
    prompt = tiny_lalm.prompt(items())
    before = tiny_lalm.logits(prompt)
    sweep(tiny_lalm, prompt, EDITS, progress=False)
    assert torch.equal(tiny_lalm.logits(prompt), before)
    assert tiny_lalm.model.config._attn_implementation == "sdpa"


def test_coordinates_are_flat(tiny_lalm):
    found = sweep(tiny_lalm, items(), {"plain": None, "mata": EDITS[1]}, progress=False)
    mata = found.sel(configuration="mata")
    assert (str(mata["layers"].values), float(mata["alpha"]), str(mata["keys"].values)) == (
        "1,2",
        0.7,
        "audio",
    )
    assert list(found["answer"].values) == [0, 0, 0]
    assert np.isnan(found.values[0, :, 2]).all()  # two options only


def test_a_layer_that_is_not_there_is_refused(tiny_lalm):
    with pytest.raises(mi.errors.InterventionError, match="layer 9"):
        sweep(tiny_lalm, items(), [Mata(1.0, [9])], progress=False)
