"""Studies with cross-fitting, further shams, an A/A run, a preregistration and a plan, on the tiny model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.benchmarks import Items
from mata_interp.errors import ArgumentError, RunError, RunWarning
from mata_interp.experiments.answer import OTHER_INPUTS
from mata_interp.experiments.extra_shams import SHAMS
from mata_interp.experiments.number_text import change_text
from mata_interp.experiments.registration import Registration
from mata_interp.experiments.sweep_file import read_sweep
from mata_interp.reporting.choice import choice_section
from mata_interp.reporting.comparisons import Comparisons
from mata_interp.reporting.controls import dose_words
from mata_interp.reporting.procedure import extra_sentences, procedure_section
from mata_interp.reporting.registration import registration_section
from mata_interp.statistics import crossfit_effect, trend_test
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
    result = done.crossfit
    assert result.caption_condition == "conflict"
    assert result.configurations == 2
    assert (result.margin.n, result.margin.n_clusters, result.margin.folds) == (12, 12, 3)
    values = margin(swept).transpose("item", "configuration")
    names = ["layers 1-2, alpha 0.5", "layers 1-2, alpha 2"]
    change = values.sel(configuration=names).values - values.sel(configuration=["baseline"]).values
    reference = crossfit_effect(change, change, swept["cluster"].values, folds=3, seed=0)
    assert result.margin.difference == pytest.approx(reference.difference)
    assert result.margin.p == reference.p
    assert [one.alpha for one in result.chosen] == [(0.5, 2.0)[column] for column in reference.chosen]


def test_dose_and_response_are_computed_saved_and_shown(done):
    """The layers were fixed, so the trend has its plain test; the association is on the conflict items."""
    curve, association = done.effects.dose_response, done.effects.association
    swept = read_sweep(done.path / "selection.nc")
    values = margin(swept).sel(configuration=["baseline", "layers 1-2, alpha 0.5", "layers 1-2, alpha 2"])
    values = values.transpose("item", "configuration").values
    assert [point.alpha for point in curve.points] == [0.5, 2.0]
    assert [point.change for point in curve.points] == pytest.approx((values[:, 1:] - values[:, :1]).mean(0))
    assert (curve.slope, curve.p) == trend_test(values - values[:, :1], swept["cluster"].values, 0)
    assert association.n == done.effects.primary.effect.n
    assert association.subset == done.effects.primary.comparison.subset
    stored = json.loads((done.path / "effects.json").read_text())
    assert stored["dose_response"]["p"] == curve.p
    assert stored["association"]["rho"] == association.rho
    content = choice_section(done.study, done.effects).content
    figure = next(part for kind, part in content if kind == "figure" and part.id == "dose-response")
    assert "layers 1\u20132" in figure.caption
    assert any(kind == "text" and "does not show that attention mediates" in part for kind, part in content)


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
    assert (up.heads, down.alpha) == (raised.heads, -up.alpha)
    for layer in mata.layers:
        assert sorted(up.heads_of(layer) + down.heads_of(layer)) == list(range(4))
    assert roles["mata + silence"] == "mata_silence"
    rows = done.effects.select(after_role="mata", before_role="sham_random_signs", column="correct")
    assert len(rows) == 1
    assert done.effects.select(after_role="mata_reversed_audio", before_role="reversed_audio")
    family = [row for row in done.effects if row.comparison.family in ("primary", "mata")]
    assert len(family) == 6  # shams are no hypotheses: Holm's values do not change


def test_the_page_says_which_controls_have_the_dose_of_mata(done):
    text = dose_words(Comparisons(done.effects, done.conditions))
    matched, others = text.split("Not dose-matched")
    for name in ("text tokens", "random layers", "random heads", "random signs"):
        assert (name in matched, name in others) == (True, False)
    for name in ("another item's audio", "silence", "reversed audio", "no audio"):
        assert (name in matched, name in others) == (False, True)
    headline = done.study.answer.split("\n\n")[0]
    for role, audio in OTHER_INPUTS.items():
        row = done.effects.select(after_role=role, column="correct")[0]
        assert f"With {audio}, MATA changes accuracy by {change_text(row.effect)}" in done.study.answer
    against = done.effects.select(before_role="sham_text", after_role="mata", column="correct")[0]
    assert change_text(against.effect) in headline  # MATA against its dose-matched sham


def test_shams_in_heads_have_the_dose_of_mata(done, tiny_lalm, items):
    """Mean row KL over all rows that MATA edits, measured again from the conditions of the run."""
    matches = {match.heads: match for match in done.study.selection.shams_in_heads}
    assert set(matches) == {"half", "signs"}
    conditions = done.conditions
    raised = conditions["mata in random heads"].intervention[0]
    assert raised.alpha == matches["half"].alpha
    assert conditions["mata with random signs"].interventions[0].alpha == matches["signs"].alpha
    for match in matches.values():
        assert match.target_kl == done.study.selection.sham.target_kl
        nearest = min(match.tried, key=lambda pair: abs(np.log(pair[1] / match.target_kl)))
        assert (match.alpha, match.kl) == nearest
        assert match.is_matched or len(match.tried) == 12 or match.alpha >= 100
    half = matches["half"]  # 2 of 4 heads: twice the divergence in each
    chosen = list(items.split("selection", seed=0).filter(condition="conflict"))
    prompt = tiny_lalm.prompt(chosen)
    kl = tiny_lalm.score(prompt, [item.choices for item in chosen], raised).dose["kl"].mean()
    assert half.kl == pytest.approx(kl / 2, rel=1e-4)


def test_reversed_audio_is_the_audio_backwards(done, tiny_lalm, items):
    from mata_interp.experiments.prompting import build_batch

    item = items[0]
    backwards = item.with_audio((item.load_audio(16_000).samples[::-1].copy(), 16_000))
    here, _ = build_batch(tiny_lalm, [item], "reversed", {}, "options")
    there, _ = build_batch(tiny_lalm, [backwards], "own", {}, "options")
    features = [prompt.inputs["input_features"] for prompt in (here, there)]
    assert np.array_equal(*[np.asarray(each) for each in features])
    usual, _ = build_batch(tiny_lalm, [item], "own", {}, "options")
    assert not np.array_equal(np.asarray(usual.inputs["input_features"]), np.asarray(features[0]))
    rows = done.records.loc[done.records["condition"] == "reversed audio"]
    assert (rows["audio_from"] == rows["item"]).all()


def test_an_unknown_sham_is_refused(tiny_lalm, items, tmp_path):
    with pytest.raises(ArgumentError, match="sham"):
        mi.study(tiny_lalm, items, tmp_path / "s", shams=["noise"], **SETTINGS)


# ------------------------------------------------------------------------------------------------------ A/A
def test_the_baseline_is_repeated_at_another_batch_size(done):
    result = done.repeat
    assert (result.first_batch_size, result.batch_size) == (16, 8)
    assert result.repeat.items == result.mata.items == 18
    assert result.repeat.changed == 0  # float32
    assert result.repeat.largest_margin < 1e-3
    records = done.records.pivot(index="item", columns="condition", values="predicted")
    assert result.mata.changed == (records["mata"] != records["baseline"]).sum()
    assert result.mata.largest_margin > 0.01


# ------------------------------------------------------------------------------------------ preregistration
def test_a_study_keeps_to_its_preregistration(done, registered):
    path, written = registered
    check = done.registration
    assert check.matches_plan, check.deviations
    assert check.sha256 == written.sha256 == json.loads(path.read_text())["sha256"]
    assert len(check.hypotheses) == 6
    assert registration_section(done) is not None
    assert written.plan["analysis"]["no_harm_margins"] == {"binary": 0.05, "margin": 0.1}
    assert written.plan["data"]["confirmation"]["items"] == 18


def test_deviations_are_named(tiny_lalm, items, registered, tmp_path):
    settings = SETTINGS | {"alphas": (0.5, 4.0)}
    run = mi.study(tiny_lalm, items, tmp_path / "s", registration=registered[0], seed=1, **settings)
    assert not run.registration.matches_plan
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
