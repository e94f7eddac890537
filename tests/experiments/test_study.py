"""mi.study on the tiny model: chosen on one split, measured on the other, written down, resumed."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from mata_interp.benchmarks import Items
from mata_interp.errors import ItemError, RunError, RunWarning
from mata_interp.experiments import Run, load_run, study
from mata_interp.experiments.dose_matching import TOLERANCE
from mata_interp.experiments.schema import VERSION
from mata_interp.experiments.study_result import Configuration, Split
from mata_interp.experiments.sweep_file import read_sweep
from mata_interp.interventions import DEFAULT_ALPHAS
from mata_interp.lalm import LALM
from mata_interp.sweeps import LEAST_CLIPS, last_round, margin
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio

DRAWS = 3  # a window of one of four layers leaves three others
CONDITIONS = [
    *("baseline", "mata", "mata on text"),
    *(f"mata in random layers {n + 1}" for n in range(DRAWS)),
    *("other audio", "mata + other audio", "no audio"),
]


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    made = make_items(tmp_path_factory.mktemp("clips"), clips=12, splits=("selection", "test"))
    return Items.from_records([*made, replace(made[0], id="gone", audio="gone.wav")], "made")


@pytest.fixture(scope="module")
def done(tiny_lalm, items, tmp_path_factory):
    with pytest.warns(RunWarning, match=r"18 items; 1 left out.*'gone'"):
        return study(tiny_lalm, items, tmp_path_factory.mktemp("studies") / "s", progress=False)


def test_the_conditions_of_a_study(done):
    assert list(done.manifest["conditions"]) == CONDITIONS
    assert done.records.groupby("condition").size().unique().tolist() == [18]
    assert done.missing == 0


def test_nothing_is_chosen_and_tested_on_the_same_clips(done, items):
    tried = read_sweep(done.path / "selection.nc")
    assert set(tried["cluster"].values) & set(done.records["cluster"]) == set()
    assert set(tried["item"].values) <= {item.id for item in items if item.split == "selection"}
    assert set(done.records["item"]) == {item.id for item in items if item.split == "confirmation"}
    assert set(done.trace["cluster"].values) <= {item.source for item in items if item.split == "selection"}
    carried = done.manifest["conditions"]["mata"]["interventions"][0]["chosen_on"]
    assert set(carried) == {item.source for item in items if item.split == "selection"}


def test_the_choice_is_the_best_mean_margin_of_the_sweep_on_conflict_items(done):
    tried = read_sweep(done.path / "selection.nc")
    assert set(tried["condition"].values) == {"conflict"}
    selection = done.study.selection
    assert selection.grid_items == tried.sizes["item"] == 6
    margins = margin(tried).mean("item").to_series()
    best = max(selection.grid, key=lambda row: row.margin)
    assert best.margin == margins.drop("baseline").max()
    assert selection.chosen == best.configuration
    assert selection.baseline.margin == margins["baseline"]
    assert selection.sweep.looped == 0
    assert selection.sweep.canary < 40  # steps of float32
    assert {row.alpha for row in selection.grid} == set(DEFAULT_ALPHAS)
    assert {row.layers for row in selection.grid} == {
        (0,),
        (1,),
        (2,),
        (3,),
        (0, 1),
        (1, 2),
        (2, 3),
    }
    used = done.conditions["mata"].intervention[0]
    assert Configuration(used.layers, used.alpha, used.rule) == selection.chosen


def test_the_choice_is_what_a_run_of_it_says(done, tiny_lalm, items):
    """The sweep's margin and accuracy are those of `run`, which is the loop."""
    import mata_interp as mi

    selection, chosen = done.study.selection, done.study.selection.chosen
    conflict = [i for i in items.split("selection").filter(condition="conflict") if i.id != "gone"]
    both = {"baseline": None, "chosen": mi.Mata(chosen.alpha, chosen.layers, chosen.rule)}
    records = mi.run(tiny_lalm, conflict, both, progress=False).records
    best = next(row for row in selection.grid if row.configuration == chosen)
    for name, row in (("baseline", selection.baseline), ("chosen", best)):
        alone = records[records["condition"] == name]
        assert alone["margin"].mean() == pytest.approx(row.margin, abs=1e-4)
        assert alone["correct"].mean() == pytest.approx(row.accuracy)


