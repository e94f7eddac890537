"""The rules for windows, on profiles made by hand: what they find and reject, and how certain they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mata_interp.fusion.boundaries import boundaries
from mata_interp.fusion.recommend import DECIDING, IN_ORDER, choose
from mata_interp.fusion.summary import Findings, summarize
from mata_interp.fusion.windows import WINDOW_RULES, apply_window_rule, draw_profiles, overlap

ITEMS = 60
CLUSTERS = [f"clip {i // 2}" for i in range(ITEMS)]


def profile(truth: dict[int, float], n: int = 8, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """[item, layer]: mean parts in some layers, noise of items everywhere."""
    mean = np.array([truth.get(layer, 0.0) for layer in range(n)])
    return mean + np.random.default_rng(seed).normal(0, noise, (ITEMS, n))


def window(kind: str, values: np.ndarray) -> list[int]:
    return np.flatnonzero(apply_window_rule(kind, values, CLUSTERS)[0]).tolist()


def chosen(knockout: np.ndarray, restoration: np.ndarray):
    profiles = {"knockout_text": knockout, "restoration_audio": restoration}
    return choose(profiles, CLUSTERS, knockout.shape[1])[0]


TRUTHS = [
    {0: 1.0, 1: 2.0},
    {2: 1.0, 3: 1.0},
    {6: 2.0, 7: 1.0},
    {4: 3.0},
    {1: 1.0, 2: 0.8, 3: 1.0, 4: 2.0, 5: 0.8},
]
TRUTHS += [{1: 1.0, 6: 1.0}, {0: 1.0, 3: 1.0, 4: 2.0, 7: 1.0}]


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda t: ",".join(map(str, t)))
def test_parts_find_contiguous_and_split_windows(truth):
    assert window("parts", profile(truth)) == sorted(truth)
    result = chosen(profile(truth), profile({k: 3 * v for k, v in truth.items()}, seed=1))
    assert np.flatnonzero(result.inside).tolist() == sorted(truth)
    assert result.verdict == "found"
    assert 0.85 < result.share_inside <= 1
    assert result.stability > 0.9


def test_the_unit_of_an_effect_does_not_matter_but_its_size_does():
    values = profile({2: 1.0, 3: 1.0})
    assert window("parts", 10 * values) == window("parts", values) == [2, 3]
    assert window("parts", values / 25) == []  # 0.08 nats


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_window(seed):
    assert window("parts", profile({}, seed=seed)) == []
    result = chosen(profile({}, seed=seed), profile({2: 1.0}, seed=seed + 1))
    assert result.verdict in ("no effect", "too few clips")
    assert not result.inside.any()
    assert not result.resampled.any()


def test_an_effect_of_hiding_alone_is_no_fusion():
    result = chosen(profile({2: 1.0, 3: 1.0}), profile({2: 0.05}, noise=0.01))
    assert result.verdict == "no effect"
    assert not result.inside.any()


def test_audio_that_is_read_everywhere_is_not_concentrated():
    everywhere = profile(dict.fromkeys(range(8), 1.0))
    result = chosen(everywhere, everywhere)
    assert (result.verdict, result.inside.any(), result.resampled.any()) == ("spread", False, False)


def test_an_effect_in_which_no_layer_stands_out_needs_more_clips():
    rng = np.random.default_rng(0)
    swing = rng.normal(0, 30, (ITEMS, 8))
    values = swing - swing.mean(1, keepdims=True) + 0.1  # every item's parts sum to 0.8
    result = chosen(values, values)
    assert result.verdict == "too few clips"
    assert result.clips_needed > 30
    assert not result.inside.any()


def test_without_causal_criteria_saliency_decides_and_the_summary_says_so():
    result, deciding = choose({"saliency_text": np.abs(profile({2: 5.0}, noise=0.01))}, CLUSTERS, 8)
    assert (deciding, np.flatnonzero(result.inside).tolist()) == (("saliency_text",), [2])
    summary = summarize(Findings(result, deciding, (2,), {}, [], {}))
    assert "layer 2" in summary
    assert "not causal" in summary
    nothing, deciding = choose({}, [], 8)
    assert nothing.verdict == "nothing measured"
    assert summarize(Findings(nothing, deciding, (), {}, [], {}))


def test_what_one_layer_costs_and_gives_back_decides_where_it_was_measured():
    """Layers 2 and 5 replace each other, layers 3 and 7 need each other: each counts half. In order, from
    the first layer on, layer 5 would have all that 2 and 5 do."""
    costs, gains = profile({3: 1.0, 7: 1.0}), profile({2: 1.0, 5: 1.0}, seed=1)
    order, effect = profile({5: 1.0, 7: 1.0}, seed=2), 2 + np.random.default_rng(3).normal(0, 0.3, ITEMS)
    both = dict(zip(DECIDING, (costs, gains), strict=True))
    profiles = {**both, "knockout_text": order, "restoration_audio": order}
    result, deciding = choose(profiles, CLUSTERS, 8, effect=effect)
    assert deciding == DECIDING
    assert np.flatnonzero(result.inside).tolist() == [2, 3, 5, 7]
    np.testing.assert_allclose(result.share, (costs + gains).mean(0) / (costs + gains).sum(1).mean())
    for incomplete, more in ((profiles, None), ({**profiles, DECIDING[1]: None}, effect)):
        measured = {name: values for name, values in incomplete.items() if values is not None}
        result, deciding = choose(measured, CLUSTERS, 8, effect=more)
        assert (deciding, np.flatnonzero(result.inside).tolist()) == (IN_ORDER, [5, 7])
    assert choose(both, CLUSTERS, 8, effect=effect - effect.mean())[0].verdict == "no effect"
    assert not len(choose(both, CLUSTERS, 8, effect=effect, resamples=0)[0].resampled)


def test_the_summary_names_layers_that_are_not_needed_and_quotes_the_whole_effect():
    both = dict(zip(DECIDING, (profile({3: 1.0}), profile({2: 1.0, 3: 1.0})), strict=True))
    effect = np.full(ITEMS, 1.2) + np.random.default_rng(0).normal(0, 0.1, ITEMS)
    choice, deciding = choose(both, CLUSTERS, 8, effect=effect)
    edges = boundaries(choice.inside, choice.resampled, range(8))
    windows = {"restoration_audio": (6,)}
    found = Findings(choice, deciding, (2, 3), windows, edges, {}, (1.2, 1.1, 1.3), replaceable=(2,))
    summary = summarize(found)
    for fact in (
        "layers 2\u20133",
        "1.20 nats (1.10 to 1.30)",
        "in layer 2 alone",
        "another clip's gives layer 6",
    ):
        assert fact in summary
    assert "make up for it" not in summarize(replace(found, replaceable=()))


def totals(value: float) -> dict[str, tuple[float, float, float]]:
    return {name: (value, value - 0.01, value + 0.01) for name in ("knockout_text", "restoration_audio")}


def test_the_summary_states_window_intervals_share_and_effects():
    values = profile({2: 1.0, 3: 1.0})
    choice = chosen(values, values)
    edges = boundaries(choice.inside, choice.resampled, range(8))
    windows = {"knockout_text": (2, 3), "restoration_audio": (5,), "knockout_last": (4,), "deficit": (7,)}
    summary = summarize(Findings(choice, IN_ORDER, (2, 3), windows, edges, totals(1.25)))
    for fact in ("layers 2\u20133", "first 2, last 3", "1.25 nats (1.24 to 1.26)", "layer 5", "layer 4"):
        assert fact in summary
    assert "1 of 1 attention and gradient criteria" in summary
    assert "attention deficit: layer 7" in summary


def test_the_summary_of_no_effect_quotes_the_effects():
    choice = chosen(profile({}), profile({2: 0.05}, noise=0.01))
    assert choice.verdict == "no effect"
    summary = summarize(Findings(choice, IN_ORDER, (), {}, [], totals(0.02)))
    assert summary.startswith("No detectable effect of audio on the answers")
    assert "0.02 nats (0.01 to 0.03)" in summary


def test_a_deficit_is_a_run_below_the_mean_with_some_attention():
    flat = np.array([0.02, 1.5, 0.3, 0.4, 0.3, 1.2, 1.4, 1.6])  # layer 0 does not attend to the audio
    assert window("deficit", np.tile(flat, (ITEMS, 1))) == [2, 3, 4]
    assert window("deficit", np.ones((ITEMS, 8))) == []


def test_a_change_is_the_highest_segment():
    step = np.array([0.1, 0.12, 0.1, 0.8, 0.82, 0.79, 0.1, 0.11])
    assert window("change", np.tile(step, (ITEMS, 1))) == [3, 4, 5]
    assert window("change", np.tile(np.sort(step), (ITEMS, 1))) == [5, 6, 7]
    level = 0.5 + np.random.default_rng(0).normal(0, 0.01, (ITEMS, 8))
    assert window("change", np.ones((ITEMS, 8))) == []
    assert len(window("change", level)) < 8


def test_boundaries_are_more_certain_with_more_items():
    truth = {2: 0.3, 3: 1.0, 4: 0.3}
    few, many = profile(truth, noise=1.0), np.vstack([profile(truth, noise=1.0, seed=s) for s in range(30)])
    clusters = [f"{i}" for i in range(len(many))]
    (edge,) = boundaries(*apply_window_rule("parts", many, clusters), range(8))
    assert (edge["first"], edge["last"], edge["found"]) == (2, 4, 1.0)
    assert (edge["first_interval"], edge["last_interval"]) == ([2, 2], [4, 4])
    uncertain = boundaries(*apply_window_rule("parts", few, CLUSTERS), range(8))
    spans = [e["first_interval"] for e in uncertain] + [e["last_interval"] for e in uncertain]
    assert any(high > low for low, high in spans)


def test_the_interval_of_a_boundary_is_the_shortest_with_95_percent():
    """Of 100 resamples 3 begin a layer earlier and 2 a layer later, and 10 end anywhere."""
    inside = np.arange(10) // 4 == 1  # 4 to 7
    drawn = np.tile(inside, (100, 1))
    drawn[:3, 3] = True
    drawn[3:5, 4] = False
    drawn[10:16, 7] = False
    drawn[16:20, 8] = True
    (edge,) = boundaries(inside, drawn, range(10))
    assert (edge["first_interval"], edge["last_interval"]) == ([4, 4], [6, 7])
    drawn[:, 4] = False  # all resamples differ: the interval still holds the boundary
    drawn[:3, 3] = False
    assert boundaries(inside, drawn, range(10))[0]["first_interval"] == [4, 5]


def test_two_runs_have_four_boundaries():
    inside, drawn = apply_window_rule("parts", profile({1: 1.0, 2: 1.0, 6: 1.0}), CLUSTERS)
    edges = boundaries(inside, drawn, range(10, 18))  # layers are numbered as the decoder does
    assert [(e["first"], e["last"]) for e in edges] == [(11, 12), (16, 16)]
    assert [e["first_interval"] for e in edges] == [[11, 11], [16, 16]]


def test_resamples_are_of_clusters_and_seeded():
    values = profile({2: 1.0})
    mean, drawn = draw_profiles(values, CLUSTERS, 100, 3)
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_array_equal(drawn, draw_profiles(values, CLUSTERS, 100, 3)[1])
    assert not np.array_equal(drawn, draw_profiles(values, CLUSTERS, 100, 4)[1])
    alone = ["one"] * ITEMS
    assert len(draw_profiles(values, alone, 100, 0)[1]) == 0
    for kind in WINDOW_RULES:
        inside, each = apply_window_rule(kind, values, alone)
        assert (inside.shape, each.shape) == ((8,), (0, 8))
    values[:10] = np.nan  # items that could not be measured are left out
    np.testing.assert_allclose(draw_profiles(values, CLUSTERS, 100, 0)[0], values[10:].mean(0))


def test_overlap():
    assert overlap([1, 2, 3], [2, 3, 4]) == 0.5
    assert overlap([], []) == 1.0
    assert overlap([1], []) == 0.0
