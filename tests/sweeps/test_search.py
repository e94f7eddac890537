"""The search from coarse to fine: what it tries, on which items, and how good its choice is."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.errors import ArgumentError, InterventionError
from mata_interp.interventions import DEFAULT_ALPHAS, Mata
from mata_interp.sweeps import LARGE_GRID, LEAST_CLIPS, last_round, margin, search_windows
from mata_interp.sweeps.search import LEADERS, WindowGrid, rounds_of_clips
from tests.tiny import RATE, tiny_qwen2_audio


def grid_of(layers: int, alphas=DEFAULT_ALPHAS) -> WindowGrid:
    """Every window of up to half of the layers at every strength."""
    edits = {
        f"{first}-{stop - 1}@{alpha}": Mata(alpha, range(first, stop))
        for first in range(layers)
        for stop in range(first + 1, min(layers, first + max(1, layers // 2)) + 1)
        for alpha in alphas
    }
    return WindowGrid.from_configurations(edits)


@pytest.mark.parametrize(
    ("layers", "distances"),
    [(4, (1,)), (8, (1,)), (16, (2, 1)), (30, (4, 2, 1)), (32, (4, 2, 1)), (64, (8, 4, 2, 1))],
)
def test_distances_are_halved_from_an_eighth_of_the_depth(layers, distances):
    assert grid_of(layers, [1.0]).distances == distances


def test_a_small_grid_is_searched_whole():
    grid = grid_of(8)
    assert sorted(grid.first()) == sorted(grid.names)
    assert len(grid.names) == 130 < LARGE_GRID < len(grid_of(18).names)


def test_the_first_round_has_windows_between_boundaries_and_every_layer():
    windows = {place[:2] for place in grid_of(30).first()}
    boundaries = {0, 4, 8, 12, 16, 20, 24, 28, 30}
    assert {(k, k + 1) for k in range(30)} <= windows
    assert {w for w in windows if w[1] - w[0] > 1} == {
        (a, b) for a in boundaries for b in boundaries if 1 < b - a <= 15
    }


def test_neighbours_move_each_boundary_and_the_strength():
    grid = grid_of(32)
    assert set(grid.near([(8, 12, 2)], 2)) == {
        (a, b, k) for a in (6, 8, 10) for b in (10, 12, 14) for k in (1, 2, 3) if a < b
    }
    assert (0, 1, 0) in grid.near([(0, 1, 0)], 1)  # at the edge, what there is


def test_every_window_can_be_reached():
    """Whatever the best window is, moves of the distances lead to it from the first round."""
    grid = grid_of(32, [1.0])
    reached = set(grid.first())
    for distance in grid.distances[1:]:
        reached |= set(grid.near(sorted(reached), distance))
    assert reached == set(grid.names)


def test_leaders_are_windows_at_their_best_and_ties_go_to_the_weaker_narrower_earlier():
    grid = grid_of(8)
    gains = dict.fromkeys(grid.names, 0.0)
    assert grid.leaders(gains)[:2] == [(0, 1, 0), (1, 2, 0)]
    gains |= {(2, 4, 3): 2.0, (2, 4, 4): 1.9, (1, 4, 0): 1.0}
    assert grid.leaders(gains)[:2] == [(2, 4, 3), (1, 4, 0)]
    assert len(grid.leaders(gains)) == LEADERS


def test_what_is_no_window_is_refused():
    with pytest.raises(InterventionError, match="'gap'"):
        WindowGrid.from_configurations({"gap": Mata(1.0, [0, 2]), "all": Mata(1.0, [0, 1, 2])})
    with pytest.raises(InterventionError, match="'b' and 'a'"):
        WindowGrid.from_configurations({"a": Mata(1.0, [0]), "b": Mata(1.0, [0])})


def world(seed: int, layers: int, items: int) -> np.ndarray:
    """Changes of the margin [items, first, stop, alpha]: a stretch of layers helps, others harm a little.

    Each item has layers of its own besides those that all share, so that means over items are noisy; an edit
    that is too strong harms.
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(0, layers - 2)
    width = rng.integers(1, layers // 2)
    shared = rng.normal(-0.05, 0.1, layers)
    shared[first : first + width] += rng.uniform(0.2, 1.0) / width**0.5
    by_item = shared + rng.normal(0, 0.3, (items, layers))
    sums = np.concatenate([np.zeros((items, 1)), by_item.cumsum(1)], 1)
    inside = sums[:, None, :] - sums[:, :, None]  # [items, first, stop]
    alphas, best = np.array(DEFAULT_ALPHAS), rng.uniform(0.1, 2.0)
    strength = (alphas / best) * np.exp(1 - alphas / best)
    return np.tanh(inside[..., None] / 2) * strength


def test_the_choice_is_as_good_as_that_of_the_full_grid():
    """Held out: mean change on 300 other items, in 60 worlds of 32 layers and 96 items to choose on."""
    grid, lost, tried = grid_of(32), [], []
    places = {name: place for place, name in grid.names.items()}
    turns = np.array([0, 1, 2, 2])[np.arange(96) % 4]
    for seed in range(60):
        effects = world(seed, 32, 96 + 300)
        measured, held_out = effects[:96], effects[96:].mean(0)
        means = iter([measured[turns == number].mean(0) for number in range(3)])

        def measure(names: list[str], means=means) -> list[float]:
            mean = next(means)
            return [mean[places[name]] for name in names]

        rounds = grid.search(measure)
        best = places[rounds[-1]["leaders"][0]]
        whole = measured.mean(0)
        lost.append(held_out[best] - held_out[max(grid.names, key=lambda place, whole=whole: whole[place])])
        tried.append(len({name for one in rounds for name in one["configurations"]}))
    assert max(tried) < 0.35 * len(grid.names)
    mean, error = np.mean(lost), np.std(lost) / len(lost) ** 0.5
    assert mean + 1.96 * error > 0, (mean, error)
    assert mean > -0.01, (mean, error)


@pytest.fixture(scope="module")
def searched():
    lalm = mi.LALM(*tiny_qwen2_audio(seed=3, layers=16))
    rng = np.random.default_rng(0)
    items = [
        mi.Item(
            audio=(rng.normal(0, 0.1, RATE // 4).astype(np.float32), RATE),
            question="Which?",
            choices=("a", "b"),
            answer="ab"[n % 2],
            id=f"item {n}",
            source=f"clip {n // 2}",
        )
        for n in range(2 * LEAST_CLIPS)
    ]
    edits = mi.window_configs(lalm, (0.5, 1.0), widths=range(1, 9))
    return lalm, items, edits, search_windows(lalm, items, edits, "none", batch_size=16, progress=False)


def test_the_result_of_a_search(searched):
    _, items, edits, swept = searched
    rounds = json.loads(swept.attrs["rounds"])
    assert [one["distance"] for one in rounds] == [2, 1]
    assert (swept.attrs["search"], swept.attrs["grid"]) == ("coarse", len(edits))
    tried = {name for one in rounds for name in one["configurations"]}
    assert set(swept["configuration"].values) == tried | {"none"}
    assert len(tried) < len(edits)
    # every item is in one round, and both items of a clip in the same
    assert sorted(swept["item"].values) == sorted(item.id for item in items)
    clips = [set(swept["cluster"].values[swept["round"].values == k]) for k in (0, 1)]
    assert not clips[0] & clips[1]
    assert len(clips[0]) == len(clips[1]) == LEAST_CLIPS // 2
    values = margin(swept)
    for number, one in enumerate(rounds):
        part = values.isel(item=(swept["round"] == number).values)
        measured = set(part["configuration"].values[part.notnull().all("item").values])
        assert measured == set(one["configurations"]) | {"none"}
        assert part.notnull().any("item").sum() == len(measured)


def test_the_numbers_are_those_of_a_sweep(searched):
    lalm, items, edits, swept = searched
    last = last_round(swept)
    names = [str(name) for name in last["configuration"].values]
    chosen = {item.id: item for item in items}
    plain = mi.sweep(
        lalm,
        [chosen[str(name)] for name in last["item"].values],
        {name: edits.get(name) for name in names},
        batch_size=16,
        progress=False,
    )
    np.testing.assert_allclose(last.values, plain.values, atol=1e-4)
    assert (last["layers"].values == plain["layers"].values).all()
    assert (last["answer"].values == plain["answer"].values).all()
    rounds = json.loads(swept.attrs["rounds"])
    moved = margin(plain) - margin(plain).sel(configuration="none")
    assert str(moved.mean("item").idxmax().item()) == rounds[-1]["leaders"][0]


def test_a_search_needs_clips(searched):
    lalm, items, edits, _ = searched
    with pytest.raises(ArgumentError, match=f"at least {LEAST_CLIPS} clips, and there are {LEAST_CLIPS - 1}"):
        search_windows(lalm, items[2:], edits, "none", progress=False)


def test_half_of_the_clips_are_for_the_last_round():
    items = [mi.Item(audio=None, question="", id=str(n), source=f"{n}") for n in range(96)]
    assert [len(part) for part in rounds_of_clips(items, 3)] == [24, 24, 48]
    assert [len(part) for part in rounds_of_clips(items, 1)] == [96]
