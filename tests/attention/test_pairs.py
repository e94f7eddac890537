"""Rules that compute scores before and after an edit at once equal the rules themselves."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.attention import AttentionCall, Change, Edit
from mata_interp.interventions.rules import find_rule

RULES = ("abs", "mul", "add")


def a_call(seed, batch, key_heads, queries, length, masked):
    draw = torch.Generator().manual_seed(seed)
    query = 3 * torch.randn(batch, 4, queries, 8, generator=draw)
    key, value = (torch.randn(batch, key_heads, length, 8, generator=draw) for _ in range(2))
    mask = None
    if masked or queries > 1:
        visible = torch.ones(queries, length).tril(length - queries).bool().expand(batch, 1, -1, -1).clone()
        visible[0, :, :, : length // 3] &= not masked
        mask = visible if seed % 2 else torch.where(visible, 0.0, torch.finfo(torch.float32).min)
    return AttentionCall(query, key, value, mask=mask, scaling=0.3)


def pair_of(rule, columns, alpha):
    coefficients = rule.pair.coefficients(columns, alpha)
    return lambda scores: rule.pair.apply(scores, coefficients)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    alpha=st.floats(-2, 3),
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 3),
    key_heads=st.sampled_from([1, 2, 4]),
    queries=st.integers(1, 3),
    masked=st.booleans(),
)
def test_the_change_is_that_of_the_rule(rule, alpha, seed, batch, key_heads, queries, masked):
    call = a_call(seed, batch, key_heads, queries, 9, masked)
    rows, of_name = slice(None), find_rule(rule)
    columns = torch.rand(batch, 1, 1, 9, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    mask = call.row_mask(rows)
    keys = columns if mask.visible is None else columns & mask.visible
    plain, expected = call.delta([Edit(of_name, keys, alpha, True)], rows)
    pair = pair_of(of_name, columns, alpha)
    change, measured = call.delta([Edit(of_name, keys, alpha, True, pair)], rows)
    torch.testing.assert_close(change, plain, atol=2e-6, rtol=1e-5)
    for name in ("scores", "edited"):
        torch.testing.assert_close(getattr(measured, name), getattr(expected, name), atol=1e-5, rtol=1e-5)
    untouched = ~keys.expand_as(measured.scores)
    assert torch.equal(measured.scores[untouched], measured.edited[untouched])
    dose, of_rule = measured.dose(), expected.dose()
    for field in fields(of_rule):
        values = getattr(dose, field.name), getattr(of_rule, field.name)
        torch.testing.assert_close(*values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("masked", [False, True])
def test_strength_zero_changes_no_bit(rule, masked):
    call = a_call(1, 2, 2, 1, 7, masked)
    columns = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask = call.row_mask(slice(None))
    keys = columns if mask.visible is None else columns & mask.visible
    pair = pair_of(find_rule(rule), columns, 0.0)
    change, _ = call.delta([Edit(find_rule(rule), keys, 0.0, True, pair)], slice(None))
    assert torch.equal(change, torch.zeros_like(change))


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_those_of_the_rule(rule):
    gradients = []
    for paired in (False, True):
        call = a_call(3, 2, 2, 1, 7, True)
        tensors = [x.requires_grad_() for x in (call.query, call.key, call.value)]
        columns = torch.arange(7) % 2 == 0
        keys = (columns & call.row_mask(slice(None)).visible).expand(2, 1, 1, 7)
        pair = pair_of(find_rule(rule), columns.expand(2, 1, 1, 7), 0.7) if paired else None
        change, _ = call.delta([Edit(find_rule(rule), keys, 0.7, True, pair)], slice(None))
        change.square().sum().backward()
        gradients.append([x.grad for x in tensors])
    for plain, measured in zip(*gradients, strict=True):
        assert measured.isfinite().all()
        torch.testing.assert_close(measured, plain, atol=1e-5, rtol=1e-4)


def test_pairs_are_joined_as_their_parts_are():
    """Changes of different lengths, some of them computed at once."""
    changes = []
    for seed, length in ((1, 7), (2, 7), (3, 9), (4, 8)):
        call = a_call(seed, 2, 2, 1, length, False)
        keys = (torch.arange(length) % 2 == 0).expand(2, 1, 1, length)
        pair = pair_of(find_rule("abs"), keys, 0.7) if length != 8 else None
        changes.append(call.delta([Edit(find_rule("abs"), keys, 0.7, True, pair)], slice(None))[1])
    assert [change.pair is None for change in changes] == [False, False, False, True]
    joined = Change.joined(changes)
    apart = Change.joined([change._replace(pair=None) for change in changes])
    for name in ("scores", "edited", "touched"):
        assert torch.equal(getattr(joined, name), getattr(apart, name))
    heads = changes[0].scores.shape[1]
    assert torch.equal(joined.edited[:, heads : 2 * heads, :, :7], changes[1].edited)


def test_a_change_without_gradients_stays_the_same_objects():
    """So that layers that share what they touch are still seen to share it."""
    call = a_call(1, 2, 2, 1, 7, False)
    keys = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    change = call.delta([Edit(find_rule("add"), keys, 0.7, True)], slice(None))[1]
    assert change.detach().touched is change.touched
    scores = change.scores.clone().requires_grad_()
    assert not change._replace(scores=scores).detach().scores.requires_grad
