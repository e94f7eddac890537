"""`mata-interp layers`, and ``--layers FILE|auto`` of every command that takes layers."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp.cli.app import app
from mata_interp.cli.inputs import LayersFile, read_layers, resolve_layers
from mata_interp.cli.options import AUTO, parse_layers_or_source
from mata_interp.cli.schemas import SCHEMAS
from mata_interp.errors import InterventionError, RunError
from mata_interp.experiments.study_result import LayerOrigin
from mata_interp.fusion import CRITERIA
from mata_interp.interventions import DEFAULT_ALPHAS
from mata_interp.statistics.choices import REFUSED
from tests.reporting.small import write_benchmark, write_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::mata_interp.errors.RunWarning"),
    pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[str, str, Path]:
    folder = tmp_path_factory.mktemp("layers")
    return str(write_model(folder / "model")), str(write_benchmark(folder / "bench")), folder


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def on(small) -> list[str]:
    return ["--model", small[0], "--benchmark", small[1]]


@pytest.fixture(scope="module")
def profile(small) -> mi.FusionProfile:
    """A profile that names a window, whatever the tiny model does."""
    data = json.loads(invoke("layers", *on(small), "--items", 6, "--json", "--profiles"))["profile"]
    return mi.FusionProfile.from_dict(data | {"window": [1], "verdict": "found"})


def test_layers_prints_writes_and_draws(small):
    out, figure = small[2] / "layers.json", small[2] / "layers.png"
    printed = invoke("layers", *on(small), "--items", 6, "--out", out, "--figure", figure)
    profile = mi.FusionProfile.from_json(out)
    for name, criterion in CRITERIA.items():
        line = next(line for line in printed.splitlines() if line.startswith(criterion.label))
        assert f"{profile.agreement.loc['window', name]:.2f}" in line
    assert profile.window == ()
    for layer, head in profile.audio_heads[["layer", "head"]].head(6).itertuples(index=False):
        assert f"{layer}.{head} " in printed
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert str(out) in printed
    assert str(figure) in printed


def test_json_has_means_and_no_single_items(small):
    data = json.loads(invoke("layers", *on(small), "--items", 6, "--json"))
    assert set(data) == {"schema", *SCHEMAS["layers"].keys}
    assert data["profile"] is None
    assert data["items"] == data["clips"] == 4
    assert {len(entry["mean"]) for entry in data["criteria"].values()} == {len(data["layers"])}
    whole = json.loads(invoke("layers", *on(small), "--items", 6, "--json", "--profiles"))
    profile = mi.FusionProfile.from_dict(whole["profile"])
    for name, entry in data["criteria"].items():
        mean = profile.mean.sel(criterion=name).values
        assert entry["mean"] == pytest.approx(mean, rel=1e-4, abs=1e-6, nan_ok=True)


def test_another_split(small):
    data = json.loads(
        invoke("layers", *on(small), "--split", "confirmation", "--criteria", "depth", "--items", 6,
               "--json", "--profiles")
    )  # fmt: skip
    confirmation = mi.load_benchmark(small[1]).split("confirmation")
    assert data["split"] == "confirmation"
    assert set(data["profile"]["chosen_on"]) <= {item.cluster for item in confirmation}


def test_layers_looks_at_the_selection_split(small, profile):
    selection = mi.load_benchmark(small[1]).split("selection")
    assert set(profile.chosen_on) <= {item.cluster for item in selection}
    assert set(profile.windows) == set(CRITERIA)


def test_a_range_a_file_or_auto():
    assert parse_layers_or_source("3-5,9") == (3, 4, 5, 9)
    assert parse_layers_or_source("auto") == AUTO
    assert parse_layers_or_source("some/layers.json") == Path("some/layers.json")
    assert parse_layers_or_source("~/layers.json") == Path.home() / "layers.json"
    with pytest.raises(typer.BadParameter, match="3-"):
        parse_layers_or_source("3-")


def test_listen_takes_a_file(small, profile, tmp_path):
    profile.save(tmp_path / "layers.json")
    clip = Path(small[1]).parent / "clips" / "0.wav"
    arguments = [clip, "High or low?", "--choices", "high,low", "--model", small[0]]
    output = json.loads(invoke("listen", *arguments, "--layers", tmp_path / "layers.json", "--json"))
    (output,) = output["clips"]
    assert output["mata"]["layers"] == [1]
    assert output["mata"]["chosen_on"] == list(profile.chosen_on)


def test_run_on_the_clips_of_the_choice_has_no_p_value(small, profile, tmp_path):
    """--split all contains the clips that the layers were chosen on: a test on them would be naive."""
    profile.save(tmp_path / "layers.json")
    arguments = ["run", *on(small), "--layers", tmp_path / "layers.json"]
    with pytest.warns(match="exploratory"):
        result = json.loads(invoke(*arguments, "--split", "all", "--out", tmp_path / "all", "--json"))
    effect = result["effects"]["mata"]
    assert effect["p"] is None
    assert effect["p_mcnemar_mid"] is None
    assert effect["p_method"] == REFUSED
    assert effect["low"] is not None
    with pytest.warns(match="exploratory"):
        printed = invoke(*arguments, "--split", "all", "--out", tmp_path / "all")
    assert "no p-value" in printed
    assert "p =" not in printed
    other = json.loads(invoke(*arguments, "--out", tmp_path / "other", "--json"))
    assert other["effects"]["mata"]["p"] is not None


def test_run_tests_layers_of_a_file_on_other_clips(small, profile, tmp_path):
    profile.save(tmp_path / "layers.json")
    arguments = ["run", *on(small), "--layers", tmp_path / "layers.json", "--json"]
    result = json.loads(invoke(*arguments, "--out", tmp_path / "run"))
    run = mi.load_run(tmp_path / "run")
    assert run.manifest["conditions"]["mata"]["interventions"][0]["layers"] == [1]
    assert result["split"] == "confirmation"
    assert result["items"] == 12
    assert not set(run.records["cluster"]) & set(profile.chosen_on)
    with pytest.warns(match=f"{len(profile.chosen_on)} of the"):
        result = json.loads(invoke(*arguments, "--split", "all", "--out", tmp_path / "all"))
    assert result["split"] == "all"
    assert result["items"] == 24


def test_run_uses_every_clip_where_layers_are_of_another_benchmark(small, profile, tmp_path):
    replace(profile, chosen_on=("elsewhere",)).save(tmp_path / "layers.json")
    arguments = ["run", *on(small), "--layers", tmp_path / "layers.json", "--json"]
    assert json.loads(invoke(*arguments, "--out", tmp_path / "run"))["split"] == "all"


def test_sweep_takes_a_file(small, profile, tmp_path):
    profile.save(tmp_path / "layers.json")
    arguments = [
        "--items",
        4,
        "--layers",
        tmp_path / "layers.json",
        "--alpha",
        "1",
        "--out",
        tmp_path / "sweep",
    ]
    swept = json.loads(invoke("sweep", *on(small), *arguments, "--json"))
    assert [row["layers"] for row in swept["configurations"]] == ["1"]


def study_with(small, out, *layers: object) -> tuple[mi.Run, str]:
    """A study with ``--layers``, and the text of its page."""
    invoke("study", *on(small), "--out", out, "--batch-size", 24, "--layers", *layers)
    page = (out / "report.html").read_text("utf-8")
    return mi.load_run(out), " ".join(re.sub("<[^>]+>", " ", page).split())


def test_study_takes_a_file_and_records_its_origin(small, profile, tmp_path):
    profile.save(tmp_path / "layers.json")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*exploratory")
        run, page = study_with(small, tmp_path / "study", tmp_path / "layers.json")
    assert run.study is not None
    selection = run.study.selection
    clips = len(profile.chosen_on)
    assert selection.layer_origin == LayerOrigin(
        layers=(1,), profile_model=profile.model, clips=clips, selection_clips=clips, test_clips=0
    )
    assert [(row.layers, row.alpha) for row in selection.grid] == [((1,), alpha) for alpha in DEFAULT_ALPHAS]
    edit = run.manifest["conditions"]["mata"]["interventions"][0]
    assert edit["layers"] == [1]
    assert set(edit["chosen_on"]) >= set(profile.chosen_on)
    assert not set(edit["chosen_on"]) & set(run.records["cluster"])
    assert "layer 1" in run.study.answer
    assert "layer 1" in page.lower()
    assert f"{clips} clips" in page


def test_a_study_of_layers_chosen_on_tested_clips_is_exploratory(small, profile, tmp_path):
    tested = sorted({item.cluster for item in mi.load_benchmark(small[1]).split("confirmation")})[:2]
    replace(profile, chosen_on=(*profile.chosen_on, *tested)).save(tmp_path / "layers.json")
    with pytest.warns(match="'mata'.*2 of the 4 clips"):
        run, page = study_with(small, tmp_path / "study", tmp_path / "layers.json")
    assert run.study is not None
    assert run.study.selection.layer_origin.test_clips == 2
    for text in (run.study.answer, page):
        assert "exploratory" in text
        assert "2 of " in text


def test_study_takes_a_range_and_refuses_another_in_its_folder(small, tmp_path):
    run, page = study_with(small, tmp_path / "study", "0,2")
    assert run.study is not None
    assert run.study.selection.chosen.layers == (0, 2)
    assert run.study.selection.layer_origin.profile_model is None
    assert "layers 0, 2" in page.lower()
    with pytest.raises(RunError, match=r"selection\.nc"):
        study_with(small, tmp_path / "study", "0,1")
    with pytest.raises(InterventionError, match="layer 7"):
        study_with(small, tmp_path / "other", "7")
    assert not (tmp_path / "other").exists()


def test_study_finds_layers_on_its_own_selection_clips(small, profile, tmp_path, monkeypatch):
    clips = []

    def fusion_layers(lalm, items, **how):
        clips.extend(item.cluster for item in items)
        return replace(profile, chosen_on=tuple(sorted(set(clips))))

    monkeypatch.setattr(mi, "fusion_layers", fusion_layers, raising=False)
    run, _ = study_with(small, tmp_path / "study", "auto")
    assert run.study is not None
    origin = run.study.selection.layer_origin
    assert origin is not None
    assert origin.clips == origin.selection_clips == len(set(clips))
    assert origin.test_clips == 0
    assert not set(clips) & set(run.records["cluster"])


def test_a_file_written_by_hand_and_other_files(small, tmp_path):
    lalm = mi.LALM.from_pretrained(small[0])
    file = tmp_path / "mine.json"
    file.write_text('{"window": [0, 2]}')

    def no_items():
        raise AssertionError("only auto loads items")

    layers_file = read_layers(file)
    assert layers_file == LayersFile(file, (0, 2))
    assert not layers_file.chosen_on
    assert resolve_layers(layers_file, lalm, no_items) == (0, 2)
    assert resolve_layers((1,), lalm, no_items) == (1,)
    assert resolve_layers(None, lalm, no_items) is None
    file.write_text('{"layers": [0, 2]}')
    with pytest.raises(RunError, match=r"mine\.json"):
        read_layers(file)
    with pytest.raises(typer.BadParameter, match=r"none\.json"):
        read_layers(tmp_path / "none.json")


def test_auto_finds_on_the_selection_and_runs_on_the_rest(small, profile, tmp_path, monkeypatch):
    clips = []

    def fusion_layers(lalm, items, **how):
        clips.extend(item.cluster for item in items)
        return profile

    monkeypatch.setattr(mi, "fusion_layers", fusion_layers, raising=False)
    invoke("run", *on(small), "--layers", "auto", "--items", 6, "--out", tmp_path / "run", "--json")
    records = mi.load_run(tmp_path / "run").records
    assert clips
    assert not set(clips) & set(records["cluster"])


def test_auto_of_a_model_without_fusion_says_so(small, tmp_path):
    with pytest.raises(InterventionError, match="no layers"):
        invoke("run", *on(small), "--layers", "auto", "--items", 6, "--out", tmp_path / "run")
