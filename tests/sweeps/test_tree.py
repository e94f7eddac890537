"""The tree: one row for what is alike so far, another from where it differs."""

from __future__ import annotations

from mata_interp import Mata
from mata_interp.sweeps.tree import grow, likeness

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


def test_blocks_of_a_sorted_grid_share_almost_as_many_nodes_as_the_whole():
    """Ten thousand configurations do not fit into one block: those that share nodes stand together."""
    windows = [tuple(range(i, j)) for i in range(12) for j in range(i + 1, 13)]
    grid = [(Mata(0.1 * (k + 1), window),) for k in range(128) for window in windows]

    def nodes(some) -> int:
        return sum(len(level.parents) for level in grow([NOTHING, *some], range(12))[0].values())

    ordered = sorted(grid, key=likeness)
    blocks = sum(nodes(ordered[begin : begin + 512]) for begin in range(0, len(ordered), 512))
    assert blocks < 1.01 * nodes(grid)
