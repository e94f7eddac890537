"""What a run measures: conditions as rows of one prefill, against the loop of ``score_each``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import Mata
from mata_interp.interventions import catalogue as c
from mata_interp.sweeps import SweepWarning
from mata_interp.sweeps.condition_scores import score_conditions
from tests.support.decoder_passes import tokens_of_passes
from tests.sweeps.test_sweep import CONFIGURATIONS, ITEMS
from tests.tiny import tiny_qwen2_audio

METHODS = {
    "boost": c.InstABoost([1], 3.0, queries="last"),
    "contrast": c.Aad(1.0),
    "text": c.Opposed([1, 2], queries="text"),
    "patch": c.ActivationPatch([1]),
}


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


def measured(lalm, items, edits, function=score_conditions):
    return function(lalm, lalm.prompt(items), [item.choices for item in items], list(edits.values()))


def looped(lalm, items, edits):
    return measured(lalm, items, edits, mi.LALM.score_each)


def prefills(lalm, run) -> int:
    """Number of passes of the decoder over a whole prompt."""
    return tokens_of_passes(lalm, run).count(lalm.prompt(ITEMS).width)


@pytest.mark.parametrize("items", [ITEMS[:1], ITEMS], ids=["B=1", "left-padded B=3"])
def test_scores_and_doses_are_those_of_the_loop(lalm, items):
    scores, loop = measured(lalm, items, CONFIGURATIONS), looped(lalm, items, CONFIGURATIONS)
    for name, one, reference in zip(CONFIGURATIONS, scores, loop, strict=True):
        np.testing.assert_allclose(
            one.logprob, reference.logprob, atol=1e-6, rtol=1e-6, err_msg=name, equal_nan=True
        )
        np.testing.assert_array_equal(one.tokens, reference.tokens)
        assert list(one.dose) == list(reference.dose), name
        for dose, values in reference.dose.items():
            # a score within rounding of zero counts as negative or not
            atol = 5e-4 if dose == "negative" else 1e-6
            np.testing.assert_allclose(one.dose[dose], values, atol=atol, rtol=1e-5, err_msg=f"{name} {dose}")
    edited = dict(zip(CONFIGURATIONS, scores, strict=True))
    assert (edited["abs"].dose["kl"] > 1e-3).all()
    assert (edited["zero"].dose["kl"] == 0).all()
    assert (edited["zero"].logprob == edited["baseline"].logprob)[~np.isnan(edited["zero"].logprob)].all()


def test_in_half_precision_conditions_are_the_loop_to_the_bit(lalm):
    model, processor = tiny_qwen2_audio(seed=3)
    half = mi.LALM(model.to(torch.bfloat16), processor)
    some = {name: CONFIGURATIONS[name] for name in ("baseline", "abs", "text", "all text")}
    for one, reference in zip(measured(half, ITEMS, some), looped(half, ITEMS, some), strict=True):
        assert one.logprob.tobytes() == reference.logprob.tobytes()
        assert {n: d.tobytes() for n, d in one.dose.items()} == {
            n: d.tobytes() for n, d in reference.dose.items()
        }


def test_other_methods_are_the_loop_to_the_bit_on_the_same_prefill(lalm):
    some = {"baseline": None, "abs": CONFIGURATIONS["abs"], **METHODS}
    scores, loop = (dict(zip(some, f(lalm, ITEMS, some), strict=True)) for f in (measured, looped))
    for name in METHODS:
        assert scores[name].logprob.tobytes() == loop[name].logprob.tobytes(), name
        for dose, values in loop[name].dose.items():
            assert scores[name].dose[dose].tobytes() == values.tobytes(), (name, dose)


def test_all_conditions_take_one_prefill(lalm):
    lalm.prepare(lalm.prompt(ITEMS))  # the first prompt of a model is probed
    edits = {name: edit for name, edit in CONFIGURATIONS.items() if "text" not in name or name == "text"}
    edits |= {"boost": METHODS["boost"], "all text": CONFIGURATIONS["all text"]}
    assert prefills(lalm, lambda: measured(lalm, ITEMS, edits)) == 1


def test_what_cannot_run_as_rows_runs_in_the_loop_and_is_said(lalm):
    some = {name: CONFIGURATIONS[name] for name in ("baseline", "abs", "text")}
    layer = lalm.structure.decoder.layers[2]
    handle = layer.register_forward_hook(lambda m, args, out: out + 0.5 * out.mean(-2, keepdim=True))
    try:
        with pytest.warns(SweepWarning, match="answers in a plain loop: an unedited row is .* after layer 2"):
            scores = measured(lalm, ITEMS, some)
        for one, reference in zip(scores, looped(lalm, ITEMS, some), strict=True):
            assert one.logprob.tobytes() == reference.logprob.tobytes()
    finally:
        handle.remove()


def test_what_the_loop_refuses_is_refused(lalm):
    for edits, message in [
        ([None, Mata(1.0, [1], phase="reasoning")], "thought"),
        ([None, Mata(1.0, [9])], "No attention in layer 9"),
        ([None, Mata(1.0, [1], keys="nothing")], "nothing"),
        ([None, [Mata(1.0, [1], "knockout", keys=k) for k in lalm.prompt(ITEMS).groups if k != "caption"]],
         "leaves a query"),
    ]:  # fmt: skip
        for function in (score_conditions, mi.LALM.score_each):
            with pytest.raises(mi.errors.InterventionError, match=message):
                function(lalm, lalm.prompt(ITEMS), [item.choices for item in ITEMS], edits)


def test_a_run_records_what_the_conditions_score(lalm):
    conditions = {name: CONFIGURATIONS[name] for name in ("baseline", "abs", "text", "heads")}
    records = mi.run(lalm, ITEMS, conditions, progress=False).records
    order = sorted(ITEMS, key=lambda item: -int(lalm.prompt(item).width))
    for name, scores in zip(conditions, looped(lalm, order, conditions), strict=True):
        rows = records[records["condition"] == name].set_index("item")
        for n, item in enumerate(order):
            np.testing.assert_allclose(
                rows.loc[item.id, "logprob"], scores.logprob[n, : len(item.choices)], atol=1e-6, rtol=1e-6
            )
        if scores.dose:
            kl = rows.loc[[item.id for item in order], "dose_kl"]
            np.testing.assert_allclose(kl, scores.dose["kl"], rtol=1e-5)
