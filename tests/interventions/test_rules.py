"""The rules on scores, whatever the scores."""

from __future__ import annotations

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mata_interp.cli.checks import check_edit
from mata_interp.errors import InterventionError
from mata_interp.interventions import RULES, Mata, register_rule, rules

B, H, Q, L = 2, 3, 2, 5
finite = st.floats(-50, 50, width=32)
scores_of = arrays.arrays("float32", (B, H, Q, L), elements=finite).map(torch.from_numpy)
keys_of = arrays.arrays("bool", (B, L)).map(torch.from_numpy)
alphas = st.floats(-3, 3)

BY_HAND = {
    "abs": lambda s, a: s + a * (s if s >= 0 else -s),
    "mul": lambda s, a: s + a * s,
    "add": lambda s, a: s + a,
    "knockout": lambda s, a: -torch.inf if a else s,
}


@pytest.mark.parametrize("rule", RULES)
@given(scores=scores_of, keys=keys_of, alpha=alphas)
@settings(max_examples=25, deadline=None)
def test_by_hand(rule, scores, keys, alpha):
    edited = RULES[rule](scores, keys, alpha)
    assert edited.shape == scores.shape
    assert edited.dtype == scores.dtype
    chosen = keys[:, None, None].expand_as(scores)
    assert torch.equal(edited[~chosen], scores[~chosen])
    expected = torch.tensor([BY_HAND[rule](s, alpha) for s in scores[chosen].tolist()])
    torch.testing.assert_close(edited[chosen], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@given(scores=scores_of, keys=keys_of)
@settings(max_examples=25, deadline=None)
def test_alpha_zero_keeps_every_bit(rule, scores, keys):
    assert torch.equal(RULES[rule](scores, keys, 0.0), scores)


@pytest.mark.parametrize("rule", RULES)
@given(scores=scores_of, keys=keys_of, alpha=alphas)
@settings(max_examples=25, deadline=None)
def test_hidden_scores_stay_hidden(rule, scores, keys, alpha):
    hidden = ~keys[:, None, None].expand_as(scores)
    edited = RULES[rule](scores.masked_fill(hidden, -torch.inf), keys, alpha)
    assert torch.isneginf(edited[hidden]).all()
    assert not edited.isnan().any()
    assert torch.isfinite(edited[~hidden]).all() or (RULES[rule].hides_keys and alpha != 0)


@given(scores=scores_of.map(torch.abs), keys=keys_of, alpha=alphas)
@settings(max_examples=25, deadline=None)
def test_mul_and_abs_agree_above_zero(scores, keys, alpha):
    torch.testing.assert_close(RULES["mul"](scores, keys, alpha), RULES["abs"](scores, keys, alpha))


@given(scores=scores_of.map(lambda s: -1 - s.abs()), keys=keys_of, alpha=st.floats(0.1, 3))
@settings(max_examples=25, deadline=None)
def test_below_zero_mul_lowers_what_abs_raises(scores, keys, alpha):
    chosen = keys[:, None, None].expand_as(scores)
    assert (RULES["mul"](scores, keys, alpha)[chosen] < scores[chosen]).all()
    assert (RULES["abs"](scores, keys, alpha)[chosen] > scores[chosen]).all()


def test_keys_may_differ_by_head_and_query():
    keys = torch.rand(B, H, Q, L, generator=torch.Generator().manual_seed(0)) < 0.5
    edited = RULES["add"](torch.zeros(B, H, Q, L), keys, 2.0)
    assert torch.equal(edited, 2.0 * keys)


def test_a_new_rule_is_one_function_and_one_entry(tiny_lalm, monkeypatch):
    monkeypatch.setattr(rules, "_rules", dict(RULES))
    monkeypatch.setattr(rules, "RULES", rules._rules)

    def double(scores, keys, alpha):
        return rules.replace_scores(keys, scores * 2.0**alpha, scores)

    register_rule("double", double, formula="scores * 2 ** alpha", label="doubled")
    assert rules.RULES["double"].label == "doubled"
    edit = Mata(1.0, [1, 2], rule="double")
    assert type(edit).from_dict(edit.to_dict()) == edit


def test_attributes_of_the_rules():
    assert {name for name, rule in RULES.items() if rule.hides_keys} == {"knockout"}
    assert {name for name, rule in RULES.items() if not rule.has_strength} == {"knockout"}
    assert RULES["knockout"].label == "knocked out"
    assert all(rule.name == name and rule.formula for name, rule in RULES.items())


def test_the_command_line_takes_names_from_the_registry():
    for name in RULES:
        check_edit(rule=name)
    with pytest.raises(typer.BadParameter, match="Did you mean 'knockout'"):
        check_edit(rule="knockuot")
    with pytest.raises(typer.BadParameter, match="Did you mean 'prefill'"):
        check_edit(phase="prefil")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rule": "ad"}, "rule 'ad'.*Did you mean 'add'"),
        ({"phase": "pre-fill"}, "phase 'pre-fill'.*Did you mean 'prefill'"),
        ({"queries": "texts"}, "queries 'texts'.*Did you mean 'text'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(wrong, message):
    with pytest.raises(InterventionError, match=message):
        Mata(0.1, [1], **wrong)


def test_a_rule_has_a_plain_name():
    with pytest.raises(InterventionError, match="'two words'"):
        register_rule("two words", lambda scores, keys, alpha: scores, formula="scores")
