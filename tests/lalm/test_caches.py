"""Branches of a cache: exact, apart from each other, and without copies."""

from __future__ import annotations

import pytest
import torch

from mata_interp.lalm.rows.caches import branch_cache, preallocate


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def cache(tiny_lalm, prompt):
    return tiny_lalm.model(**prompt.inputs, use_cache=True).past_key_values


def go_on(lalm, prompt, cache, tokens: list[int]):
    """Logits of some tokens after the prompts."""
    mask = prompt.inputs["attention_mask"]
    return lalm.model(
        input_ids=torch.tensor([tokens] * prompt.size),
        attention_mask=torch.cat([mask, mask.new_ones(prompt.size, len(tokens))], 1),
        past_key_values=cache,
        use_cache=True,
    ).logits


@pytest.mark.parametrize("room", [0, 2, 9], ids=["none", "too little", "enough"])
def test_branches_go_on_as_the_plain_cache_would(tiny_lalm, prompt, cache, room):
    first, second = [5, 6, 7], [8, 9]
    plain = [go_on(tiny_lalm, prompt, branch_cache(cache), tokens) for tokens in (first, second, first)]
    roomy = preallocate(cache, room)
    measured = [go_on(tiny_lalm, prompt, branch_cache(roomy), tokens) for tokens in (first, second, first)]
    for a, b in zip(measured, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert torch.equal(measured[0], measured[2])
    assert cache.get_seq_length() == roomy.get_seq_length() == prompt.width


def test_a_branch_of_a_branch_cache(tiny_lalm, prompt, cache):
    roomy = branch_cache(preallocate(cache, 4))
    go_on(tiny_lalm, prompt, roomy, [5])
    assert roomy.get_seq_length() == prompt.width + 1
    whole = go_on(tiny_lalm, prompt, branch_cache(cache), [5, 6, 7])[:, 1:]

    def longer():
        mask = prompt.inputs["attention_mask"]
        return tiny_lalm.model(
            input_ids=torch.tensor([[6, 7]] * prompt.size),
            attention_mask=torch.cat([mask, mask.new_ones(prompt.size, 3)], 1),
            past_key_values=branch_cache(roomy),
            use_cache=True,
        ).logits

    for _ in range(2):
        torch.testing.assert_close(longer(), whole, atol=1e-5, rtol=0)


def test_nothing_is_copied_where_there_is_room(tiny_lalm, prompt, cache):
    roomy = preallocate(cache, 3)
    grown = branch_cache(roomy)
    go_on(tiny_lalm, prompt, grown, [5, 6])
    for before, after in zip(roomy.layers, grown.layers, strict=True):
        assert before.keys.data_ptr() == after.keys.data_ptr()
        assert before.values.data_ptr() == after.values.data_ptr()


def test_layers_of_other_kinds_are_left_alone(cache):
    class Other(type(cache.layers[0])):
        pass

    cache.layers[1].__class__ = Other
    roomy = preallocate(cache, 3)
    assert roomy.layers[1] is cache.layers[1]
    assert roomy.layers[0] is not cache.layers[0]
