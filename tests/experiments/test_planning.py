"""Batches and partners: decided once, by the items alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mata_interp.benchmarks import Item
from mata_interp.errors import RunError
from mata_interp.experiments.partners import audio_partners
from mata_interp.experiments.planning import plan_batches


def items_of(clusters: list[str]) -> list[Item]:
    return [Item(audio=f"{c}.wav", question="?", id=f"item {n}", source=c) for n, c in enumerate(clusters)]


def test_batches_hold_like_lengths_longest_first_whatever_the_order_given():
    items = items_of(list("abcdefg"))
    lengths = {item.id: length for item, length in zip(items, [5, 9, 5, 7, 9, 1, 5], strict=True)}
    plan = plan_batches(items, lengths, 3)
    assert [[lengths[item.id] for item in batch] for batch in plan] == [[9, 9, 7], [5, 5, 5], [1]]
    random.Random(0).shuffle(items)
    assert plan_batches(items, lengths, 3) == plan
    with pytest.raises(ValueError, match="batch_size is 0"):
        plan_batches(items, lengths, 0)


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40).filter(lambda c: len(set(c)) > 1),
    st.integers(0, 99),
)
def test_partners_are_a_derangement_of_the_recordings(clusters, seed):
    items = items_of(clusters)
    partners = audio_partners(items, seed)
    heard_by = {}
    for item in items:
        assert partners[item.id].cluster != item.cluster
        heard_by.setdefault(item.cluster, set()).add(partners[item.id].id)
    assert all(len(clips) == 1 for clips in heard_by.values())  # variants of a clip hear the same
    assert len({partners[item.id].cluster for item in items}) == len(set(clusters))  # and each clip is heard
    assert audio_partners(items[::-1], seed) == partners


def test_one_recording_has_no_partner():
    with pytest.raises(RunError, match="at least two recordings"):
        audio_partners(items_of(["a", "a"]), seed=0)
