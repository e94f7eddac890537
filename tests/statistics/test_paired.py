"""paired_effect: the whole answer, on ordinary, clustered, tiny, constant and bad data."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

import mata_interp as mi
from mata_interp.statistics import Effect, mcnemar_exact, mcnemar_mid, paired_effect, tango_interval
from mata_interp.statistics.units import Units

bits = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4)), max_size=30)
margins = st.floats(-50, 50).map(lambda x: round(x, 3))
pairs = st.lists(st.tuples(margins, margins, st.integers(0, 4)), max_size=30)


def answers(both: int, fixed: int, broken: int, neither: int) -> tuple[list[int], list[int]]:
    before = [1] * both + [0] * fixed + [1] * broken + [0] * neither
    after = [1] * both + [1] * fixed + [0] * broken + [0] * neither
    return before, after


def numbers(effect: Effect) -> list[float | None]:
    return [value for value in effect.to_dict().values() if value is None or not isinstance(value, str)]


def test_binary_answers():
    effect = paired_effect(*answers(1, 1, 7, 12), kind="binary")
    assert (effect.n, effect.n_clusters, effect.fixed, effect.broken) == (21, None, 1, 7)
    assert effect.before == pytest.approx(8 / 21)
    assert effect.after == pytest.approx(2 / 21)
    assert effect.difference == pytest.approx(-6 / 21)
    assert (effect.low, effect.high) == tango_interval(1, 7, 21)
    assert effect.interval_method == "Tango score"
    assert (effect.p, effect.p_method) == (mcnemar_mid(1, 7), "McNemar mid-p")
    assert effect.p_mcnemar_exact == effect.p_permutation == pytest.approx(0.0703125)
    assert math.isnan(effect.bootstrap_low)
    assert effect.note == ""


def test_margins():
    rng = np.random.default_rng(0)
    before = rng.normal(size=200)
    after = before + rng.normal(0.3, 1, 200)
    effect = paired_effect(before, after, kind="margin", level=0.9)
    assert effect.difference == pytest.approx(np.mean(after - before))
    assert effect.interval_method == "Student t"
    assert effect.p_method == "sign-flip, 20,000 draws"
    assert effect.p == effect.p_permutation < 0.01
    assert 0 < effect.low < effect.difference < effect.high
    assert (effect.bootstrap_low, effect.bootstrap_high) == pytest.approx((effect.low, effect.high), abs=0.02)
    assert effect.fixed is effect.broken is None
    assert np.isnan([effect.p_mcnemar_exact, effect.p_mcnemar_mid]).all()
    assert effect.level == 0.9
    assert effect.note == ""


def test_items_that_only_repeat_their_cluster_add_nothing():
    """Every item three times, clustered, is the same evidence as every item once."""
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=60), rng.normal(0.4, 1, 60)
    once = paired_effect(before, after, kind="margin")
    thrice = paired_effect(
        np.repeat(before, 3), np.repeat(after, 3), "margin", clusters=np.repeat(range(60), 3)
    )
    naive = paired_effect(np.repeat(before, 3), np.repeat(after, 3), "margin")
    assert (thrice.n, thrice.n_clusters) == (180, 60)
    for field in ("difference", "low", "high", "p", "bootstrap_low", "bootstrap_high"):
        assert getattr(thrice, field) == pytest.approx(getattr(once, field)), field
    assert naive.high - naive.low < 0.7 * (once.high - once.low)
    assert thrice.interval_method == "cluster-robust t"
    assert thrice.p_method.startswith("sign-flip by cluster")

    right, still = (before > 0) * 1, (after > 0) * 1
    once = paired_effect(right, still, kind="binary")
    thrice = paired_effect(
        np.repeat(right, 3), np.repeat(still, 3), "binary", clusters=np.repeat(range(60), 3)
    )
    assert thrice.p == pytest.approx(once.p_mcnemar_exact)
    assert thrice.p_method == "sign-flip by cluster, exact"
    assert thrice.p_mcnemar_exact < once.p_mcnemar_exact  # only describes: it takes the items for independent
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), abs=0.03)


def test_clusters_of_one_item_change_nothing():
    for kind, (before, after) in (
        ("binary", answers(9, 8, 2, 9)),
        ("margin", ([0.1, 0.5, 0.2, 0.9] * 5, [0.3, 0.1, 0.7, 1.1] * 5)),
    ):
        plain = paired_effect(before, after, kind).to_dict()
        named = paired_effect(
            before, after, kind, clusters=[f"clip {i}" for i in range(len(before))]
        ).to_dict()
        assert named.pop("n_clusters") == len(before)
        assert plain.pop("n_clusters") is None
        assert named == plain


@settings(max_examples=60)
@given(bits, st.booleans(), st.randoms())
def test_binary_properties(rows, clustered, random):
    check_properties(rows, "binary", clustered, random)


@settings(max_examples=60)
@given(pairs, st.booleans(), st.randoms())
def test_margin_properties(rows, clustered, random):
    check_properties(rows, "margin", clustered, random)


def check_properties(rows, kind, clustered, random):
    def effect_of(rows) -> Effect:
        before, after, clusters = zip(*rows, strict=True) if rows else ((), (), ())
        return paired_effect(before, after, kind, clusters=clusters if clustered else None)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effect = effect_of(rows)
    # never NaN, never infinite, JSON as it stands
    assert all(value is None or math.isfinite(value) for value in numbers(effect))
    assert json.loads(json.dumps(effect.to_dict(), allow_nan=False)) == effect.to_dict()
    assert 0 < effect.p <= 1
    # the interval holds the estimate
    if math.isfinite(effect.low) and rows:
        assert effect.low - 1e-9 <= effect.difference <= effect.high + 1e-9
        assert effect.difference == pytest.approx(effect.after - effect.before, abs=1e-9)
    # what cannot be had is explained
    if math.isnan(effect.low) or (kind == "margin" and math.isnan(effect.bootstrap_low)):
        assert effect.note
    # the order of the items is of no consequence, to the last bit
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert effect_of(shuffled) == effect
    # swapping before and after turns the answer round (the bootstrap up to its own noise)
    swapped = effect_of([(after, before, cluster) for before, after, cluster in rows])
    assert swapped.p == pytest.approx(effect.p, rel=1e-9)
    assert (swapped.before, swapped.after) == (effect.after, effect.before)
    assert (swapped.fixed, swapped.broken) == (effect.broken, effect.fixed)
    if math.isfinite(effect.low):
        assert (swapped.low, swapped.high) == pytest.approx((-effect.high, -effect.low), abs=1e-9)


NO_CHANGE = "Nothing changed: every difference is zero."


@pytest.mark.parametrize(
    ("before", "after", "clusters", "p", "interval", "note"),
    [
        ([], [], None, 1, (-1, 1), "There are no items."),
        ([1], [1], None, 1, (-0.793, 0.793), NO_CHANGE),
        ([0], [1], None, 0.5, (-0.587, 1), "There is only one item, which says nothing about others."),
        (
            [0, 0],
            [1, 1],
            None,
            0.25,
            (-0.315, 1),
            "Only 2 of 2 items differ: no p-value below 0.25 was possible.",
        ),
        ([1] * 9, [1] * 9, None, 1, (-0.299, 0.299), NO_CHANGE),
        ([0] * 9, [1] * 9, None, 2**-9, (0.402, 1), "Every difference is the same."),
        ([1, 0, 1], [1, 0, 1], "aaa", 1, (-0.793, 0.793), NO_CHANGE),
        (
            [0, 0, 1],
            [1, 0, 1],
            "aaa",
            1,
            (-0.725, 0.906),
            "There is only one cluster, which says nothing about",
        ),
        (
            [0, 0, 0],
            [1, 0, 1],
            "aba",
            1,
            (-1, 1),
            "Only 1 of 2 clusters differ: no p-value below 1 was possible.",
        ),
    ],
)
def test_tiny_or_constant_answers(before, after, clusters, p, interval, note):
    effect = paired_effect(before, after, kind="binary", clusters=clusters)
    assert effect.p == pytest.approx(p)
    assert (effect.low, effect.high) == pytest.approx(interval, abs=5e-4)
    assert effect.note.startswith(note)
    assert effect.note in str(effect)


def test_clusters_without_a_spread_count_as_one_pair_each():
    """Six clips of four items, all unchanged: no more certain than six unchanged pairs."""
    effect = paired_effect([1] * 24, [1] * 24, "binary", clusters=np.repeat(range(6), 4))
    assert (effect.low, effect.high) == tango_interval(0, 0, 6)
    assert effect.interval_method == "Tango score, one pair a cluster"
    assert "each as one pair" in effect.note


@pytest.mark.parametrize(
    ("before", "after", "p", "note"),
    [
        ([], [], 1, "There are no items."),
        ([1.5], [2.0], 1, "There is only one item"),
        ([0.5, 0.25, 7.0], [0.5, 0.25, 7.0], 1, NO_CHANGE),
        ([0.1] * 12, [0.3] * 12, 2**-11, "Every difference is the same."),
    ],
)
def test_margins_without_a_spread_have_no_interval(before, after, p, note):
    effect = paired_effect(before, after, kind="margin")
    assert effect.p == pytest.approx(p)
    assert np.isnan([effect.low, effect.high, effect.bootstrap_low, effect.bootstrap_high]).all()
    assert effect.interval_method == "none"
    assert effect.note.startswith(note)
    assert effect.note.endswith("Without a spread there is no interval.")
    assert "no interval" in str(effect) or not before


def test_two_margins():
    effect = paired_effect([1.0, 2.0], [2.0, 4.0], kind="margin")
    assert (effect.difference, effect.p) == (1.5, 0.5)
    assert effect.low < 0 < effect.difference < effect.high  # t with one degree of freedom: very wide
    assert math.isnan(effect.bootstrap_low)
    assert "no p-value below 0.5" in effect.note
    assert "bootstrap needs 20 items" in effect.note


def test_intervals_that_cover_less_than_they_say_have_a_note():
    """Simulated in analyses/calibration.py: few skewed changes."""
    rng = np.random.default_rng(0)
    skewed, even = rng.exponential(size=30), np.linspace(-1, 1.5, 30)
    zeros = np.zeros(30)
    assert "skewed" in paired_effect(zeros, skewed, "margin").note
    assert "skewed" not in paired_effect(zeros, even, "margin").note
    assert "skewed" not in paired_effect(np.zeros(300), rng.exponential(size=300), "margin").note


def test_clusters_of_unequal_size_widen_the_interval():
    """One clip with 9 of 30 items: fewer degrees of freedom than clusters - 1."""
    changes = np.random.default_rng(0).normal(size=30)
    unequal = np.r_[np.zeros(9, int), np.arange(1, 8).repeat(3)]
    units = Units.gather(changes, unequal)
    effect = paired_effect(np.zeros(30), changes, "margin", clusters=unequal)
    assert units.freedom() < 6.5 < len(units) - 1
    radius = t.ppf(0.975, units.freedom()) * units.standard_error()
    assert (effect.high - effect.low) / 2 == pytest.approx(radius)


def test_seed_decides_the_draws():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 50))
    first, again, other = (paired_effect(before, after, "margin", seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.p != other.p
    assert first.bootstrap_low != other.bootstrap_low
    assert (first.low, first.high) == (other.low, other.high)


def test_columns_of_a_table_will_do():
    table = pd.DataFrame(
        {"a": [True, False, True, False], "b": [True, True, True, True], "clip": list("xyxy")}
    )
    effect = paired_effect(table["a"], table["b"], kind="binary", clusters=table["clip"])
    assert (effect.fixed, effect.broken, effect.n_clusters) == (2, 0, 2)


@pytest.mark.parametrize(
    ("before", "after", "options", "message"),
    [
        ([1, 0], [1], {}, "before has 2 items and after has 1"),
        ([1, math.nan], [1, 0], {}, r"before\[1\] is nan"),
        ([1, 0], [1, None], {}, r"after\[1\] is nan"),
        ([1, 0], [1, math.inf], {"kind": "margin"}, r"after\[1\] is inf"),
        ([1, 0], [1, 2], {}, r"after\[1\] is 2: kind='binary' takes 0 \(wrong\) and 1 \(right\)"),
        ([1, 0.5], [1, 0], {}, r"before\[1\] is 0.5: kind='binary'"),
        (["right", "wrong"], [1, 0], {}, "before must hold one number an item"),
        ([[1, 0]], [[1, 0]], {}, r"before must be one-dimensional, got shape \(1, 2\)"),
        (1, 0, {}, "before must be one-dimensional"),
        ([1, 0], [1, 0], {"clusters": ["a"]}, "clusters names 1 items, but there are 2"),
        ([1, 0], [1, 0], {"clusters": ["a", None]}, "cluster for every item"),
        ([1, 0], [1, 0], {"clusters": [1.0, math.nan]}, "cluster for every item"),
        ([1, 0], [1, 0], {"kind": "accuracy"}, "kind must be 'binary' or 'margin', got 'accuracy'"),
        ([1, 0], [1, 0], {"level": 95}, "level must lie strictly between 0 and 1"),
    ],
)
def test_bad_input_is_named(before, after, options, message):
    with pytest.raises(ValueError, match=message):
        paired_effect(before, after, **{"kind": "binary"} | options)


def test_reads_as_english():
    assert str(paired_effect(*answers(100, 44, 22, 78), kind="binary")) == (
        "Accuracy 50.0 % before, 59.0 % after: +9.0 points (95 % interval +2.6 to +15.6, Tango score). "
        "44 fixed, 22 broken of 244 items; p = 0.0067 (McNemar mid-p)."
    )
    assert str(paired_effect([0.5, 1.0, 0.25] * 4, [0.75, 0.5, 0.5] * 4, kind="margin", level=0.9)) == (
        "Mean margin 0.583 before, 0.583 after: +0 (90 % interval -0.191 to +0.191, Student t). "
        "12 items; p = 1 (sign-flip, exact). The bootstrap needs 20 items."
    )
    assert "p < 0.0001" in str(paired_effect(*answers(0, 40, 0, 0), kind="binary"))
    assert str(paired_effect([1], [1], kind="binary")).endswith(
        f"0 broken of 1 item; p = 1 (McNemar mid-p). {NO_CHANGE}"
    )


def test_effects_do_not_change():
    effect = mi.paired_effect([1, 0], [1, 1], kind="binary")
    with pytest.raises(FrozenInstanceError):
        effect.p = 0.01
    assert mcnemar_exact(1, 0) == effect.p_mcnemar_exact


def test_answers_unless_told_otherwise():
    assert paired_effect([1, 0], [1, 1]) == paired_effect([1, 0], [1, 1], kind="binary")
    with pytest.raises(ValueError, match="kind='binary' takes 0"):
        paired_effect([1.3, -0.2], [0.9, 0.4])


@pytest.mark.parametrize("pair", [([1, 0], [1, 1], "binary"), ([0.5], [0.7], "margin"), ([], [], "margin")])
def test_json_has_null_for_nan_and_gives_the_effect_back(pair):
    effect = paired_effect(*pair)
    text = json.dumps(effect.to_dict(), allow_nan=False)
    assert Effect.from_dict(json.loads(text)) == effect
