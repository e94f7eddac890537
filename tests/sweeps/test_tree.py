"""The tree: one row for what is alike so far, another from where it differs."""

from __future__ import annotations

from mata_interp import Mata
from mata_interp.sweeps.tree import grow

NOTHING = ()
EARLY, LATE = (Mata(1.0, [1]),), (Mata(1.0, [3]),)
BOTH = (Mata(1.0, [1, 3]),)
ON_TEXT = (Mata(1.0, [1], keys="text"),)


def test_configurations_share_what_they_have_in_common():
    levels, ends = grow([NOTHING, EARLY, LATE, BOTH, EARLY, ON_TEXT], range(5))
    assert [len(level.edits) for level in levels.values()] == [1, 3, 3, 5, 5]
    assert [level.branches for level in levels.values()] == [False, True, False, True, False]
    assert ends[1] == ends[4]
    assert len(set(ends)) == 5
    assert levels[3].edits[ends[3]] == BOTH
    assert levels[3].parents[ends[2]] == levels[3].parents[ends[0]]


def test_the_way_back_from_the_end_is_what_the_configuration_does():
    some = [NOTHING, EARLY, LATE, BOTH, (*EARLY, *ON_TEXT), (*ON_TEXT, *EARLY)]
    levels, ends = grow(some, range(5))
    for parts, node in zip(some, ends, strict=True):
        for layer in reversed(range(5)):
            done = [(p.rule, p.alpha, p.keys) for p in levels[layer].edits[node]]
            assert done == [(p.rule, p.alpha, p.keys) for p in parts if layer in p.layers]
            node = levels[layer].parents[node]
        assert node == 0
