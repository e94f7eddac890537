"""The masks of `Editing` and of `TreeEditing` against a naive loop over queries and keys."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.attention import AttentionCall
from mata_interp.errors import InterventionError
from mata_interp.interventions import AttentionEdit, Editing
from mata_interp.interventions.selection import (
    PHASES,
    QUERIES,
    TEXT,
    first_query,
    refuse_blind_queries,
    select_queries,
    select_tokens,
)
from mata_interp.lalm import SuffixTokens
from mata_interp.sweeps.tree import grow
from mata_interp.sweeps.tree_edits import TreeEditing

NAMES = ("audio", "question", "options", "caption", "template", "sink", "generated")
HEADS = 3


def naive(names: list[str], edit: AttentionEdit, query: int, key: int, head: int) -> bool:
    """Whether an edit touches one score; ``names`` has the group of each prompt token, "" for padding."""
    width = len(names)
    if key > query or (key < width and names[key] == ""):
        return False  # the query does not see the key
    heads = edit.heads_of(0)
    if heads is not None and head not in heads:
        return False
    if edit.phase == "reasoning":
        return False  # no thought is open
    if query >= width:
        if edit.phase == "prefill":
            return False
    else:
        if edit.phase == "decode":
            return False
        first_audio = names.index("audio") if "audio" in names else -1
        of_text = edit.queries == "text" and names[query] in TEXT and query > first_audio
        if query != width - 1 and not of_text:
            return False
    group = names[key] if key < width else "generated"
    if edit.keys == "text":
        return group in TEXT and key != query
    return group == edit.keys


@st.composite
def prompts(draw) -> list[list[str]]:
    """The groups of the tokens of two left-padded rows; each has audio and a question."""
    rows = []
    for _ in range(2):
        names = draw(st.lists(st.sampled_from(NAMES[1:5]), min_size=1, max_size=4))
        audio = draw(st.integers(1, 3))
        rows.append(["sink", *names, *["audio"] * audio, "question", *names[::-1], "template"])
    width = max(map(len, rows))
    return [[""] * (width - len(row)) + row for row in rows]


edits = st.builds(
    AttentionEdit,
    alpha=st.just(1.0),
    layers=st.just([0]),
    rule=st.just("add"),
    heads=st.one_of(st.just("all"), st.lists(st.integers(0, HEADS - 1), min_size=1, max_size=2)),
    phase=st.sampled_from(PHASES),
    keys=st.sampled_from(["audio", "text", "question", "template", "sink", "generated"]),
    queries=st.sampled_from(QUERIES),
)


def groups_of(rows: list[list[str]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([[group == name for group in row] for row in rows]) for name in NAMES}


@given(rows=prompts(), edit=edits, answer=st.integers(0, 3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_mask_of_a_call(rows, edit, answer, data):
    """Whatever part of prompt and answer a call holds."""
    width, total = len(rows[0]), len(rows[0]) + answer
    count = data.draw(st.integers(1, total))
    real = torch.tensor([[name != "" for name in row] + [True] * answer for row in rows])
    call = AttentionCall(
        torch.zeros(2, HEADS, count, 4), torch.zeros(2, 1, total, 4), torch.zeros(2, 1, total, 4), real, 1.0
    )
    editing = Editing([edit], groups_of(rows), {0: HEADS})
    visible = call.visible(slice(None))
    mask = torch.zeros(2, HEADS, count, total, dtype=torch.bool)
    if change := editing(0, call, total):
        (made,) = editing.edits(0, call, total)
        mask[:, :, change[0]] = made.keys
    mask &= visible
    for b, names in enumerate(rows):
        for head in range(HEADS):
            for q in range(count):
                for key in range(total):
                    query = total - count + q
                    expected = naive(names, edit, query, key, head) and names[min(query, width - 1)] != ""
                    assert bool(mask[b, head, q, key]) == expected, (b, head, query, key)


@given(rows=prompts(), edit=edits, begin=st.integers(1, 4), answers=st.lists(st.integers(1, 2), max_size=2))
@settings(max_examples=60, deadline=None)
def test_the_mask_of_a_sweep(rows, edit, begin, answers):
    """Slots: the end of the prompt, then the tokens of several options behind it."""
    width = len(rows[0])
    given_ = width - first_query(edit.queries, edit.phase, groups_of(rows))
    given_ = max(given_, min(begin, width - 1))
    slots = given_ + sum(answers)
    depth = torch.arange(slots).clamp(max=given_ - 1) - (given_ - 1)
    sees = torch.zeros(slots, slots, dtype=torch.bool)
    sees[:, :given_] = torch.ones(slots, given_).tril().bool()
    at = given_
    for count in answers:
        depth[at : at + count] = torch.arange(1, count + 1)
        sees[at : at + count, at : at + count] = torch.ones(count, count).tril().bool()
        at += count
    suffix = SuffixTokens(
        torch.zeros(2, slots, dtype=torch.long), depth.expand(2, -1), sees.expand(2, -1, -1), given_
    )
    levels, (_, node) = grow([(), (edit,)], [0])
    past = width - given_
    visible = torch.cat(
        [torch.tensor([[name != "" for name in row[:past]] for row in rows])[:, None].expand(-1, slots, -1),
         sees.expand(2, -1, -1).clone()], -1
    )  # fmt: skip
    for b, row in enumerate(rows):
        for i in range(given_):
            if row[past + i] == "":
                visible[b, :, past + i] = False
                visible[b, i] = False
    scores = torch.zeros(2, HEADS, 2, slots, past + slots)
    scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
    edited = TreeEditing(levels, [(), (edit,)], groups_of(rows), suffix)(0, scores)
    assert torch.equal(edited[:, :, 0], scores[:, :, 0])
    mask = edited[:, :, node] == 1.0
    positions = [past + i if i < given_ else width - 1 + int(depth[i]) for i in range(slots)]
    for b, names in enumerate(rows):
        for head in range(HEADS):
            for slot in range(slots):
                for column in range(past + slots):
                    key = column if column < past else positions[column - past]
                    expected = bool(visible[b, slot, column]) and naive(
                        names, edit, positions[slot], key, head
                    )
                    assert bool(mask[b, head, slot, column]) == expected, (b, head, slot, column)


def test_padding_is_in_no_group_and_no_query():
    rows = [["", "", "sink", "audio", "question"], ["sink", "audio", "audio", "question", "template"]]
    groups = groups_of(rows)
    assert select_queries("all", groups)[0].tolist() == [False, False, True, True, True]
    assert select_queries("text", groups)[1].tolist() == [False, False, False, True, True]
    assert first_query("text", "both", groups) == 3
    assert first_query("all", "both", groups) == 0
    assert first_query("text", "decode", groups) == 5


def test_names_of_groups_are_refused_with_the_nearest():
    groups = groups_of([["sink", "audio", "question"]])
    with pytest.raises(InterventionError, match="No group 'sound': choose one of text, audio"):
        select_tokens("sound", groups)
    with pytest.raises(InterventionError, match="Did you mean 'audio'"):
        select_tokens("adio", groups)
    with pytest.raises(InterventionError, match=r"Row 0 .* no caption"):
        select_tokens("caption", groups)


def test_a_query_that_sees_nothing_is_refused_only_where_it_was_edited():
    edited = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]])
    refuse_blind_queries(edited, torch.tensor([[True, True], [False, False]]), 3)
    with pytest.raises(InterventionError, match="layer 3"):
        refuse_blind_queries(edited, torch.tensor([[False, False], [True, False]]), 3)
