"""Mata as data: what it accepts, how it compares, and its journey through JSON."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mata_interp.errors import InterventionError
from mata_interp.interventions import RULES, AttentionEdit, Mata, in_order
from mata_interp.interventions.selection import PHASES, QUERIES

HEADS = {0: 4, 1: 4, 3: 8}  # layer 2 has no attention

layers_of = st.lists(st.integers(0, 40), max_size=6)
heads_of = st.lists(st.integers(0, 40), min_size=1, max_size=4)


@st.composite
def matas(draw) -> AttentionEdit:
    layers = draw(layers_of)
    by_layer = st.fixed_dictionaries({layer: heads_of for layer in layers})
    return Mata(
        draw(st.floats(allow_nan=False, allow_infinity=False)),
        layers,
        rule=draw(st.sampled_from(sorted(RULES))),
        heads=draw(st.one_of(st.just("all"), heads_of, by_layer)),
        phase=draw(st.sampled_from(PHASES)),
        queries=draw(st.sampled_from(QUERIES)),
        keys=draw(st.sampled_from(["audio", "text", "question"])),
    )


@given(matas())
def test_through_json_and_pickle_and_back(mata):
    back = AttentionEdit.from_dict(json.loads(json.dumps(mata.to_dict())))
    assert back == mata
    assert hash(back) == hash(mata)
    assert pickle.loads(pickle.dumps(mata)) == replace(mata) == mata
    assert eval(repr(mata), {"AttentionEdit": AttentionEdit}) == mata


def test_defaults_are_the_papers_as_far_as_they_are_known():
    assert Mata(0.1, [4, 3]).to_dict() == {
        "alpha": 0.1, "layers": [3, 4], "rule": "abs", "heads": "all", "phase": "both", "keys": "audio",
        "queries": "last", "chosen_on": [],
    }  # fmt: skip


def test_settings_written_differently_are_equal():
    assert Mata(1, np.array([3, 1, 3]), heads=(2, 0)) == Mata(
        np.float32(1.0), range(1, 4, 2), heads=[0, 2, 2]
    )
    assert Mata(1, [1], heads={1: [0]}) != Mata(1, [1], heads=[0])


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        Mata(0.1, [1]).alpha = 2.0


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf, "0.1", None, True, 1j])
def test_alpha_must_be_a_finite_number(alpha):
    with pytest.raises(InterventionError, match="alpha is"):
        Mata(alpha, [1])


def test_a_negative_alpha_is_a_control():
    assert Mata(-0.5, [1]).alpha == -0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": [-1]}, "layers is"),
        ({"layers": 3}, "layers is 3"),
        ({"layers": "3-5"}, "layers is '3-5'"),
        ({"layers": [1.5]}, "layers is"),
        ({"layers": [True]}, "layers is"),
        ({"rule": "scale"}, "No rule 'scale': choose one of abs, mul, add"),
        ({"phase": "later"}, "No phase 'later'"),
        ({"queries": "all"}, "No queries 'all'"),
        ({"heads": []}, "names no head"),
        ({"heads": "some"}, "heads is 'some'"),
        ({"heads": [-2]}, "heads is"),
        ({"heads": {1: [0]}}, r"heads names layers \[1\], but layers are \[1, 2\]"),
        ({"heads": {1: [0], 2: []}}, "names no head"),
        ({"heads": {"x": [0]}}, "heads names layers"),
        ({"keys": ""}, "keys is ''"),
        ({"keys": ["audio"]}, "keys is"),
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(InterventionError, match=message):
        Mata(**({"alpha": 0.1, "layers": [1, 2]} | values))


def test_bind():
    mata = Mata(0.1, [0, 3], heads={0: [3], 3: [7]})
    assert mata.bind(HEADS) is mata
    with pytest.raises(
        InterventionError, match=r"No attention in layer 2: the model has it in layers 0-1,3\."
    ):
        Mata(0.1, [1, 2]).bind(HEADS)
    with pytest.raises(InterventionError, match="No head 4 in layer 1: its heads are 0-3"):
        Mata(0.1, [1, 3], heads=[4]).bind(HEADS)


def test_heads_of():
    assert Mata(0.1, [0, 3]).heads_of(0) is None
    assert Mata(0.1, [0, 3], heads=[2, 1]).heads_of(3) == (1, 2)
    assert Mata(0.1, [0, 3], heads={0: [3], 3: [7]}).heads_of(3) == (7,)


def test_in_order():
    one, two, none = Mata(0.1, [1]), Mata(0.2, [1]), Mata(0.3, [])
    assert in_order(None) == in_order(()) == in_order(none) == ()
    assert in_order(one) == (one,)
    assert in_order([two, none, one]) == (two, one)
    with pytest.raises(InterventionError, match="is not an intervention"):
        in_order((one, 0.1))


def test_the_clips_it_was_chosen_on_are_carried_but_not_compared():
    mata = Mata(0.1, [1], chosen_on=["b", "a", "b"])
    assert mata == Mata(0.1, [1])
    assert AttentionEdit.from_dict(json.loads(json.dumps(mata.to_dict()))).chosen_on == ("a", "b")
