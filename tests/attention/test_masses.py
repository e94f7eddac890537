"""Masses of many queries through torch's attention, against the plain formula with its T x T matrix."""

from __future__ import annotations

import pytest
import torch

from mata_interp.attention import AttentionCall
from mata_interp.attention.masses import BLOCK
from tests.reference import process_peak

B, H, D, G = 2, 4, 8, 3
T = 2 * BLOCK + 37  # more than two blocks


def a_call(kv_heads=2, queries=T, dtype=torch.float32, **settings) -> AttentionCall:
    draw = torch.Generator().manual_seed(0)
    query, key = (3 * torch.randn(B, h, n, D, generator=draw) for h, n in ((H, queries), (kv_heads, T)))
    value = torch.randn(B, kv_heads, T, 6, generator=draw)
    settings = {"mask": None, "scaling": 0.7} | settings
    return AttentionCall(query.to(dtype), key.to(dtype), value.to(dtype), **settings)


def groups(count=G) -> torch.Tensor:
    owner = torch.randint(0, count, (B, T), generator=torch.Generator().manual_seed(1))
    return torch.stack([owner == g for g in range(count)], 1)


def plain(call: AttentionCall, visible: torch.Tensor, masks: torch.Tensor, bias=0.0) -> torch.Tensor:
    """The formula in float64: seen [B|1, 1|H, Q, T]."""
    key = call.key.double().repeat_interleave(H // call.key.shape[1], 1)
    scores = call.query.double() @ key.transpose(2, 3) * call.scaling
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    weights = (scores + bias).masked_fill(~visible, -torch.inf).softmax(-1)
    return weights @ masks.double().transpose(1, 2)[:, None]


def causal(queries=T, window=T) -> torch.Tensor:
    whole = torch.ones(queries, T, dtype=torch.bool)
    return (whole.tril(T - queries) & whole.triu(T - queries - window + 1))[None, None]


def padding() -> torch.Tensor:
    """int [B, T], 40 padded keys in the first row."""
    real = torch.ones(B, T, dtype=torch.long)
    real[0, :40] = 0
    return real


SEEN = causal() & padding().bool()[:, None, None]
BIAS = torch.randn(1, H, T, T, generator=torch.Generator().manual_seed(2))
FORMS = {
    "causal": ({}, causal(), 0.0),
    "fewer queries than keys": ({"queries": 150}, causal(150), 0.0),
    "window": ({"window": 50}, causal(window=50), 0.0),
    "bool": ({"mask": SEEN}, SEEN, 0.0),
    "two dimensions": ({"mask": padding()}, SEEN, 0.0),
    "two dimensions and window": (
        {"mask": padding(), "window": 50},
        causal(window=50) & padding().bool()[:, None, None],
        0.0,
    ),
    "additive": ({"mask": torch.where(SEEN, 0.0, torch.finfo(torch.float32).min)}, SEEN, 0.0),
    "biased": ({"mask": torch.where(SEEN, BIAS, -torch.inf)}, SEEN, BIAS.double()),
    "softcap": ({"softcap": 2.0}, causal(), 0.0),
    "softcap and mask": ({"softcap": 2.0, "mask": SEEN}, SEEN, 0.0),
}


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_mask(form, kv_heads):
    settings, visible, bias = FORMS[form]
    call = a_call(kv_heads, **settings)
    measured, expected = call.masses(slice(None), groups()), plain(call, visible, groups(), bias)
    there = visible.any(-1).expand(B, H, -1)  # a padding query sees nothing
    torch.testing.assert_close(measured.double()[there], expected[there], atol=1e-5, rtol=0)
    torch.testing.assert_close(measured[there].sum(-1), torch.ones(int(there.sum())), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["causal", "window", "two dimensions", "biased", "softcap"])
def test_chosen_queries_in_any_number(form):
    call = a_call(**FORMS[form][0])
    every = call.masses(slice(None), groups())
    for rows in (torch.tensor([T - 1]), torch.tensor([50, 51, 200]), torch.arange(60, T, 2)):
        torch.testing.assert_close(call.masses(rows, groups()), every[:, :, rows], atol=1e-5, rtol=0)
    torch.testing.assert_close(call.masses(slice(-9, -1), groups()), every[:, :, -9:-1], atol=1e-5, rtol=0)


def test_half_precision_is_not_rounded_further():
    call = a_call(dtype=torch.bfloat16)
    expected = plain(call, causal(), groups())
    torch.testing.assert_close(call.masses(slice(None), groups()).double(), expected, atol=1e-5, rtol=0)


def test_more_groups_than_the_head_is_wide():
    call, many = a_call(), groups(D + 3)
    expected = plain(call, causal(), many)
    torch.testing.assert_close(call.masses(slice(None), many).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_memory_stays_flat(softcap):
    """5,000 queries of 8 heads have 800 MB of weights; reading their masses takes a few MB."""
    code = f"""
import torch
from mata_interp.attention import AttentionCall
T = 5000
q, k = torch.randn(1, 8, T, 64), torch.randn(1, 4, T, 64)
call = AttentionCall(q, k, k, None, 0.125, {softcap})
groups = torch.nn.functional.one_hot(torch.arange(T) % 5).bool().T[None]
with torch.inference_mode():
    call.masses(slice(0, 2 * {BLOCK}), groups)
    begin = peak()
    masses = call.masses(slice(None), groups)
assert masses.shape == (1, 8, T, 5)
print(peak() - begin)
"""
    assert process_peak(code) < 100e6
