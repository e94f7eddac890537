"""Row masks: what a mask says of some queries, once for all layers that share it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mata_interp.attention import Edit, SharedMasks
from tests.attention.test_call import LAST, a_call, add_rule

SEEN = torch.ones(5, 9).tril(4).bool().expand(2, 1, 5, 9).clone()
SEEN[0, :, :, :2] = False
BIAS = torch.randn(2, 1, 5, 9, generator=torch.Generator().manual_seed(3))
MASKS = {
    "none": None,
    "bool": SEEN,
    "two dimensions": SEEN[:, 0, -1].long(),
    "additive": torch.where(SEEN, 0.0, torch.finfo(torch.float32).min),
    "bias": torch.where(SEEN, BIAS, -torch.inf),
}


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [LAST, slice(1, 4)], ids=["last", "some"])
@pytest.mark.parametrize("form", MASKS)
def test_scores_are_the_formula_with_the_mask(form, rows, dtype, softcap):
    call = a_call(mask=MASKS[form], softcap=softcap)
    call = replace(call, query=call.query.to(dtype), key=call.key.to(dtype))
    key = call.key.double().repeat_interleave(2, 1)
    plain = call.query.double() @ key.transpose(2, 3) * call.scaling
    plain = plain if softcap is None else softcap * torch.tanh(plain / softcap)
    plain = plain + BIAS if form == "bias" else plain
    visible = torch.ones(5, 9).tril(4).bool() if form == "none" else SEEN
    plain = plain.masked_fill(~visible, -torch.inf)[:, :, rows]
    known = call.row_mask(rows)
    for scores in (call.scores(rows), call.scores(rows, known)):
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores.double(), plain, atol=2e-6, rtol=1e-6)
    assert (known.visible is None) == (form == "none" and rows == LAST)


def test_layers_that_share_a_mask_share_what_it_says():
    masks, mask = SharedMasks(), SEEN.clone()
    calls = [a_call(seed, mask=mask) for seed in range(3)]
    first = masks.of(calls[0], LAST)
    assert all(masks.of(call, LAST) is first for call in calls)
    assert masks.of(calls[0], slice(0, 2)) is not first
    assert masks.of(a_call(mask=mask.clone()), LAST) is not first
    assert torch.equal(masks.of(a_call(mask=~mask), LAST).visible, ~mask[:, :, LAST])


def test_a_mask_that_takes_the_place_of_another_is_another():
    """Memory and identity of a tensor that is gone may be given to the next."""
    masks = SharedMasks()
    for step in range(20):
        mask = torch.zeros(2, 1, 5, 9, dtype=torch.bool)
        mask[..., : step % 9 + 1] = True
        assert masks.of(a_call(mask=mask), LAST).visible[0, 0, 0].sum() == step % 9 + 1
        del mask


def test_windows_of_a_mask_are_told_apart():
    masks = SharedMasks()
    assert masks.of(a_call(window=3), LAST).visible.sum() == 3
    assert masks.of(a_call(), LAST).visible is None
    assert masks.of(a_call(window=4), LAST).visible.sum() == 4


@pytest.mark.parametrize("form", MASKS)
def test_an_edit_of_visible_keys_is_that_of_all_keys(form):
    call, keys = a_call(mask=MASKS[form]), torch.arange(9) % 2 == 0
    mask = call.row_mask(LAST)
    visible = keys if mask.visible is None else keys & mask.visible
    measured, change = call.delta([Edit(add_rule, visible, 1.3, visible_only=True)], LAST, mask)
    reference, plain = call.delta([Edit(add_rule, keys, 1.3)], LAST)
    assert torch.equal(measured, reference)
    assert torch.equal(change.edited, plain.edited)
    assert measured.abs().max() > 0.01
