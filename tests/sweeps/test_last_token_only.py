"""Reading for a sweep does without the last layer's feed-forward part, but for the last token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mata_interp.interventions import Mata
from mata_interp.lalm import PrefillCache
from mata_interp.sweeps import sweep
from tests.sweeps.test_sweep import CONFIGURATIONS, ITEMS


@pytest.fixture
def lengths(lalm):
    """Tokens that the last layer's feed-forward part was given, call by call."""
    counts: list[int] = []
    part = lalm.structure.blocks[-1].mlp
    handle = part.register_forward_pre_hook(lambda _, args: counts.append(args[0].shape[1]))
    yield counts
    handle.remove()


@pytest.fixture(scope="module")
def lalm():
    import mata_interp as mi
    from tests.tiny import tiny_qwen2_audio

    return mi.LALM(*tiny_qwen2_audio(seed=3))


@torch.inference_mode()
def test_a_thrifty_reading_is_the_whole_one(lalm, lengths):
    """Next tokens' logits and the cache, of a batch with left padding."""
    prompt = lalm.prepare(lalm.prompt(ITEMS))
    last_token_only, whole = (
        PrefillCache(lalm.model, lalm.structure, prompt, thrift) for thrift in (True, False)
    )
    assert lengths == [1, prompt.width]
    torch.testing.assert_close(last_token_only.logits, whole.logits, atol=1e-5, rtol=0)
    for layer, expected in zip(last_token_only.before(1).layers, whole.before(1).layers, strict=True):
        assert torch.equal(layer.keys, expected.keys)
        assert torch.equal(layer.values, expected.values)


def test_a_sweep_reads_once_and_thriftily(lalm, lengths):
    swept = sweep(lalm, lalm.prompt(ITEMS), [None, Mata(2.0, [1], "add")], progress=False)
    assert lengths == [1, 2]  # the reading, and two rows
    assert swept.attrs["looped"] == 0
    assert np.abs(swept.values[:, 0] - swept.values[:, 1]).max() > 0.1


@pytest.mark.parametrize("way", ["another shape", "another sum"])
def test_a_layer_that_is_not_built_for_it_is_read_in_whole(lalm, way):
    """One whose feed-forward part wants all tokens, or weighs them together: as rows all the same."""
    part = lalm.structure.blocks[-1].mlp
    prompt = lalm.prompt(ITEMS)

    def refuse(_, args, out):
        if way == "another shape":
            return out.expand(-1, 2, -1) if out.shape[1] == 1 and not alone else out
        return out * (1 + (out.shape[1] == 1 and not alone))

    handle = part.register_forward_hook(refuse)
    alone: list[bool] = []  # whether a single row may pass
    reading = PrefillCache.rows

    def rows(self, *arguments, **more):
        alone.append(True)
        return reading(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PrefillCache, "rows", rows)
        try:
            swept = sweep(lalm, prompt, CONFIGURATIONS, progress=False)
        finally:
            handle.remove()
    assert swept.attrs["looped"] == 0
    for name, intervention in CONFIGURATIONS.items():
        plain = lalm.logits(prompt, intervention)
        np.testing.assert_allclose(swept.sel(configuration=name), plain, atol=2e-5, rtol=0, err_msg=name)
