"""Which rows and keys an intervention touches, call by call, seen through the change of the output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mata_interp.attention import AttentionCall
from mata_interp.errors import InterventionError
from mata_interp.interventions import AttentionEdit, Editing, Mata

P = 6  # sink, two of audio, two of the question, template
NAMES = ["sink", "audio", "audio", "question", "question", "template"]
GROUPS = {
    name: torch.tensor([[n == name for n in NAMES]])
    for name in ("audio", "question", "options", "caption", "template", "sink", "generated")
}
HEADS = {0: 2, 1: 2}


def a_call(queries: int, keys: int) -> AttentionCall:
    """Each key's value is one-hot, so that a row of the output is the row of attention weights."""
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, queries, 4, generator=draw)
    key = torch.randn(1, 1, keys, 4, generator=draw)
    return AttentionCall(query, key, torch.eye(keys)[None, None], None, 0.5)


def raised(mata: AttentionEdit | tuple, queries: int, keys: int, total: int | None = None, layer: int = 0):
    """The edited rows, and for each of them the keys whose weight rose."""
    editing = Editing((mata,) if isinstance(mata, AttentionEdit) else mata, GROUPS, HEADS)
    change = editing(layer, a_call(queries, keys), total or keys)
    if change is None:
        return None
    rows, delta = change
    rose = (delta > 1e-6)[0]  # (R, H, L)
    return range(queries)[rows], [rose[r].any(0).nonzero().flatten().tolist() for r in range(len(rose))]


def test_the_last_prompt_token_then_every_token_of_the_answer():
    mata = Mata(1.0, [0], "add")
    assert raised(mata, P, P) == (range(5, 6), [[1, 2]])
    assert raised(mata, 1, P + 3) == (range(0, 1), [[1, 2]])
    assert raised(mata, 2, P + 3) == (range(0, 2), [[1, 2]] * 2)
    assert raised(mata, P + 2, P + 2) == (range(5, 8), [[1, 2]] * 3)
    assert raised(mata, P - 1, P - 1) is None  # a first part of the prompt


@pytest.mark.parametrize(
    ("phase", "rows"), [("prefill", range(5, 6)), ("decode", range(6, 8)), ("both", range(5, 8))]
)
def test_phases(phase, rows):
    mata = Mata(1.0, [0], "add", phase=phase)
    assert raised(mata, P + 2, P + 2)[0] == rows
    assert (raised(mata, P, P) is None) == (phase == "decode")
    assert (raised(mata, 1, P + 1) is None) == (phase == "prefill")


def test_two_phases_in_one_call():
    parts = (Mata(1.0, [0], "add", phase="prefill"), Mata(1.0, [0], "add", phase="decode", keys="sink"))
    assert raised(parts, P + 1, P + 1) == (range(5, 7), [[1, 2], [0]])


def test_text_is_not_the_sink_nor_the_query_itself_nor_the_answer():
    mata = Mata(1.0, [0], "add", keys="text")
    assert raised(mata, P, P) == (range(5, 6), [[3, 4]])
    assert raised(mata, 1, P + 2) == (range(0, 1), [[3, 4, 5]])


def test_generated_tokens_are_keys_once_they_are_there():
    mata = Mata(1.0, [0], "add", keys="generated", phase="decode")
    assert raised(mata, 1, P + 3) == (range(0, 1), [[6, 7, 8]])


def test_a_sliding_cache_holds_the_newest_keys():
    """With 4 keys of 8 tokens, key j is position 4 + j: nothing of the audio is left, then some of it."""
    mata = Mata(1.0, [0], "add", keys="question")
    assert raised(mata, 1, 4, total=8) == (range(0, 1), [[0]])
    assert raised(mata, 1, 5, total=8) == (range(0, 1), [[0, 1]])


def test_heads_and_layers():
    editing = Editing((Mata(1.0, [0, 1], "add", heads={0: [1], 1: [0, 1]}),), GROUPS, HEADS)
    assert editing.layers == (0, 1)
    _, delta = editing(0, a_call(1, P), P)
    assert not delta[0, 0, 0].any()
    assert delta[0, 0, 1].any()
    _, delta = editing(1, a_call(1, P), P)
    assert delta[0, 0].any(-1).all()


def test_dose_is_the_mean_over_calls_and_leaves_padding_out():
    editing = Editing((Mata(1.0, [0], "add"),), GROUPS, HEADS)
    assert all(np.isnan(values).all() for values in editing.dose().values())
    editing(0, a_call(1, P), P)
    once = editing.dose()
    assert once["boost"] == pytest.approx(1.0)
    assert 0 < once["mass_before"] < once["mass_after"] < 1
    editing.counted = torch.tensor([[True, False, False]])
    editing(0, a_call(3, P + 3), P + 3)
    first = Editing((Mata(1.0, [0], "add"),), GROUPS, HEADS)
    call = a_call(3, P + 3)
    first(
        0, AttentionCall(call.query[:, :, :1], call.key[:, :, :-2], call.value[:, :, :-2], None, 0.5), P + 1
    )
    for name, values in editing.dose().items():
        assert values == pytest.approx((once[name] + first.dose()[name]) / 2, abs=1e-6)


def test_nothing_to_edit_is_said_and_not_done_silently():
    with pytest.raises(InterventionError, match="Row 0 of the prompt has no options tokens"):
        Editing((Mata(1.0, [0], keys="options"),), GROUPS, HEADS)
    with pytest.raises(InterventionError, match="No group 'vision': choose one of text, audio"):
        Editing((Mata(1.0, [0], keys="vision"),), GROUPS, HEADS)
