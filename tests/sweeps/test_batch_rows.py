"""Architectures that keep a state: configurations as rows of a larger batch, against the loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import Knockout, Mata
from mata_interp.interventions import catalogue as c
from mata_interp.lalm import LALM
from mata_interp.lalm.rows.caches import branch_cache, cache_bytes, preallocate, repeat_cache
from mata_interp.lalm.scoring import read
from mata_interp.sweeps import SweepWarning, batch_rows
from mata_interp.sweeps.condition_scores import score_conditions
from tests.families.registry import FAMILIES
from tests.families.test_items import ITEMS, Ready

STATES = sorted(name for name, family in FAMILIES.items() if family.states)
HYBRID = "granite_speech on granitemoehybrid"
CHOICES = [item.choices for item in ITEMS]


class Brief(Ready):
    """Options of up to three tokens, so that the loops are short."""

    def option_tokens(self, item, texts):
        return [[ord(letter) for letter in text[: 3 - k]] for k, text in enumerate(texts)]


def configurations(lalm: LALM) -> dict[str, Any]:
    first, second = lalm.attention_layers[:2]
    return {
        "none": None,
        "zero": Mata(0.0, [first, second]),
        "abs": Mata(2.0, [first, second]),
        "mul": Mata(1.5, [second], "mul"),
        "add": Mata(3.0, [first], "add", heads=[0]),
        "knockout": Knockout([first]),
        "both": (Mata(0.5, [first]), Mata(2.0, [second], "add", keys="text")),
        "decode": Mata(3.0, [first, second], "add", phase="decode"),
        "method": c.InstABoost([first, second], 3.0, queries="last"),
    }


def ready(name: str, rows: int, dtype: torch.dtype = torch.float32) -> Brief:
    lalm = Brief(FAMILIES[name].model(None).to(dtype))
    lalm.ready = lalm.prompt_from_inputs(FAMILIES[name].inputs(rows))
    lalm.ready = replace(lalm.ready, items=tuple(ITEMS[:rows]))
    return lalm


@pytest.mark.parametrize(("name", "rows"), [(HYBRID, 1), *((name, 2) for name in STATES)])
def test_scores_and_doses_are_those_of_the_loop(name, rows):
    lalm = ready(name, rows)
    edits = configurations(lalm)
    swept = mi.sweep(lalm, ITEMS[:rows], edits, progress=False)
    loop = dict(zip(edits, lalm.score_each(lalm.ready, CHOICES[:rows], list(edits.values())), strict=True))
    assert set(swept["path"].values) == {"batch"}
    assert swept.attrs["looped"] == 0
    for key, one in loop.items():
        found = swept.sel(configuration=key).values
        np.testing.assert_allclose(found, one.logprob, atol=2e-5, rtol=1e-5, err_msg=key)
    none, zero = (swept.sel(configuration=key).values for key in ("none", "zero"))
    np.testing.assert_array_equal(zero, none)
    for key in set(edits) - {"none", "zero"}:
        assert np.nanmax(np.abs(swept.sel(configuration=key).values - none)) > 1e-3, key

    scores = score_conditions(lalm, lalm.ready, CHOICES[:rows], list(edits.values()))
    for key, one in zip(edits, scores, strict=True):
        reference = loop[key]
        # a mixture of experts runs in the loop here, where rounding cannot choose another expert
        np.testing.assert_allclose(one.logprob, reference.logprob, atol=2e-5, rtol=1e-5, err_msg=key)
        np.testing.assert_array_equal(one.tokens, reference.tokens)
        assert list(one.dose) == list(reference.dose), key
        for dose, values in reference.dose.items():
            np.testing.assert_allclose(one.dose[dose], values, atol=1e-5, rtol=1e-4, err_msg=f"{key} {dose}")


@pytest.mark.parametrize("name", [HYBRID, "voxtral on lfm2"])
def test_in_half_precision(name):
    """Within the rounding that the unedited rows are held to, or in the loop with a warning."""
    lalm = ready(name, 2, torch.bfloat16)
    edits = configurations(lalm)
    swept = mi.sweep(lalm, ITEMS, edits, progress=False)
    loop = np.stack([one.logprob for one in lalm.score_each(lalm.ready, CHOICES, list(edits.values()))], 1)
    assert swept.attrs["looped"] == 0
    off, moved = np.nanmax(np.abs(swept.values - loop)), np.nanmax(np.abs(loop - loop[:, :1]))
    assert off < 0.1 * moved
    scores = score_conditions(lalm, lalm.ready, CHOICES, list(edits.values()))
    assert all(one.logprob.tobytes() == loop[:, k].tobytes() for k, one in enumerate(scores))


def test_the_prompt_is_read_once(monkeypatch):
    """Passes of the decoder: the prompt, once more to be verified, and one for all configurations."""
    lalm = ready(HYBRID, 2)
    edits = {n: e for n, e in configurations(lalm).items() if n != "decode"}
    shapes: list[tuple[int, ...]] = []
    lalm.structure.blocks[0].register_forward_hook(lambda m, args, out: shapes.append(tuple(args[0].shape)))
    mi.sweep(lalm, lalm.ready, edits, progress=False)
    size, width = lalm.ready.size, lalm.ready.width
    assert [shape[:2] for shape in shapes] == [
        (size, width - 1),
        (size, 1),  # the unedited token that the unedited rows are compared with
        ((1 + len(edits)) * size, 1),
        (size, width),  # one configuration in the plain loop
    ]
    shapes.clear()
    mi.sweep(lalm, lalm.ready, edits, progress=False, block=3)
    assert [shape[0] // size for shape in shapes] == [1, 1, 4, 4, 3, 1]


def test_blocks_and_exhausted_memory_change_nothing(monkeypatch):
    lalm = ready(HYBRID, 2)
    edits = configurations(lalm)
    whole = mi.sweep(lalm, ITEMS, edits, progress=False)
    np.testing.assert_allclose(mi.sweep(lalm, ITEMS, edits, progress=False, block=2), whole, atol=1e-5)
    repeat = batch_rows.repeat_cache

    def three_at_most(cache, copies):
        if copies > 3:
            raise torch.OutOfMemoryError("out of memory")
        return repeat(cache, copies)

    monkeypatch.setattr(batch_rows, "repeat_cache", three_at_most)
    np.testing.assert_allclose(mi.sweep(lalm, ITEMS, edits, progress=False), whole, atol=1e-5)


@pytest.mark.parametrize("fault", ["states", "rows"])
def test_rows_on_a_wrong_cache_are_found(fault, monkeypatch):
    """The unedited rows differ from the prompt by itself, and the plain loop runs instead."""
    lalm = ready(HYBRID, 2)
    edits = configurations(lalm)
    loop = lalm.score_each(lalm.ready, CHOICES, list(edits.values()))
    repeat = batch_rows.repeat_cache

    def faulty(cache, copies):
        repeated = repeat(cache, copies)
        if fault == "rows":  # each prompt's copies side by side, as transformers' own method has it
            repeated.reorder_cache(torch.arange(2 * copies).reshape(copies, 2).T.flatten())
        for layer in repeated.layers:
            states = getattr(layer, "recurrent_states", None)
            if fault == "states" and states:
                layer.recurrent_states = {i: x * 1.05 for i, x in states.items()}
        return repeated

    monkeypatch.setattr(batch_rows, "repeat_cache", faulty)
    with pytest.warns(SweepWarning, match=r"steps of the number format off the prompt by itself, in item"):
        swept = mi.sweep(lalm, ITEMS, edits, progress=False)
    assert swept.attrs["looped"] == 2
    for k, one in enumerate(loop):
        np.testing.assert_array_equal(swept.values[:, k], one.logprob)


@pytest.mark.parametrize("name", STATES)
@torch.inference_mode()
def test_a_repeated_cache(name):
    lalm = ready(name, 2)
    cache = read(lalm.model, lalm.ready, 2)
    size = cache_bytes(cache)
    repeated = repeat_cache(cache, 3)
    assert (cache_bytes(cache), cache_bytes(repeated)) == (size, 3 * size)
    for layer, again in zip(cache.layers, repeated.layers, strict=True):
        for kind in ("keys", "values"):
            if isinstance(x := getattr(layer, kind, None), torch.Tensor):
                assert torch.equal(getattr(again, kind), x.repeat(3, 1, 1, 1))
        for kind in ("conv_states", "recurrent_states"):
            for i, x in (getattr(layer, kind, None) or {}).items():
                if isinstance(x, torch.Tensor):
                    assert torch.equal(getattr(again, kind)[i], torch.cat([x, x, x]))


@torch.inference_mode()
def test_a_reordered_preallocated_cache_keeps_its_memory():
    """Rows are moved with the room behind them; the cache it was copied from stays as it is."""
    lalm = mi.LALM.from_pretrained("organism")
    prompt = lalm.prompt(list(mi.load_benchmark("listening").sample(2)))
    cache = preallocate(lalm.model(**prompt.inputs, use_cache=True).past_key_values, 2)
    keys = cache.layers[0].keys.clone()
    swapped = branch_cache(cache)
    swapped.reorder_cache(torch.tensor([1, 0, 1]))
    more = torch.ones_like(swapped.layers[0].keys[:, :, :1])
    grown, _ = swapped.layers[0].update(more, more)
    assert torch.equal(grown[:, :, :-1], keys[[1, 0, 1]])
    assert torch.equal(grown[:, :, -1:], more)
    assert swapped.layers[0].keys.data_ptr() == swapped.layers[0]._memory[0].data_ptr()
    assert torch.equal(cache.layers[0].keys, keys)
