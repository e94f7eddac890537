"""`mata-interp layers`, and ``--layers FILE|auto`` wherever layers are asked for."""

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
from mata_interp.cli.fusing import layers_wanted
from mata_interp.cli.options import AUTO, parse_chosen
from mata_interp.errors import InterventionError, RunError
from mata_interp.experiments.choosing import ALPHAS
from mata_interp.fusion import CRITERIA
from tests.reporting.small import write_benchmark, write_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::mata_interp.experiments.RunWarning"),
    pytest.mark.filterwarnings("ignore::mata_interp.fusion.FusionWarning"),  # its benchmark has bad items
    pytest.mark.filterwarnings("ignore::mata_interp.sweeps.SweepWarning"),
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
def found(small) -> mi.FusionProfile:
    """A profile that names a window, whatever the tiny model does."""
    data = json.loads(invoke("layers", *on(small), "--items", 6, "--json"))
    return mi.FusionProfile.from_dict(data | {"window": [1], "verdict": "found"})


def test_layers_prints_writes_and_draws(small):
    out, figure = small[2] / "layers.json", small[2] / "layers.png"
    printed = invoke("layers", *on(small), "--items", 6, "--out", out, "--figure", figure)
    for criterion in CRITERIA.values():
        assert criterion.label in printed
    assert json.loads(out.read_text())["window"] == []
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert mi.FusionProfile.load(out).summary in printed
    assert str(out) in printed


def test_layers_looks_at_the_selection_split(small, found):
    selection = mi.load_benchmark(small[1]).split("selection")
    assert set(found.chosen_on) <= {item.cluster for item in selection}
    assert set(found.windows) == set(CRITERIA)


def test_a_range_a_file_or_auto():
    assert parse_chosen("3-5,9") == (3, 4, 5, 9)
    assert parse_chosen("auto") == AUTO
    assert parse_chosen("some/layers.json") == Path("some/layers.json")
    with pytest.raises(typer.BadParameter):
        parse_chosen("3-")


def test_listen_takes_a_file(small, found, tmp_path):
    found.save(tmp_path / "layers.json")
    clip = Path(small[1]).parent / "clips" / "0.wav"
    asked = [clip, "High or low?", "--choices", "high,low", "--model", small[0]]
    heard = json.loads(invoke("listen", *asked, "--layers", tmp_path / "layers.json", "--json"))
    assert heard["mata"]["layers"] == [1]
    assert heard["mata"]["chosen_on"] == list(found.chosen_on)


def test_run_takes_a_file_and_knows_what_it_was_chosen_on(small, found, tmp_path):
    found.save(tmp_path / "layers.json")
    with pytest.warns(match="chosen on"):
        invoke("run", *on(small), "--layers", tmp_path / "layers.json", "--out", tmp_path / "run", "--json")
    edit = mi.load_run(tmp_path / "run").manifest["conditions"]["mata"]
    assert '"layers": [1]' in json.dumps(edit)


def test_sweep_takes_a_file(small, found, tmp_path):
    found.save(tmp_path / "layers.json")
    asked = ["--items", 4, "--layers", tmp_path / "layers.json", "--alpha", "1", "--out", tmp_path / "sweep"]
    swept = json.loads(invoke("sweep", *on(small), *asked, "--json"))
    assert [row["layers"] for row in swept["configurations"]] == ["1"]


def study_with(small, out, *layers: object) -> tuple[mi.Run, str]:
    """A study of given layers, and its page in plain words."""
    invoke("study", *on(small), "--out", out, "--batch-size", 24, "--layers", *layers)
    page = (out / "report.html").read_text("utf-8")
    return mi.load_run(out), " ".join(re.sub("<[^>]+>", " ", page).split())


