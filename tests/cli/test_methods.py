"""`mata-interp run --method`: methods of the catalogue by name, their settings, and the list of them."""

from __future__ import annotations

import json

import pytest

import mata_interp
from mata_interp.interventions import METHODS
from mata_interp.interventions.catalogue import Aad, InstABoost
from tests.reporting.small import small_study
from tests.support.command_line import invoke
from tests.test_cli import call_main

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")


@pytest.fixture(scope="module")
def on_small() -> list[object]:
    small = small_study()
    return ["run", "--model", small.model, "--benchmark", small.benchmark, "--items", "6"]


def test_a_method_with_settings(on_small, tmp_path):
    out = tmp_path / "run"
    options = ["--method", "InstABoost", "--set", "factor=2", "--set", "keys=text", "--layers", "1"]
    result = json.loads(invoke(*on_small, *options, "--out", out, "--json"))
    assert list(result["effects"]) == ["instaboost"]
    run = mata_interp.load_run(out)
    assert run.conditions["instaboost"].interventions == (InstABoost((1,), 2, "text"),)
    page = mata_interp.report(out).read_text("utf-8")
    assert "Other methods" in page
    assert InstABoost.formula in page


def test_a_method_without_layers(on_small, tmp_path):
    out = tmp_path / "run"
    options = ["--method", "Aad", "--set", "negative=silent", "--set", "strength=0.5"]
    invoke(*on_small, *options, "--out", out)
    assert mata_interp.load_run(out).conditions["aad"].interventions == (Aad(0.5, "silent"),)


def test_the_list_of_methods():
    rows = json.loads(invoke("run", "--list-methods", "--json"))["methods"]
    assert {row["name"] for row in rows} == set(METHODS) - {"AttentionEdit"}
    boost = next(row for row in rows if row["name"] == "InstABoost")
    assert boost["formula"] == InstABoost.formula
    assert boost["source"] == InstABoost.source
    assert boost["settings"]["factor"] == "3.0"
    printed = invoke("run", "--list-methods")
    assert all(name in printed for name in METHODS if name != "AttentionEdit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "InstABost"], "Did you mean 'InstABoost'"),
        (["--method", "InstABoost", "--set", "faktor=2"], "Did you mean 'factor'"),
        (["--method", "InstABoost", "--set", "factor"], "key=value"),
        (["--method", "InstABoost", "--alpha", "1"], "--alpha"),
        (["--set", "factor=2"], "--method"),
    ],
)
def test_wrong_usage(on_small, tmp_path, monkeypatch, capsys, options, message):
    arguments = [str(part) for part in (*on_small, *options, "--out", tmp_path / "run")]
    assert call_main(monkeypatch, *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_setting_that_is_needed(on_small, tmp_path, monkeypatch, capsys):
    options = ["--method", "Tad", "--set", "yes=[5]", "--out", tmp_path / "run"]
    assert call_main(monkeypatch, *[str(part) for part in (*on_small, *options)]) == 1
    assert "--set no=" in capsys.readouterr().err


def test_methods_in_a_grid(on_small, tmp_path):
    grid = tmp_path / "methods.toml"
    grid.write_text(
        '[weak]\nmethod = "InstABoost"\nlayers = "1-2"\nfactor = 2.0\nqueries = "last"\n'
        '[strong]\nmethod = "InstABoost"\nlayers = "1-2"\nfactor = 9.0\nqueries = "last"\n'
    )
    out = tmp_path / "sweep"
    result = json.loads(invoke("sweep", *on_small[1:], "--grid", grid, "--out", out, "--json"))
    assert [row["name"] for row in result["configurations"]] == ["weak", "strong"]
    assert {row["rule"] for row in result["configurations"]} == {"InstABoost"}
    assert (out / "map.png").exists()
    run = json.loads(invoke(*on_small, "--grid", grid, "--out", tmp_path / "run", "--json"))
    assert list(run["effects"]) == ["weak", "strong"]
