"""A study whose answers are generated: scored by the option that each names, without margins."""

from __future__ import annotations

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.benchmarks.answer_matching import option_named
from mata_interp.errors import InterventionError
from tests.support.sounds import make_items


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=8, splits=("selection", "test"))


@pytest.fixture(scope="module")
def done(tiny_lalm, items, tmp_path_factory):
    return mi.study(
        tiny_lalm,
        items,
        tmp_path_factory.mktemp("studies") / "words",
        alphas=(0.5, 2.0),
        rule="add",
        decoding=mi.Decoding(5),
        prompt_format="official",
        progress=False,
    )


def test_every_answer_is_generated_and_scored_by_its_option(done):
    records = done.records
    assert records["text"].notna().all()
    assert np.isnan(records["margin"]).all()
    for row in records.itertuples():
        named = option_named(row.final_answer, list(row.choices))
        assert row.correct == (named is not None and row.choices[named] == row.answer)
    assert {condition.decoding.max_new_tokens for condition in done.conditions.values()} == {5}


def test_no_comparison_needs_a_margin_and_the_correction_is_over_the_others(done):
    assert {row.comparison.column for row in done.effects} == {"correct", "official"}
    tested = [row for row in done.effects if row.comparison.family in ("primary", "mata")]
    assert len(tested) == 3  # conflict, neutral and congruent items
    assert all(row.p_holm <= min(1.0, 3 * row.effect.p) + 1e-12 for row in tested)
    assert "generated answer" in done.study.hypothesis
    assert "log-probabilities" in done.study.answer


def test_the_settings_reach_every_stage(done):
    assert done.manifest["prompt_format"] == "official"
    assert {row.alpha for row in done.study.selection.grid} == {0.5, 2.0}
    assert {row.rule for row in done.study.selection.grid} == {"add"}
    assert done.conditions["mata"].interventions[0].rule == "add"
    published = done.manifest["published_layers"]
    assert published["layers"] == list(mi.published_layers(4))
    assert published["convention"].startswith("relative")


def test_the_page_of_generated_answers(done):
    html = mi.report(done.path).read_text()
    assert "Changes of the mean margin" not in html
    assert done.manifest["published_layers"]["convention"] in html


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "knockout"}, "no strength"),
        ({"rule": "nonsense"}, "nonsense"),
        ({"alphas": (0.0, 1.0)}, "above 0"),
        ({"alphas": ()}, "above 0"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(tiny_lalm, items, tmp_path, settings, message):
    with pytest.raises(InterventionError, match=message):
        mi.study(tiny_lalm, items, tmp_path / "s", progress=False, **settings)
    assert not (tmp_path / "s").exists()