def test_the_sham_is_matched_by_mean_row_kl_on_the_selection_split(done, tiny_lalm, items):
    from mata_interp.interventions import AttentionEdit

    sham = done.study.selection.sham
    edit = AttentionEdit.from_dict(done.manifest["conditions"]["mata on text"]["interventions"][0])
    assert (edit.keys, edit.alpha) == ("text", sham.alpha)
    conflict = list(items.split("selection").filter(condition="conflict"))
    choices = [item.choices for item in conflict if item.id != "gone"]
    prompt = tiny_lalm.prompt([item for item in conflict if item.id != "gone"])
    reached = {
        keys: tiny_lalm.score(
            prompt, choices, AttentionEdit.from_dict(done.manifest["conditions"][name]["interventions"][0])
        )
        for keys, name in (("audio", "mata"), ("text", "mata on text"))
    }
    assert reached["text"].dose["kl"].mean() == pytest.approx(sham.kl, rel=1e-3)
    assert reached["audio"].dose["kl"].mean() == pytest.approx(sham.target_kl, rel=1e-3)
    assert sham.kl == pytest.approx(sham.target_kl, rel=0.03)


def test_random_layers_are_recorded_and_are_those_used(done):
    draws = done.study.selection.random_layers
    window = done.study.selection.chosen.layers
    used = [done.conditions[name].intervention[0] for name in CONDITIONS[3 : 3 + DRAWS]]
    assert len(window) == 1
    assert [(edit.layers, edit.alpha, edit.keys) for edit in used] == [
        (draw.layers, draw.alpha, "audio") for draw in draws
    ]
    assert {done.roles[name] for name in CONDITIONS[3 : 3 + DRAWS]} == {"sham_random_layers"}
    assert sorted([*(draw.layers for draw in draws), window]) == [(0,), (1,), (2,), (3,)]
    assert all(draw.shared_layers == () for draw in draws)


def test_random_layers_have_the_dose_of_mata(done, tiny_lalm, items):
    """Measured again, by scoring the items of the match with the edits that were run."""
    draws, sham = done.study.selection.random_layers, done.study.selection.sham
    conflict = [i for i in items.split("selection").filter(condition="conflict") if i.id != "gone"]
    prompt, choices = tiny_lalm.prompt(conflict), [item.choices for item in conflict]
    for name, draw in zip(CONDITIONS[3 : 3 + DRAWS], draws, strict=True):
        reached = tiny_lalm.score(prompt, choices, done.conditions[name].intervention[0]).dose["kl"].mean()
        assert draw.target_kl == sham.target_kl
        assert reached == pytest.approx(draw.kl, rel=1e-3)
        assert draw.is_matched == (abs(draw.kl / draw.target_kl - 1) <= TOLERANCE)
        assert draw.tried[-1] == (draw.alpha, draw.kl) or not draw.is_matched
    assert any(draw.is_matched for draw in draws)


