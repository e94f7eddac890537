"""The rules that cut windows, on profiles made by hand: what they must find, refuse, and be unsure of."""

from __future__ import annotations

import numpy as np
import pytest
from mata_interp.fusion.bounds import boundaries
from mata_interp.fusion.sentence import say

from mata_interp.fusion.recommend import choose
from mata_interp.fusion.windows import CUTS, cut, draw, overlap

ITEMS = 60
CLUSTERS = [f"clip {i // 2}" for i in range(ITEMS)]


def profile(truth: dict[int, float], n: int = 8, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """[item, layer]: mean parts in some layers, noise of items everywhere."""
    mean = np.array([truth.get(layer, 0.0) for layer in range(n)])
    return mean + np.random.default_rng(seed).normal(0, noise, (ITEMS, n))


def window(kind: str, values: np.ndarray) -> list[int]:
    return np.flatnonzero(cut(kind, draw(values, CLUSTERS, 0))[0]).tolist()


def chosen(knockout: np.ndarray, restoration: np.ndarray):
    draws = {"knockout_text": knockout, "restoration_audio": restoration}
    return choose({name: draw(v, CLUSTERS, 0) for name, v in draws.items()}, knockout.shape[1])


PLANTS = [
    {0: 1.0, 1: 2.0},
    {2: 1.0, 3: 1.0},
    {6: 2.0, 7: 1.0},
    {4: 3.0},
    {1: 1.0, 2: 0.8, 3: 1.0, 4: 2.0, 5: 0.8},
]
PLANTS += [{1: 1.0, 6: 1.0}, {0: 1.0, 3: 1.0, 4: 2.0, 7: 1.0}]


@pytest.mark.parametrize("truth", PLANTS, ids=lambda t: ",".join(map(str, t)))
def test_parts_find_windows_in_one_piece_and_in_several(truth):
    assert window("parts", profile(truth)) == sorted(truth)
    found = chosen(profile(truth), profile({k: 3 * v for k, v in truth.items()}, seed=1))
    assert np.flatnonzero(found.inside).tolist() == sorted(truth)
    assert found.verdict == "found"
    assert found.share[found.inside].sum() > 0.85


def test_the_unit_of_an_effect_does_not_matter_but_its_size_does():
    values = profile({2: 1.0, 3: 1.0})
    assert window("parts", 10 * values) == window("parts", values) == [2, 3]
    assert window("parts", values / 25) == []  # 0.08 nats


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_window(seed):
    assert window("parts", profile({}, seed=seed)) == []
    found = chosen(profile({}, seed=seed), profile({2: 1.0}, seed=seed + 1))
    assert found.verdict in ("no effect", "noise")
    assert not found.inside.any()
    assert not found.drawn.any()


def test_hiding_that_hurts_where_another_sound_does_not_is_no_fusion():
    found = chosen(profile({2: 1.0, 3: 1.0}), profile({2: 0.05}, noise=0.01))
    assert found.verdict == "no effect"
    assert not found.inside.any()


def test_what_is_read_everywhere_is_not_concentrated():
    everywhere = profile(dict.fromkeys(range(8), 1.0))
    found = chosen(everywhere, everywhere)
    assert (found.verdict, found.inside.any(), found.drawn.any()) == ("spread", False, False)


def test_an_effect_that_no_layer_stands_out_in_is_said_to_be_noise():
    rng = np.random.default_rng(0)
    swing = rng.normal(0, 30, (ITEMS, 8))
    values = swing - swing.mean(1, keepdims=True) + 0.1  # every item's parts sum to 0.8
    found = chosen(values, values)
    assert found.verdict == "noise"
    assert not found.inside.any()


def test_without_causes_saliency_decides_and_is_said_to_be_none():
    draws = {"saliency_text": draw(np.abs(profile({2: 5.0}, noise=0.01)), CLUSTERS, 0)}
    found = choose(draws, 8)
    assert (found.on, np.flatnonzero(found.inside).tolist()) == (("saliency_text",), [2])
    assert "no cause" in say(found, (2,), {}, [], {}, 1.0)
    nothing = choose({}, 8)
    assert nothing.verdict == "nothing measured"
    assert "could be measured" in say(nothing, (), {}, [], {}, 0.0)


def test_a_deficit_is_a_run_below_the_mean_that_is_read():
    flat = np.array([0.02, 1.5, 0.3, 0.4, 0.3, 1.2, 1.4, 1.6])  # layer 0 does not read the sound
    assert window("deficit", np.tile(flat, (ITEMS, 1))) == [2, 3, 4]
    assert window("deficit", np.ones((ITEMS, 8))) == []


def test_a_change_is_the_highest_stretch():
    step = np.array([0.1, 0.12, 0.1, 0.8, 0.82, 0.79, 0.1, 0.11])
    assert window("change", np.tile(step, (ITEMS, 1))) == [3, 4, 5]
    assert window("change", np.tile(np.sort(step), (ITEMS, 1))) == [5, 6, 7]
    level = 0.5 + np.random.default_rng(0).normal(0, 0.01, (ITEMS, 8))
    assert window("change", np.ones((ITEMS, 8))) == []
    assert len(window("change", level)) < 8


def test_boundaries_are_surer_with_more_items():
    truth = {2: 0.3, 3: 1.0, 4: 0.3}
    few, many = profile(truth, noise=1.0), np.vstack([profile(truth, noise=1.0, seed=s) for s in range(30)])
    clusters = [f"{i}" for i in range(len(many))]
    (edge,) = boundaries(*cut("parts", draw(many, clusters, 0)), range(8))
    assert (edge["first"], edge["last"], edge["found"]) == (2, 4, 1.0)
    assert (edge["first_interval"], edge["last_interval"]) == ([2, 2], [4, 4])
    unsure = boundaries(*cut("parts", draw(few, CLUSTERS, 0)), range(8))
    spans = [e["first_interval"] for e in unsure] + [e["last_interval"] for e in unsure]
    assert any(high > low for low, high in spans)


def test_two_pieces_have_four_boundaries():
    inside, drawn = cut("parts", draw(profile({1: 1.0, 2: 1.0, 6: 1.0}), CLUSTERS, 0))
    edges = boundaries(inside, drawn, range(10, 18))  # layers are numbered as the decoder does
    assert [(e["first"], e["last"]) for e in edges] == [(11, 12), (16, 16)]
    assert [e["first_interval"] for e in edges] == [[11, 11], [16, 16]]


def test_resamples_are_of_clusters_and_seeded():
    values = profile({2: 1.0})
    mean, drawn = draw(values, CLUSTERS, 3)
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_array_equal(drawn, draw(values, CLUSTERS, 3)[1])
    assert not np.array_equal(drawn, draw(values, CLUSTERS, 4)[1])
    alone = draw(values, ["one"] * ITEMS, 0)
    assert len(alone[1]) == 0
    for kind in CUTS:
        inside, each = cut(kind, alone)
        assert (inside.shape, each.shape) == ((8,), (0, 8))
    values[:10] = np.nan  # items that could not be measured are left out
    np.testing.assert_allclose(draw(values, CLUSTERS, 0)[0], values[10:].mean(0))


def test_overlap():
    assert overlap([1, 2, 3], [2, 3, 4]) == 0.5
    assert overlap([], []) == 1.0
    assert overlap([1], []) == 0.0
