"""Studies with cross-fitting, further shams, an A/A run, a preregistration and a plan, on the tiny model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.benchmarks import Items
from mata_interp.errors import ArgumentError, RunError
from mata_interp.experiments import RunWarning
from mata_interp.experiments.extra_shams import SHAMS
from mata_interp.experiments.registration import Registration
from mata_interp.experiments.selection import read_sweep
from mata_interp.reporting.procedure import extra_sentences, procedure_section
from mata_interp.reporting.registration import registration_section
from mata_interp.statistics import crossfit_effect
from mata_interp.statistics.choices import REFUSED
from mata_interp.sweeps import margin
from tests.support.sounds import make_items

SETTINGS = {"layers": [1, 2], "alphas": (0.5, 2.0), "progress": False}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    made = make_items(tmp_path_factory.mktemp("clips"), clips=12, splits=("selection", "test"))
    return Items.from_records(made, "made")


@pytest.fixture(scope="module")
def registered(tiny_lalm, items, tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    return path, mi.preregister(tiny_lalm, items, path, crossfit=3, shams=SHAMS, **SETTINGS)


@pytest.fixture(scope="module")
def done(tiny_lalm, items, registered, tmp_path_factory):
    return mi.study(
        tiny_lalm,
        items,
        tmp_path_factory.mktemp("studies") / "s",
        crossfit=3,
        shams=SHAMS,
        repeat_baseline=True,
        registration=registered[0],
        **SETTINGS,
    )


# ------------------------------------------------------------------------------------------------- crossfit
def test_crossfit_chooses_on_the_items_of_both_splits(done, items):
    swept = read_sweep(done.path / "crossfit.nc")
    assert set(swept["item"].values) == {item.id for item in items if item.condition == "conflict"}
    found = done.crossfit
    assert found.caption_condition == "conflict"
    assert found.configurations == 2
    assert (found.margin.n, found.margin.n_clusters, found.margin.folds) == (12, 12, 3)
    values = margin(swept).transpose("item", "configuration")
    names = ["layers 1-2, alpha 0.5", "layers 1-2, alpha 2"]
    change = values.sel(configuration=names).values - values.sel(configuration=["baseline"]).values
    reference = crossfit_effect(change, change, swept["cluster"].values, folds=3, seed=0)
    assert found.margin.difference == pytest.approx(reference.difference)
    assert found.margin.p == reference.p
    assert [one.alpha for one in found.chosen] == [(0.5, 2.0)[column] for column in reference.chosen]


def test_crossfit_is_on_the_page_and_survives_saving(done, tmp_path):
    section = procedure_section(done)
    text = " ".join(part for kind, part in section.content if kind == "text")
    assert "2 configurations" in text
    assert "repeated in every resample" in text
    again = mi.Run.load(done.save(tmp_path / "copy"))
    assert again.crossfit == done.crossfit
    assert again.registration == done.registration
    assert again.repeat == done.repeat
    assert (tmp_path / "copy" / "crossfit.nc").exists()
    assert len(extra_sentences(done)) == 3


def test_folds_are_checked_before_anything_is_answered(tiny_lalm, items, tmp_path):
    for folds in (1, 13):
        with pytest.raises(ArgumentError, match="crossfit"):
            mi.study(tiny_lalm, items, tmp_path / "s", crossfit=folds, **SETTINGS)
    assert not (tmp_path / "s").exists()


# ---------------------------------------------------------------------------------------------------- shams
def test_shams_are_conditions_and_comparisons(done):
    roles = done.roles
    mata = done.conditions["mata"].intervention[0]
    raised = done.conditions["mata in random heads"].intervention[0]
    up, down = done.conditions["mata with random signs"].interventions
    assert up == raised
    assert (up.alpha, down.alpha) == (mata.alpha, -mata.alpha)
    for layer in mata.layers:
        assert sorted(up.heads_of(layer) + down.heads_of(layer)) == list(range(4))
    assert roles["mata + silence"] == "mata_silence"
    rows = done.effects.select(after_role="mata", before_role="sham_random_signs", column="correct")
    assert len(rows) == 1
    assert done.effects.select(after_role="mata_reversed_audio", before_role="reversed_audio")
    family = [row for row in done.effects if row.comparison.family in ("primary", "mata")]
    assert len(family) == 6  # shams are no hypotheses: Holm's values do not change


def test_reversed_audio_is_the_audio_backwards(done, tiny_lalm, items):
    from mata_interp.experiments.prompting import build_batch

    item = items[0]
    backwards = item.with_audio((item.load_audio(16_000).samples[::-1].copy(), 16_000))
    here, _ = build_batch(tiny_lalm, [item], "reversed", {}, "options")
    there, _ = build_batch(tiny_lalm, [backwards], "own", {}, "options")
    features = [prompt.inputs["input_features"] for prompt in (here, there)]
    assert np.array_equal(*[np.asarray(each) for each in features])
    own, _ = build_batch(tiny_lalm, [item], "own", {}, "options")
    assert not np.array_equal(np.asarray(own.inputs["input_features"]), np.asarray(features[0]))
    rows = done.records.loc[done.records["condition"] == "reversed audio"]
    assert (rows["audio_from"] == rows["item"]).all()


def test_an_unknown_sham_is_refused(tiny_lalm, items, tmp_path):
    with pytest.raises(ArgumentError, match="sham"):
        mi.study(tiny_lalm, items, tmp_path / "s", shams=["noise"], **SETTINGS)


# ------------------------------------------------------------------------------------------------------ A/A
def test_the_baseline_is_repeated_at_another_batch_size(done):
    found = done.repeat
    assert (found.first_batch_size, found.batch_size) == (16, 8)
    assert found.repeat.items == found.mata.items == 18
    assert found.repeat.changed == 0  # float32
    assert found.repeat.largest_margin < 1e-3
    records = done.records.pivot(index="item", columns="condition", values="predicted")
    assert found.mata.changed == (records["mata"] != records["baseline"]).sum()
    assert found.mata.largest_margin > 0.01


# ------------------------------------------------------------------------------------------ preregistration
def test_a_study_keeps_to_its_preregistration(done, registered):
    path, written = registered
    check = done.registration
    assert check.kept, check.deviations
    assert check.sha256 == written.sha256 == json.loads(path.read_text())["sha256"]
    assert len(check.hypotheses) == 6
    assert registration_section(done) is not None
    assert written.plan["analysis"]["no_harm_margins"] == {"binary": 0.05, "margin": 0.1}
    assert written.plan["data"]["confirmation"]["items"] == 18


def test_deviations_are_named(tiny_lalm, items, registered, tmp_path):
    settings = SETTINGS | {"alphas": (0.5, 4.0)}
    run = mi.study(tiny_lalm, items, tmp_path / "s", registration=registered[0], seed=1, **settings)
    assert not run.registration.kept
    text = "\n".join(run.registration.deviations)
    for field in ("seed", "choice.configurations", "controls.conditions", "analysis.crossfit"):
        assert field in text
    table = dict(registration_section(run).content)["table"]
    assert len(table.blocks[0].rows) == len(run.registration.deviations)


def test_a_plan_that_is_younger_than_the_answers_is_no_preregistration(
    tiny_lalm, items, done, registered, tmp_path
):
    content = json.loads(registered[0].read_text())
    late = tmp_path / "late.json"
    late.write_text(json.dumps(content | {"created": "2999-01-01T00:00:00+00:00"}))
    again = mi.study(tiny_lalm, items, done.path, crossfit=3, shams=SHAMS, registration=late, **SETTINGS)
    assert len(again.registration.deviations) == 1
    assert "before the plan was registered" in again.registration.deviations[0]
    mi.study(tiny_lalm, items, done.path, crossfit=3, shams=SHAMS, registration=registered[0], **SETTINGS)


def test_a_changed_file_is_refused(tiny_lalm, items, registered, tmp_path):
    content = json.loads(registered[0].read_text())
    content["plan"]["analysis"]["no_harm_margins"]["binary"] = 0.2
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(content))
    with pytest.raises(RunError, match="SHA-256"):
        mi.study(tiny_lalm, items, tmp_path / "s", registration=changed, **SETTINGS)
    with pytest.raises(RunError, match="exists"):
        mi.preregister(tiny_lalm, items, changed, **SETTINGS)
    assert Registration.read(registered[0]).sha256 == content["sha256"]


# ------------------------------------------------------------------------------------------ chosen on tested
def test_layers_chosen_on_tested_clips_have_no_p_value(tiny_lalm, items, tmp_path):
    clips = [item.cluster for item in items if item.split == "confirmation"][:2]
    mata = replace(mi.Mata(1.0, [1]), chosen_on=tuple(clips))
    with pytest.warns(RunWarning):
        run = mi.run(
            tiny_lalm, items, {"baseline": None, "mata": mata, "other": mi.Mata(1.0, [2])}, progress=False
        )
    table = run.compare().set_index("condition")
    assert np.isnan(table.loc["mata", ["p", "p_adjusted"]].astype(float)).all()
    assert np.isfinite(table.loc["other", ["p", "p_adjusted"]].astype(float)).all()
    alone = run.compare(conditions=["other"]).set_index("condition")
    assert table.loc["other", "p_adjusted"] == alone.loc["other", "p_adjusted"]
    assert (
        run.compare(correct="holm").set_index("condition").loc["other", "p_adjusted"]
        == table.loc["other", "p"]
    )
    assert REFUSED.startswith("none")


# ----------------------------------------------------------------------------------------------------- plan
def test_a_plan_is_made_on_the_selection_split(tiny_lalm, items):
    with pytest.raises(ArgumentError, match="pilot"):
        mi.plan_study(tiny_lalm, items, pilot=5, **SETTINGS)
    plan = mi.plan_study(tiny_lalm, items, **SETTINGS)
    assert plan.pilot_items == 6  # all conflict items of the selection split
    assert (plan.test_items, plan.test_clips) == (6, 6)
    low, middle, high = (change.discordance for change in plan.changes)
    assert low < middle < high
    assert middle == pytest.approx(max(plan.changed, 0.5) / 6)
    assert json.loads(json.dumps(plan.to_dict()))["test_items"] == 6
    assert str(plan.test_items) in str(plan)
