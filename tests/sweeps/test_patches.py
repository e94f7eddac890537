"""Activation patches: rows of a sweep against the loop, and the loop against a plain reference with hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import InterventionError
from mata_interp.interventions.catalogue import ActivationPatch, from_dict, to_dict
from mata_interp.sweeps import causal_map, patch_configs, sweep
from tests.sweeps.test_sweep import ITEMS
from tests.tiny import tiny_qwen2_audio

PATCHES = {
    "none": None,
    "layer 1": ActivationPatch((1,)),
    "layer 3": ActivationPatch((3,)),
    "layers 1 and 2": ActivationPatch((1, 2)),
    "reversed": ActivationPatch((1,), negative="reversed"),
    "before the last": ActivationPatch((1,), at=(-2,), queries="text"),
    "two tokens": ActivationPatch((2,), at=(0, -1), queries="text"),
    "all heads": ActivationPatch((1,), "head_output"),
    "heads": ActivationPatch((1, 2), "head_output", heads=((0, 3), (1,))),
    "heads before the last": ActivationPatch((1,), "head_output", heads=((2,),), at=(-1,), queries="text"),
    "patch and edit": (ActivationPatch((1,)), mi.Mata(1.0, [2, 3])),
}


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


@pytest.fixture(scope="module")
def loop(lalm) -> np.ndarray:
    prompt = lalm.prompt(ITEMS)
    scores = lalm.score_each(prompt, [item.choices for item in ITEMS], list(PATCHES.values()))
    return np.stack([one.logprob for one in scores], 1)


def silenced(lalm):
    return lalm.prompt([item.with_audio((np.zeros_like(item.audio[0]), item.audio[1])) for item in ITEMS])


@pytest.mark.parametrize(("layer", "place"), [(1, -1), (1, -3), (3, -1)])
@torch.inference_mode()
def test_a_patched_state_is_that_of_the_other_run(lalm, layer, place):
    block, stored = lalm.structure.blocks[layer], []
    hook = block.register_forward_hook(lambda m, args, out: stored.append(out[:, place].clone()))
    lalm.model(**silenced(lalm).inputs)
    hook.remove()

    def put(module, args, out):
        out = out.clone()
        out[:, place] = stored[0]
        return out

    hook = block.register_forward_hook(put)
    expected = lalm.model(**lalm.prompt(ITEMS).inputs).logits[:, -1]
    hook.remove()
    patch = ActivationPatch((layer,), at=(place + 1,), queries="text" if place < -1 else "last")
    logits = lalm.logits(lalm.prompt(ITEMS), patch)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert (logits - lalm.logits(lalm.prompt(ITEMS))).abs().max() > 1e-3


@torch.inference_mode()
def test_a_patched_head_is_that_of_the_other_run(lalm):
    """The output projection's input has the heads side by side, 8 numbers each."""
    module, stored = lalm.structure.attention[1].o_proj, []
    hook = module.register_forward_pre_hook(lambda m, args: stored.append(args[0][:, -1].clone()))
    lalm.model(**silenced(lalm).inputs)
    hook.remove()
    size = stored[0].shape[-1] // lalm.structure.heads[1]

    def put(m, args):
        states = args[0].clone()
        states[:, -1, 2 * size : 3 * size] = stored[0][:, 2 * size : 3 * size]
        return (states,)

    hook = module.register_forward_pre_hook(put)
    expected = lalm.model(**lalm.prompt(ITEMS).inputs).logits[:, -1]
    hook.remove()
    patch = ActivationPatch((1,), "head_output", heads=((2,),))
    logits = lalm.logits(lalm.prompt(ITEMS), patch)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert (logits - lalm.logits(lalm.prompt(ITEMS))).abs().max() > 1e-4


def test_rows_are_the_loop(lalm, loop):
    swept = sweep(lalm, ITEMS, PATCHES, progress=False)
    assert swept.attrs["looped"] == 0
    assert set(swept["path"].values) == {"rows"}
    np.testing.assert_allclose(swept.values, loop, atol=1e-5, rtol=3e-7)
    moved = np.abs(swept - swept.sel(configuration="none")).max(["item", "choice"])
    assert {name for name in PATCHES if float(moved.sel(configuration=name)) > 1e-3} == set(PATCHES) - {
        "none"
    }


def test_rows_in_half_precision_are_as_near_to_the_truth_as_the_loop(lalm, loop):
    model, processor = tiny_qwen2_audio(seed=3)
    half = mi.LALM(model.to(torch.bfloat16), processor)
    swept = sweep(half, ITEMS, PATCHES, progress=False)
    assert swept.attrs["looped"] == 0
    prompt, choices = half.prompt(ITEMS), [item.choices for item in ITEMS]
    looped = np.stack([one.logprob for one in half.score_each(prompt, choices, list(PATCHES.values()))], 1)
    off, loop_off = (np.sqrt(np.nanmean((x - loop) ** 2)) for x in (swept.values, looped))
    assert 0 < off < 1.5 * loop_off


def test_the_other_audio_is_read_once_for_all_patches(lalm):
    prompt = lalm.prepare(lalm.prompt(ITEMS))
    passes = []
    hook = lalm.structure.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    swept = sweep(lalm, ITEMS, patch_configs(lalm, "head_output"), progress=False)
    hook.remove()
    assert swept.sizes["configuration"] == 16
    assert passes.count(prompt.width) == 2


def test_maps_of_patches(lalm):
    by_head = causal_map(lalm, ITEMS, patch_configs(lalm, "head_output"), progress=False)
    assert by_head.dims == ("layer", "head")
    by_layer = causal_map(lalm, ITEMS, patch_configs(lalm), progress=False)
    assert by_layer.dims == ("layer",)
    by_token = causal_map(lalm, ITEMS, patch_configs(lalm, at=(0, -1, -2)), progress=False)
    assert by_token.dims == ("layer", "token")
    assert by_token["token"].values.tolist() == [0, -1, -2]
    np.testing.assert_allclose(by_token.sel(token=0), by_layer, atol=1e-5)
    # what the last layer returns for an earlier token reaches no answer
    assert np.abs(by_token.sel(layer=3, token=-1)) < 1e-5
    assert np.abs(by_token.sel(layer=1, token=-1)) > 1e-4


def test_patches_in_the_audio_have_a_prefill_of_their_own(lalm):
    patch = ActivationPatch((0,), at=tuple(range(-60, 1)), queries="all")
    swept = sweep(lalm, ITEMS, {"none": None, "all": patch}, progress=False)
    assert swept["path"].values.tolist() == ["rows", "loop"]
    scores = lalm.score(lalm.prompt(ITEMS), None, patch)
    np.testing.assert_allclose(swept.sel(configuration="all"), scores.logprob, atol=1e-5)


def test_patches_are_data_and_refuse_what_makes_no_sense():
    patch = PATCHES["heads before the last"]
    assert from_dict(to_dict(patch)) == patch
    for arguments, message in [
        ({"site": "keys"}, "keys"),
        ({"negative": "omitted"}, "other tokens"),
        ({"negative": "another"}, "clip"),
        ({"heads": ((0,),)}, "head_output"),
        ({"at": (1,)}, "up to 0"),
        ({"at": (-1,)}, "queries='text'"),
    ]:
        with pytest.raises(InterventionError, match=message):
            ActivationPatch((1,), **arguments)