def test_study_takes_a_file_and_says_where_layers_are_from(small, found, tmp_path):
    found.save(tmp_path / "layers.json")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*exploratory")
        run, page = study_with(small, tmp_path / "study", tmp_path / "layers.json")
    assert run.study is not None
    selection = run.study["selection"]
    clips = len(found.chosen_on)
    assert selection["given_layers"] == {
        "layers": [1], "found_in": found.model, "clips": clips, "selection_clips": clips, "test_clips": 0,
    }  # fmt: skip
    assert [(row["layers"], row["alpha"]) for row in selection["grid"]] == [([1], alpha) for alpha in ALPHAS]
    edit = run.manifest["conditions"]["mata"]["interventions"][0]
    assert edit["layers"] == [1]
    assert set(edit["chosen_on"]) >= set(found.chosen_on)
    assert not set(edit["chosen_on"]) & set(run.records["cluster"])
    assert "other clips, in layer 1, as given)" in run.study["answer"]
    assert "Layer 1, given, not chosen by this study: the window of a fusion profile" in page
    assert f"made on {clips} clips. Of these, {clips} are among the selection clips" in page
    assert "none of them is tested here" in page
    assert "How alpha was chosen, in given layers" in page
    assert "widest window" not in page


def test_a_study_of_layers_chosen_on_tested_clips_says_so_everywhere(small, found, tmp_path):
    tested = sorted({item.cluster for item in mi.load_benchmark(small[1]).split("confirmation")})[:2]
    replace(found, chosen_on=(*found.chosen_on, *tested)).save(tmp_path / "layers.json")
    with pytest.warns(match="Condition 'mata' was chosen on 2 of the 4 clips it meets"):
        run, page = study_with(small, tmp_path / "study", tmp_path / "layers.json")
    assert run.study is not None
    assert run.study["selection"]["given_layers"]["test_clips"] == 2
    assert "The layers were chosen on 2 of the tested clips: this is exploratory." in run.study["answer"]
    assert "2 of them are tested here again, so the effect is exploratory" in page


def test_study_takes_a_range_and_a_folder_keeps_to_it(small, tmp_path):
    run, page = study_with(small, tmp_path / "study", "0,2")
    assert run.study is not None
    assert run.study["selection"]["chosen"]["layers"] == [0, 2]
    assert run.study["selection"]["given_layers"]["found_in"] is None
    assert "Layers 0, 2, given by hand, not chosen by this study" in page
    with pytest.raises(RunError, match="another sweep"):
        study_with(small, tmp_path / "study", "0,1")
    with pytest.raises(InterventionError, match="layer 7"):
        study_with(small, tmp_path / "other", "7")
    assert not (tmp_path / "other").exists()


def test_study_finds_layers_on_its_own_selection_clips(small, found, tmp_path, monkeypatch):
    seen = []

    def fusion_layers(lalm, items, **how):
        seen.extend(item.cluster for item in items)
        return replace(found, chosen_on=tuple(sorted(set(seen))))

    monkeypatch.setattr(mi, "fusion_layers", fusion_layers, raising=False)
    run, _ = study_with(small, tmp_path / "study", "auto")
    assert run.study is not None
    given = run.study["selection"]["given_layers"]
    assert given["clips"] == given["selection_clips"] == len(set(seen))
    assert given["test_clips"] == 0
    assert not set(seen) & set(run.records["cluster"])


def test_a_file_by_hand_and_files_of_something_else(small, tmp_path):
    lalm = mi.LALM.from_pretrained(small[0])
    file = tmp_path / "mine.json"
    file.write_text('{"window": [0, 2]}')
    assert layers_wanted(file, lalm, lambda: None) == (0, 2)  # type: ignore[arg-type]
    file.write_text('{"layers": [0, 2]}')
    with pytest.raises(RunError, match=r"mine\.json"):
        layers_wanted(file, lalm, lambda: None)  # type: ignore[arg-type]
    assert layers_wanted((1,), lalm, lambda: None) == (1,)  # type: ignore[arg-type]
    assert layers_wanted(None, lalm, lambda: None) is None  # type: ignore[arg-type]


def test_auto_finds_on_the_selection_and_runs_on_the_rest(small, found, tmp_path, monkeypatch):
    seen = []

    def fusion_layers(lalm, items, **how):
        seen.extend(item.cluster for item in items)
        return found

    monkeypatch.setattr(mi, "fusion_layers", fusion_layers, raising=False)
    invoke("run", *on(small), "--layers", "auto", "--items", 6, "--out", tmp_path / "run", "--json")
    records = mi.load_run(tmp_path / "run").records
    assert seen
    assert not set(seen) & set(records["cluster"])


def test_auto_of_a_model_without_fusion_says_so(small, tmp_path):
    with pytest.raises(InterventionError, match="no layers"):
        invoke("run", *on(small), "--layers", "auto", "--items", 6, "--out", tmp_path / "run")
