"""On every family, a sweep of edits of all text after the audio equals the loop."""

from __future__ import annotations

import warnings

import numpy as np

import mata_interp as mi
from mata_interp import Mata
from mata_interp.sweeps import SweepWarning

SWEPT = {
    "none": None,
    "abs": Mata(0.8, [1, 2], queries="text"),
    "add": Mata(1.5, [0, 1], "add", queries="text"),
    "on text": Mata(1.0, [1], "add", keys="text", queries="text"),
    "knockout": Mata(1.0, [1], "knockout", queries="text"),
    "both": (Mata(0.5, [1], queries="text"), Mata(1.0, [2], "add", keys="text")),
    "last": Mata(2.0, [1], "add"),
}


def test_a_sweep_of_text_queries_equals_the_loop(built):
    swept = built.all_placed(SWEPT)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = mi.sweep(built.lalm, built.prompt, swept, progress=False)
    reasons = [str(w.message) for w in caught if isinstance(w.message, SweepWarning)]
    assert bool(reasons) == bool(result.attrs["looped"]) == built.family.states, reasons
    for name, intervention in swept.items():
        plain = built.lalm.logits(built.prompt, intervention).float().numpy()
        scale = max(1.0, float(np.abs(plain).max()))
        np.testing.assert_allclose(
            result.sel(configuration=name) / scale, plain / scale, atol=1e-5, rtol=0, err_msg=name
        )
    moved = np.abs(result - result.sel(configuration="none")).max(["item", "vocab"])
    assert float(moved.sel(configuration=["add", "both"]).min()) > 1e-3


def test_answers_from_one_prefill_equal_generate(built):
    edits = {"none": None, "add": Mata(1.5, [0, 1], "add"), "text": Mata(1.5, [1], "add", queries="text")}
    edits = built.all_placed(edits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # a family may run in a plain loop, which is as exact
        result = mi.sweep_generate(built.lalm, built.prompt, edits, decoding=mi.Decoding(4), progress=False)
    assert bool(result.attrs["looped"]) == any(isinstance(w.message, SweepWarning) for w in caught)
    for name, intervention in edits.items():
        alone = built.lalm.answer(built.prompt, intervention, decoding=mi.Decoding(4))
        for row, length in enumerate(alone.lengths):
            tokens = result["tokens"].sel(configuration=name).values[row]
            assert tokens[:length].tolist() == alone.tokens[row, :length].tolist(), name