def test_effects_and_study_are_plain_json_that_agree(done):
    file = json.loads((done.path / "effects.json").read_text())
    effects = file["effects"]
    stored = json.loads((done.path / "study.json").read_text())
    assert file["version"] == stored["version"] == VERSION
    assert stored["primary"] == effects[0]
    stated = done.effects.to_dict()
    assert set(stated) == {"effects", "no_harm", "dose_response", "association"}
    assert {name: file[name] for name in stated} == stated
    assert [claim["margin"] for claim in file["no_harm"]] == [0.05, 0.1, 0.05, 0.1]
    assert stored["selection"]["grid_chance"] == pytest.approx(effects[0]["chance"])
    assert done.study.primary == done.effects[0]
    assert effects[0]["family"] == "primary"
    conflict = done.records[done.records["caption_condition"] == "conflict"]
    accuracy = conflict.groupby("condition")["correct"].mean()
    assert effects[0]["before"] == pytest.approx(accuracy["baseline"])
    assert effects[0]["after"] == pytest.approx(accuracy["mata"])
    assert stored["test"] == {"items": 18, "clips": 6}
    assert (stored["selection"]["items"], stored["selection"]["clips"]) == (18, 6)
    assert stored["excluded"] == [asdict(row) for row in done.excluded]
    assert [row.item for row in done.excluded] == ["gone"]
    stages = ["checking items", "choosing layers and alpha", "tracing attention", "matching the sham"]
    assert list(stored["seconds"]) == [*stages, "measuring", "recording items", "testing"]
    assert "6 items" in stored["answer"]
    assert len(done.effects) == len(effects)
    shares = stored["selection"]["trace_share_by_layer"]
    assert [row["layer"] for row in shares] == [0, 1, 2, 3]
    assert all(0 < row["share"] < 1 for row in shares)


def test_a_study_stopped_while_measuring_goes_on_to_the_same_tables(
    done, tiny_lalm, items, tmp_path, monkeypatch
):
    out = tmp_path / "s"
    shutil.copytree(done.path, out)
    (out / "study.json").unlink()
    (out / "effects.json").unlink()
    for part in list((out / "parts").iterdir())[::2]:
        part.unlink()
    module = import_module("mata_interp.experiments.run_study")
    monkeypatch.setattr(module, "trace", None)  # none of these is done again
    monkeypatch.setattr(import_module("mata_interp.experiments.sham"), "match_alpha", None)
    monkeypatch.setattr(import_module("mata_interp.experiments.selection"), "sweep", None)
    with pytest.warns(RunWarning, match="left out"):
        again = study(tiny_lalm, items, out, progress=False)
    pd.testing.assert_frame_equal(again.records, done.records, check_exact=True)
    assert (out / "effects.json").read_bytes() == (done.path / "effects.json").read_bytes()
    assert again.study.answer == done.study.answer


@pytest.mark.parametrize("keep", [0, 3, 200, 2000])
def test_a_damaged_trace_is_named(done, tmp_path, keep):
    out = tmp_path / "s"
    shutil.copytree(done.path, out)
    trace = out / "trace.nc"
    trace.write_bytes(trace.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"cannot read .*trace\.nc.*Delete it"):
        load_run(out)


@pytest.mark.parametrize("keep", [0, 200, 2000])
def test_a_damaged_sweep_is_named(done, tiny_lalm, items, tmp_path, keep):
    out = tmp_path / "s"
    shutil.copytree(done.path, out)
    sweep = out / "selection.nc"
    sweep.write_bytes(sweep.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"cannot read .*selection\.nc.*Delete it"):
        study(tiny_lalm, items, out, progress=False)


def test_a_sweep_of_other_settings_is_refused_before_anything_slow(done, tiny_lalm, items, tmp_path):
    out = tmp_path / "s"
    out.mkdir()
    shutil.copy(done.path / "selection.nc", out)
    with pytest.raises(RunError, match=r"selection\.nc holds another sweep: in its manifest seed is 0, here"):
        study(tiny_lalm, items, out, seed=1, progress=False)


def test_a_folder_of_another_study_is_refused(done, tiny_lalm, items):
    with pytest.raises(RunError, match="the data have changed"):
        study(tiny_lalm, items, done.path, items_limit=6, progress=False)


def test_without_conflict_items_everything_is_over_all_items(tiny_lalm, items, tmp_path):
    neutral = items.filter(condition="neutral")
    done = study(tiny_lalm, neutral, tmp_path / "s", items_limit=4, progress=False)
    assert done.study.primary.comparison.subset == {}
    assert done.study.selection.grid_caption_condition is None
    assert done.study.test == Split(items=4, clips=4)
    assert "4 items (4 clips)" in done.study.answer
    assert not np.isnan(done.records["margin"]).any()


