"""Dose-targeted MATA: strengths solve their equations; what has no solution is left alone and counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mata_interp as mi
from mata_interp.errors import InterventionError
from mata_interp.interventions.catalogue import DoseTargetedMata, DoseTargetedSham
from mata_interp.interventions.catalogue.target_share import divergence, log_odds, strength_of_divergence
from mata_interp.lalm import LALM
from tests.interventions.plain_methods import raised_text_mass, two_valued_kl
from tests.tiny import RATE, tiny_qwen2_audio

SHARE = st.floats(0.01, 0.99)
ROW = st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=12)


@pytest.fixture(scope="module")
def items():
    noise = np.random.default_rng(3)
    return [
        mi.Item(audio=(noise.normal(0, 0.1, n).astype(np.float32), RATE), question="Why?", choices=("a", "b"))
        for n in (9_000, 5_000, 12_000)
    ]


@given(ROW, SHARE)
def test_the_strength_brings_the_share_to_the_target(row, target):
    x = torch.tensor(row, dtype=torch.float64)[None, None, None]
    span = torch.zeros_like(x, dtype=torch.bool)
    span[..., : len(row) // 2] = True
    odds = log_odds(x, span)
    share = x.softmax(-1)[span].sum()
    assert float(torch.sigmoid(odds)) == pytest.approx(float(share), rel=1e-9)
    edited = torch.where(span, x + torch.logit(torch.tensor(target)).double() - odds, x).softmax(-1)
    assert float(edited[span].sum()) == pytest.approx(target, rel=1e-5)
    # the divergence of the rows is that of the two masses, whatever stands inside and outside of the span
    rows = float((edited * (edited / x.softmax(-1)).log()).sum())
    strength = torch.logit(torch.tensor(target)).double() - odds
    assert float(divergence(odds, strength)) == pytest.approx(rows, abs=1e-6)
    assert rows == pytest.approx(two_valued_kl(target, float(share)), abs=1e-5)


@settings(max_examples=200)
@given(SHARE, SHARE, SHARE)
def test_the_sham_has_the_same_divergence_or_no_solution(y, s, t):
    kl = two_valued_kl(y, s)
    odds = torch.logit(torch.tensor([t], dtype=torch.float64))
    strength, solved = strength_of_divergence(odds, torch.tensor([kl], dtype=torch.float64))
    expected = raised_text_mass(y, s, t)
    if abs(kl + np.log(t)) > 1e-9:  # at the bound itself, either answer is right
        assert bool(solved) == (expected is not None)
    if bool(solved):
        raised = float(torch.sigmoid(odds + strength))
        assert raised >= t
        assert two_valued_kl(raised, t) == pytest.approx(kl, abs=1e-7) or raised > 1 - 1e-12
    else:
        assert float(strength) == 0


def test_text_at_half_can_be_moved_by_ln_2_at_most():
    odds = torch.zeros(2, dtype=torch.float64)
    _, solved = strength_of_divergence(odds, torch.tensor([0.692, 0.694], dtype=torch.float64))
    assert solved.tolist() == [True, False]
    # audio from 0.05 to 0.5 costs 0.83 nats, which is too far
    assert two_valued_kl(0.5, 0.05) == pytest.approx(0.83, abs=0.005)
    assert raised_text_mass(0.5, 0.05, 0.5) is None


def test_undefined_rows_have_no_strength():
    odds = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0])
    strength, solved = strength_of_divergence(odds, torch.tensor([0.1, 0.1, 0.1, torch.nan]))
    assert not solved.any()
    assert strength.tolist() == [0.0] * 4


def test_the_dose_is_the_target_and_counts_what_is_left_alone(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    every = tiny_lalm.score(prompt, None, DoseTargetedMata((1, 2), 0.6)).dose
    np.testing.assert_allclose(every["mass_after"], 0.6, atol=1e-5)
    np.testing.assert_array_equal(every["left_alone"], 0.0)
    matched = tiny_lalm.score(prompt, None, DoseTargetedMata((1,), 0.9, matched=True)).dose
    sham = tiny_lalm.score(prompt, None, DoseTargetedSham((1,), 0.9)).dose
    # one layer: both measure the same rows, edit the same ones and diverge alike
    np.testing.assert_allclose(sham["kl"], matched["kl"], rtol=1e-4)
    np.testing.assert_array_equal(sham["left_alone"], matched["left_alone"])
    assert 0 < sham["left_alone"].mean() < 1
    assert (sham["mass_after"] >= sham["mass_before"]).all()
    assert sham["kl"].max() > 0.1
    run = mi.run(tiny_lalm, items, {"a": DoseTargetedSham((1,), 0.9)}, progress=False)
    assert run.records["dose_left_alone"].between(0, 1).all()


def test_rows_without_audio_are_left_alone(tiny_lalm, items):
    """Knocked-out audio has no mass to raise."""
    prompt = tiny_lalm.prompt(items)
    hidden = mi.Knockout([1])
    both = (hidden, DoseTargetedMata((1,), 0.6))
    torch.testing.assert_close(
        tiny_lalm.logits(prompt, both), tiny_lalm.logits(prompt, hidden), atol=2e-5, rtol=0
    )
    np.testing.assert_array_equal(tiny_lalm.score(prompt, None, both).dose["left_alone"], 1.0)


def test_after_another_edit_the_share_is_that_of_the_edited_row(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    dose = tiny_lalm.score(prompt, None, (mi.Mata(1.0, [1]), DoseTargetedMata((1,), 0.6))).dose
    np.testing.assert_allclose(dose["mass_after"], 0.6, atol=1e-5)


def test_only_low_heads(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    before = mi.trace(tiny_lalm, prompt, progress=False)["mass"].sel(group="audio", layer=1).values
    least = float(np.median(before))
    method = DoseTargetedMata((1,), 0.5, below=least)
    after = mi.trace(tiny_lalm, prompt, intervention=method, progress=False)["mass"]
    after = after.sel(group="audio", layer=1).values
    low = before < least
    assert 0 < low.mean() < 1
    np.testing.assert_allclose(after[low], 0.5, atol=1e-5)
    np.testing.assert_allclose(after[~low], before[~low], atol=1e-6)


def test_the_layers_of_an_item(tiny_lalm, items):
    method = DoseTargetedMata((0, 1, 2, 3), 0.6, item_layers=2)
    prompt = tiny_lalm.prompt(items)
    chosen = method.measure(tiny_lalm, prompt)["layers"]
    assert chosen.sum(1).tolist() == [2, 2, 2]
    without = tiny_lalm.prompt(items, audio=None)
    for row in range(3):
        sizes = []
        for layer in range(4):
            a, b = (tiny_lalm.hidden_states(p, [layer], last=True)[row, 0, 0] for p in (prompt, without))
            sizes.append(float((a - b).norm() / a.norm()))
        growth = np.diff(sizes, prepend=0.0)
        assert set(chosen[row].nonzero().flatten().tolist()) == set(np.argsort(-growth)[:2].tolist())
    traced = mi.trace(tiny_lalm, prompt, intervention=method, progress=False)["mass"].sel(group="audio")
    edited = np.isclose(traced.values, 0.6, atol=1e-5).all(2)
    np.testing.assert_array_equal(edited, chosen.numpy())


def test_heads_from_a_profile(items):
    class Profile:
        audio_heads = pd.DataFrame({"layer": [2, 1, 2], "head": [3, 0, 1]})

    method = DoseTargetedMata.from_profile(Profile(), 0.4, below=0.4)
    assert (method.layers, method.heads) == ((1, 2), ((0,), (1, 3)))

    class Empty:
        audio_heads = Profile.audio_heads.iloc[:0]

    with pytest.raises(InterventionError, match="no head"):
        DoseTargetedMata.from_profile(Empty(), 0.4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_share": 0.0},
        {"target_share": 1.0},
        {"heads": ((0,),)},
        {"item_layers": 0},
        {"item_layers": 3},
    ],
)
def test_values_that_make_no_sense(wrong):
    with pytest.raises(InterventionError):
        DoseTargetedMata((1, 2), **{"target_share": 0.5, **wrong})


@pytest.mark.parametrize("rows", [1, 3])
def test_bfloat16(tiny_lalm, items, rows):
    model, processor = tiny_qwen2_audio(seed=0)
    half = LALM(model.to(torch.bfloat16), processor)
    for method in (DoseTargetedMata((1, 2), 0.6), DoseTargetedSham((1, 2), 0.5)):
        prompt, exact = half.prompt(items[:rows]), tiny_lalm.prompt(items[:rows])
        half_change = (half.logits(prompt, method) - half.logits(prompt)).float().flatten()
        exact_change = (tiny_lalm.logits(exact, method) - tiny_lalm.logits(exact)).flatten()
        assert torch.cosine_similarity(half_change, exact_change, dim=0) > 0.9
        if isinstance(method, DoseTargetedMata):
            np.testing.assert_allclose(half.score(prompt, None, method).dose["mass_after"], 0.6, atol=1e-4)
