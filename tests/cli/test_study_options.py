"""Options of `study`: a plan, a preregistration, and what is refused before a model is loaded."""

from __future__ import annotations

import json

import pytest

import mata_interp as mi
from mata_interp.cli.schemas import SCHEMAS
from tests.cli.test_options import call_main
from tests.reporting.small import small_study

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")


@pytest.fixture(scope="module")
def small() -> list[object]:
    made = small_study()
    return ["study", made.model, "--benchmark", made.benchmark, "--layers", "1", "--alpha", "1"]


def test_a_plan_writes_nothing(small, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call_main(monkeypatch, *small, "--plan", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"schema", *SCHEMAS["study --plan"].keys}
    assert printed["pilot_items"] == 4
    assert call_main(monkeypatch, *small, "--plan") == 0
    assert f"{printed['test_items']} items" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_preregistration_is_written_first_and_checked_then(small, monkeypatch, capsys, tmp_path):
    plan, out = tmp_path / "plan.json", tmp_path / "run"
    words = [*small, "--preregister", plan, "--out", out, "--crossfit", "2", "--json"]
    assert call_main(monkeypatch, *words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"schema", *SCHEMAS["study --preregister"].keys}
    assert plan.exists()
    assert not out.exists()
    assert call_main(monkeypatch, *words) == 0
    capsys.readouterr()
    run = mi.load_run(out)
    assert run.registration.matches_plan, run.registration.deviations
    assert run.registration.sha256 == printed["sha256"]
    assert run.crossfit.accuracy.folds == 2
    page = (out / "report.html").read_text("utf-8")
    assert printed["sha256"] in page
    assert 'id="procedure"' in page


def test_a_study_of_a_method(small, monkeypatch, capsys, tmp_path):
    words = [*small[:4], "--method", "InstABoost", "--set", "factor=4", "--set", "queries=last"]
    out = tmp_path / "run"
    assert call_main(monkeypatch, *words, "--out", out, "--dry-run", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"schema", *SCHEMAS["study --dry-run"].keys}
    assert not out.exists()
    assert call_main(monkeypatch, *words, "--out", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"schema", *SCHEMAS["study --method"].keys}
    assert printed["method"] == "instaboost"
    run = mi.load_run(out)
    method = run.conditions["instaboost"].interventions[0]
    assert (method.factor, list(method.layers)) == (4, printed["chosen"]["layers"])
    main = [row for row in printed["effects"] if row["p_adjusted"] is not None]
    assert [(row["condition"], row["baseline"]) for row in main] == [("instaboost", "baseline")] * 2
    assert call_main(monkeypatch, *words, "--out", out) == 0
    text = capsys.readouterr().out
    assert "instaboost edits layer" in text
    assert (out / "report.html").exists()


def test_layers_of_a_method_that_are_not_chosen(small, monkeypatch, capsys, tmp_path):
    words = [*small[:4], "--method", "Hgai", "--layers", "1", "--out", tmp_path / "run"]
    assert call_main(monkeypatch, *words, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["chosen"] == {"layers": [1], "margins": {}, "items": 0, "clips": 0}


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("--set", "factor=2"), ("--set", "--method")),
        (("--method", "InstABost"), ("Did you mean 'InstABoost'",)),
        (("--method", "InstABoost", "--alpha", "1"), ("--alpha", "--method")),
        (("--method", "InstABoost", "--crossfit", "2"), ("--crossfit", "--method")),
        (("--method", "InstABoost", "--plan"), ("--plan", "--method")),
        (("--shams", "heads,noise"), ("'noise'", "--shams")),
        (("--option-order", "random"), ("'random'", "--option-order")),
        (("--samples", "3"), ("--samples", "--temperature")),
        (("--crossfit", "1"), ("--crossfit",)),
    ],
)
def test_wrong_values_are_refused(words, facts, monkeypatch, capsys):
    assert call_main(monkeypatch, "study", *words) == 2
    message = capsys.readouterr().err
    assert [fact for fact in facts if fact not in message] == []