def test_a_benchmark_with_one_split_cannot_be_studied(tiny_lalm, items, tmp_path):
    with pytest.raises(RunError, match="no item in its confirmation split"):
        study(tiny_lalm, list(items.split("selection")), tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()


def test_roles_stand_in_the_manifest(done):
    assert {name: data["role"] for name, data in done.manifest["conditions"].items()} == dict(done.roles)
    assert [done.roles[name] for name in ("baseline", "mata", "mata on text", "no audio")] == [
        "baseline",
        "mata",
        "sham_text",
        "no_audio",
    ]


@pytest.mark.parametrize("name", ["study.json", "effects.json"])
@pytest.mark.parametrize("version", [1, 2, 99, None])
def test_an_unknown_format_version_is_refused(done, tmp_path, name, version):
    out = shutil.copytree(done.path, tmp_path / "s")
    content = json.loads((out / name).read_text())
    (out / name).write_text(json.dumps({**content, "version": version}))
    with pytest.raises(RunError, match=rf"{name} has format version {version or 'none'}\b"):
        load_run(out)


def test_a_study_result_with_a_wrong_field_is_refused(done, tmp_path):
    out = shutil.copytree(done.path, tmp_path / "s")
    content = json.loads((out / "study.json").read_text())
    for change, quoted in (
        ({"test": {"items": 3}}, "'clips'"),
        ({"surprise": 1}, "'surprise'"),
        ({"truncated": "many"}, "'many'"),
    ):
        (out / "study.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(RunError, match=quoted):
            load_run(out)


def test_a_study_is_saved_and_loaded(done, tmp_path):
    again = Run.load(done.save(tmp_path / "copy"))
    pd.testing.assert_frame_equal(again.records, done.records, check_exact=True)
    assert (again.effects, again.study, again.missing) == (done.effects, done.study, 0)
    assert again.trace.identical(done.trace)
    assert sorted(path.name for path in again.path.iterdir()) == sorted(
        path.name for path in done.path.iterdir()
    )
    with pytest.raises(RunError, match="copy"):
        done.save(tmp_path / "copy")


def test_strict_raises_for_an_item_that_cannot_be_used(tiny_lalm, items, tmp_path):
    with pytest.raises(ItemError, match="'gone'"):
        study(tiny_lalm, items, tmp_path / "s", progress=False, strict=True)


@pytest.mark.acceptance
def test_a_study_may_search_from_coarse_to_fine(tmp_path):
    """Of a deeper model: the choice is the last round's, the folder says how it was made, and is resumed."""
    lalm = LALM(*tiny_qwen2_audio(seed=1, layers=16))
    made = make_items(tmp_path, clips=2 * LEAST_CLIPS + 2, splits=("selection", "test"))
    data = Items.from_records([item for item in made if item.condition == "conflict"], "made")
    options = {"search": "coarse", "progress": False}
    done = study(lalm, data, tmp_path / "s", **options)
    tried, selection = read_sweep(done.path / "selection.nc"), done.study.selection
    assert (tried.attrs["search"], tried.attrs["grid"]) == ("coarse", 500)
    assert len(selection.grid) == tried.sizes["configuration"] - 1 < 500
    assert selection.grid_items == tried.sizes["item"] == LEAST_CLIPS + 1
    last = margin(last_round(tried))
    moved = (last - last.sel(configuration="baseline")).mean("item")
    best = max(selection.grid, key=lambda row: row.margin if row.n == last.sizes["item"] else -np.inf)
    assert selection.chosen == best.configuration
    assert best.margin - selection.baseline.margin == pytest.approx(float(moved.max()), abs=1e-9)
    assert set(tried["cluster"].values) & set(done.records["cluster"]) == set()
    assert study(lalm, data, tmp_path / "s", **options).study.selection.chosen == selection.chosen
    with pytest.raises(RunError, match="search='coarse'"):
        study(lalm, data, tmp_path / "s", search="full", progress=False)
