"""A study of a method: layers chosen on one split, controls that have a meaning for it on the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.errors import InterventionError, RunError
from mata_interp.interventions import catalogue as c
from mata_interp.statistics import paired_effect
from tests.reporting.small import small_study

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")
BOOST = c.InstABoost((1,), 4.0, queries="last")


@pytest.fixture(scope="module")
def small():
    made = small_study()
    return mi.LALM.from_pretrained(made.model), mi.load_benchmark(made.benchmark)


@pytest.fixture(scope="module")
def boosted(small, tmp_path_factory):
    return mi.study_method(*small, BOOST, tmp_path_factory.mktemp("study") / "boost", progress=False)


def test_the_best_window_is_chosen_on_the_other_clips(small, boosted):
    lalm, items = small
    choice = boosted.choice
    windows = [name for name in choice.margins if name != "none"]
    count, widest = lalm.num_layers, lalm.num_layers // 2
    assert len(windows) == sum(count - width + 1 for width in range(1, widest + 1))
    assert choice.margins[_named(choice.layers)] == max(choice.margins[name] for name in windows)
    assert boosted.run.conditions["instaboost"].interventions == (replace(BOOST, layers=choice.layers),)
    chosen = {item.cluster for item in items.split("selection")}
    assert choice.clips <= len(chosen)
    assert not chosen & set(boosted.run.records["cluster"])


def _named(layers):
    from mata_interp.ranges import named_layers

    return named_layers(layers)


def test_controls_keep_the_settings_of_the_method(boosted):
    conditions = boosted.run.conditions
    assert boosted.absent == {}
    assert conditions["instaboost on text"].interventions[0].keys == "text"
    drawn = [conditions[name] for name in conditions if "random layers" in name]
    layers = {one.interventions[0].layers for one in drawn}
    assert len(layers) == len(drawn) >= 1
    assert boosted.choice.layers not in layers
    assert {len(some) for some in layers} == {len(boosted.choice.layers)}
    assert {one.interventions[0].factor for one in drawn} == {4.0}
    assert conditions["instaboost + other audio"].audio == "other"
    roles = boosted.run.roles
    assert (roles["baseline"], roles["instaboost"], roles["no audio"]) == ("baseline", "other", "no_audio")


def test_effects_are_paired_with_intervals_and_corrected(boosted):
    records, effects = boosted.run.records, boosted.effects
    if "conflict" in set(records["caption_condition"]):
        records = records[records["caption_condition"] == "conflict"]
    for score, kind in (("correct", "binary"), ("margin", "margin")):
        before, after = (
            records[records["condition"] == name].set_index("item").sort_index()
            for name in ("baseline", "instaboost")
        )
        effect = paired_effect(
            before[score].astype(float).to_numpy(), after[score].astype(float).to_numpy(),
            kind, clusters=before["cluster"].tolist(), seed=0,
        )  # fmt: skip
        row = effects[
            (effects["score"] == score)
            & (effects["condition"] == "instaboost")
            & (effects["baseline"] == "baseline")
        ].iloc[0]
        assert row["difference"] == pytest.approx(effect.difference)
        assert (row["low"], row["high"]) == pytest.approx((effect.low, effect.high))
        assert row["p_adjusted"] >= row["p"]
    assert effects["low"].notna().all()
    assert effects["p_adjusted"].notna().sum() == 2
    pairs = set(zip(effects["baseline"], effects["condition"], strict=True))
    assert ("instaboost on text", "instaboost") in pairs
    assert ("other audio", "instaboost + other audio") in pairs


def test_a_finished_study_is_read_and_another_one_refused(small, boosted):
    again = mi.study_method(*small, BOOST, boosted.run.path, progress=False)
    assert again.run.records.equals(boosted.run.records)
    with pytest.raises(RunError, match="another sweep"):
        mi.study_method(*small, replace(BOOST, factor=2.0), boosted.run.path, progress=False)
    page = mi.report(boosted.run.path).read_text("utf-8")
    assert "instaboost" in page


def test_controls_without_a_meaning_are_left_out_and_said(small, tmp_path):
    contrast = mi.study_method(*small, c.Aad(1.0, "silent"), tmp_path / "contrast", progress=False)
    assert set(contrast.absent) == {"on text", "in random layers", "dose"}
    assert contrast.choice.layers == ()
    assert contrast.choice.margins == {}
    assert np.isnan(contrast.effects["dose_kl"]).all()
    masked = c.HeadMask((1,), ((0,),))
    heads = mi.study_method(*small, masked, tmp_path / "heads", layers=[1], progress=False)
    assert set(heads.absent) == {"on text", "in random layers", "dose"}
    assert heads.run.conditions["headmask"].interventions == (masked,)


def test_what_cannot_be_studied_is_refused_before_anything_is_written(small, tmp_path):
    for method, layers, message in [
        (mi.Mata(1.0, [1]), None, "MATA has mi.study"),
        ("InstABoost", None, "a method of the catalogue"),
        (c.Aad(1.0), [1], "no layers"),
        (c.HeadMask((1,), ((0,),)), [0], "settings for each"),
        (replace(BOOST, layers=(99,)), [99], "99"),
    ]:
        with pytest.raises(InterventionError, match=message):
            mi.study_method(*small, method, tmp_path / "study", layers=layers, progress=False)
    assert not (tmp_path / "study").exists()


def test_the_forecast_counts_what_the_study_does(small, boosted, tmp_path):
    lalm, items = small
    before = mi.forecast_method(lalm, items, BOOST, tmp_path / "new", progress=False)
    choosing, measuring = before.stages
    assert (choosing.items, choosing.clips) == (boosted.choice.items, boosted.choice.clips)
    assert choosing.work.startswith(f"{len(boosted.choice.margins):,} ")
    assert measuring.items == boosted.run.records["item"].nunique()
    assert measuring.work.startswith(f"{len(boosted.run.conditions)} ")
    assert before.seconds == choosing.seconds + measuring.seconds > 0
    assert not (tmp_path / "new").exists()
    done = mi.forecast_method(lalm, items, BOOST, boosted.run.path, progress=False)
    assert done.seconds == 0
    with pytest.raises(RunError):
        mi.forecast_method(lalm, items, replace(BOOST, factor=2.0), boosted.run.path, progress=False)
