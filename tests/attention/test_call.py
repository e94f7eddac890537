"""One attention call, against the plain formula written out in float64 and against torch's own attention."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from mata_interp.attention import AttentionCall, Change, Edit

LAST = slice(-1, None)
EVERY = slice(None)


def a_call(
    seed=0, rows=2, heads=4, kv_heads=2, queries=5, keys=9, width=8, value=6, **settings
) -> AttentionCall:
    draw = torch.Generator().manual_seed(seed)
    settings = {"mask": None, "scaling": 0.9} | settings
    return AttentionCall(
        query=torch.randn(rows, heads, queries, width, generator=draw),
        key=torch.randn(rows, kv_heads, keys, width, generator=draw),
        value=torch.randn(rows, kv_heads, keys, value, generator=draw),
        **settings,
    )


def weights(call: AttentionCall, change=lambda scores: scores) -> torch.Tensor:
    """softmax of all scores, [B, H, Q, L], one head at a time; causal, the last query at the last key."""
    batch, heads, queries, _ = call.query.shape
    out = torch.zeros(batch, heads, queries, call.length, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            key = call.key[b, h // (heads // call.key.shape[1])].double()
            scores = change(call.query[b, h].double() @ key.T * call.scaling)
            hidden = torch.ones(queries, call.length).triu(call.length - queries + 1).bool()
            out[b, h] = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return out


def outputs(call: AttentionCall, w: torch.Tensor) -> torch.Tensor:
    """[B, Q, H, Dv]."""
    each = call.query.shape[1] // call.key.shape[1]
    return (w @ call.value.double().repeat_interleave(each, 1)).transpose(1, 2)


def add_rule(scores, keys, alpha):
    return torch.where(keys, scores + alpha, scores)


def test_scores_of_every_query():
    call = a_call()
    torch.testing.assert_close(call.scores(EVERY).softmax(-1).double(), weights(call), atol=1e-6, rtol=0)
    torch.testing.assert_close(call.scores(LAST), call.scores(EVERY)[:, :, -1:])


@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 4), LAST])
def test_rows_are_chosen_and_masked_as_they_stand(rows):
    call = a_call()
    assert torch.equal(call.visible(rows), call.visible(EVERY)[:, :, rows])
    assert torch.equal(torch.isneginf(call.scores(rows)), ~call.visible(rows).expand(2, 4, -1, -1))


def masks(call: AttentionCall) -> dict[str, torch.Tensor]:
    """The forms in which transformers hands over one and the same mask: causal, two padded keys in row 0."""
    queries, keys = call.query.shape[2], call.length
    padding = torch.ones(2, keys, dtype=torch.long)
    padding[0, :2] = 0
    visible = torch.ones(queries, keys).tril(keys - queries).bool() & padding.bool()[:, None, None]
    least = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
    return {
        "bool": visible,
        "float": least,
        "inf": torch.where(visible, 0.0, -math.inf),
        "two dimensions": padding,
    }


@pytest.mark.parametrize("form", ["bool", "float", "inf", "two dimensions"])
def test_forms_of_mask(form):
    call = a_call()
    visible = masks(call)["bool"]
    call = replace(call, mask=masks(call)[form])
    assert torch.equal(call.visible(EVERY), visible)
    reference = scaled_dot_product_attention(
        call.query, call.key, call.value, attn_mask=visible, scale=call.scaling, enable_gqa=True
    )
    value = call.value.repeat_interleave(2, 1)
    torch.testing.assert_close(call.scores(EVERY).softmax(-1) @ value, reference, atol=1e-6, rtol=0)


def test_a_mask_that_adds_a_bias():
    bias = torch.randn(1, 4, 5, 9, generator=torch.Generator().manual_seed(3))
    call = a_call()
    biased = replace(call, mask=bias)
    plain = replace(call, mask=torch.ones(1, 1, 5, 9, dtype=torch.bool))
    torch.testing.assert_close(biased.scores(EVERY), plain.scores(EVERY) + bias)
    assert biased.visible(EVERY).all()


def test_softcap_and_window():
    call = a_call(softcap=0.5)
    assert call.scores(EVERY).nan_to_num(neginf=0).abs().max() <= 0.5
    torch.testing.assert_close(call.scores(LAST), 0.5 * torch.tanh(a_call().scores(LAST) / 0.5))
    visible = a_call(window=3).visible(EVERY)[0, 0]
    assert torch.equal(visible.sum(-1), torch.full((5,), 3))
    assert visible[-1, -3:].all()
    assert a_call(queries=9, window=3).visible(EVERY)[0, 0].sum(-1).tolist() == [1, 2, 3, 3, 3, 3, 3, 3, 3]


@given(seed=st.integers(0, 10**6), kv_heads=st.sampled_from([1, 2, 4]), queries=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_masses_are_sums_of_the_weights_and_add_up_to_one(seed, kv_heads, queries):
    call = a_call(seed, kv_heads=kv_heads, queries=queries)
    owner = torch.randint(0, 3, (2, 9), generator=torch.Generator().manual_seed(seed))
    groups = torch.stack([owner == g for g in range(3)], 1)
    masses = call.masses(EVERY, groups)
    summed = torch.stack([(weights(call) * groups[:, None, None, g]).sum(-1) for g in range(3)], -1)
    torch.testing.assert_close(masses.double(), summed, atol=1e-6, rtol=0)
    torch.testing.assert_close(masses.sum(-1), torch.ones(2, 4, queries), atol=1e-6, rtol=0)


@given(
    seed=st.integers(0, 10**6),
    alpha=st.floats(-5, 5),
    kv_heads=st.sampled_from([1, 2, 4]),
    queries=st.integers(1, 9),
)
@settings(max_examples=50, deadline=None)
def test_delta_is_edited_minus_plain(seed, alpha, kv_heads, queries):
    call = a_call(seed, kv_heads=kv_heads, queries=queries)
    keys = torch.rand(9, generator=torch.Generator().manual_seed(seed)) < 0.5
    delta, change = call.delta([Edit(add_rule, keys, alpha)], EVERY)
    dose = change.dose()
    edited, plain = weights(call, lambda scores: torch.where(keys, scores + alpha, scores)), weights(call)
    reference = outputs(call, edited) - outputs(call, plain)
    torch.testing.assert_close(delta.double(), reference, atol=5e-6, rtol=0)

    on, visible = keys.double(), plain > 0
    touched = (keys & visible).any(-1)
    assert torch.equal(dose.touched, touched)
    torch.testing.assert_close(dose.mass_before.double(), plain @ on, atol=1e-6, rtol=0)
    torch.testing.assert_close(dose.mass_after.double(), edited @ on, atol=1e-6, rtol=0)
    kl = torch.where(visible, edited * (edited / plain).log(), 0.0).nan_to_num().sum(-1)
    torch.testing.assert_close(dose.kl.double(), kl, atol=5e-6, rtol=0)
    torch.testing.assert_close(dose.boost.double(), alpha * touched.double(), atol=1e-5, rtol=0)


@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
@settings(max_examples=20, deadline=None)
def test_an_edit_that_changes_nothing_adds_exactly_nothing(seed, dtype):
    call = a_call(seed)
    call = replace(call, query=call.query.to(dtype), key=call.key.to(dtype), value=call.value.to(dtype))
    keys = torch.ones(1, 9, dtype=torch.bool)
    delta, change = call.delta(
        [Edit(add_rule, keys, 0.0), Edit(lambda s, k, a: s * (1 + a), keys, 0.0)], EVERY
    )
    dose = change.dose()
    assert delta.dtype == torch.float32
    assert not delta.any()
    assert not dose.kl.any()


def test_hidden_keys_are_kept_from_the_rule():
    """Even a rule that sets scores outright cannot make a hidden key seen, and none of it turns to NaN."""
    call = a_call()
    delta, change = call.delta(
        [Edit(lambda s, k, a: torch.where(k, a, s), torch.ones(9, dtype=torch.bool), 2.0)], EVERY
    )
    dose = change.dose()
    flat = weights(call).gt(0).double()
    reference = outputs(call, flat / flat.sum(-1, keepdim=True)) - outputs(call, weights(call))
    torch.testing.assert_close(delta.double(), reference, atol=5e-6, rtol=0)
    assert torch.isfinite(torch.stack([dose.kl, dose.boost, dose.negative])).all()


def test_edits_are_made_in_order_and_on_their_own_keys_and_heads():
    call = a_call()
    one = torch.zeros(1, 4, 1, 9, dtype=torch.bool)
    one[:, 2, :, :4] = True
    other = torch.arange(9) >= 3
    edits = [Edit(add_rule, one, 1.5), Edit(lambda s, k, a: torch.where(k, s * a, s), other, -0.5)]
    delta, change = call.delta(edits, LAST)
    dose = change.dose()
    scores = call.scores(LAST)
    scores = torch.where(one, scores + 1.5, scores)
    scores = torch.where(other, scores * -0.5, scores)
    change = scores.softmax(-1) - call.scores(LAST).softmax(-1)
    torch.testing.assert_close(delta, (change @ call.value.repeat_interleave(2, 1)).transpose(1, 2))
    torch.testing.assert_close(dose.mass_before[:, 2, 0], torch.ones(2))  # in head 2 every key is touched
    assert (dose.mass_before[:, 0, 0] < 1).all()


def test_negative_is_the_fraction_of_touched_scores_below_zero():
    call = a_call()
    keys = torch.arange(9) < 6
    dose = call.delta([Edit(add_rule, keys, 0.1)], LAST)[1].dose()
    torch.testing.assert_close(dose.negative, (call.scores(LAST)[..., :6] < 0).float().mean(-1))


def test_layers_side_by_side_have_the_dose_each_has_alone():
    """As if they were heads of one; with other numbers of heads, and keys named for all heads or for some."""
    some = torch.zeros(1, 4, 1, 9, dtype=torch.bool)
    some[:, 1, :, 2:5] = True
    calls = [a_call(1, heads=4), a_call(2, heads=2), a_call(3, heads=4, window=4)]
    keys = [some, torch.arange(9) < 4, (torch.arange(9) > 1)[None]]
    changes = [call.delta([Edit(add_rule, k, 0.7)], LAST)[1] for call, k in zip(calls, keys, strict=True)]
    joined = Change.joined(changes).dose()
    for name, values in vars(joined).items():
        each = torch.cat([getattr(change.dose(), name) for change in changes], 1)
        assert values.shape == (2, 10, 1)
        assert torch.equal(values, each), name


def test_tokens_of_other_lengths_side_by_side_have_the_dose_each_has_alone():
    """A decode's passes: each sees a key more. Hidden keys that fill up the shorter ones change nothing."""
    calls = [a_call(seed, keys=keys) for seed, keys in enumerate((9, 7, 12))]
    keys = [torch.arange(call.length) < 4 for call in calls]
    changes = [call.delta([Edit(add_rule, k, 0.7)], LAST)[1] for call, k in zip(calls, keys, strict=True)]
    joined = Change.joined(changes).dose()
    for name, values in vars(joined).items():
        each = torch.cat([getattr(change.dose(), name) for change in changes], 1)
        torch.testing.assert_close(values, each, atol=1e-6, rtol=1e-6, msg=name)
