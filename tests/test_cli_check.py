"""`mata-interp check` as people and machines use it."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from mata_interp import cli
from mata_interp.checking import CheckReport, CheckResult
from mata_interp.cli.app import app
from mata_interp.cli.schemas import SCHEMAS
from tests.reporting.small import small_study


def call(*arguments: object):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


@pytest.fixture(scope="module")
def model():
    return small_study().model


def test_a_table_for_people(model):
    done = call(model)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{model} (a Qwen2AudioForConditionalGeneration, float32, cpu, sdpa, 2 x ")
    head, *rows = lines[2 : lines.index("", 2)]  # up to the empty line after the table
    assert [row[:4] for row in rows if row[:4].strip()] == ["pass"] * 15  # long measurements take two lines
    place = head.index("measured")
    assert {row[place - 2 : place] for row in rows} == {"  "}  # the columns stand in line
    assert lines[-1] == "15 of 15 checks passed, 0 failed, 0 not applicable"


def test_json_for_machines(model):
    done = call(model, "--json", "--dtype", "bfloat16")
    assert done.exit_code == 0, done.output
    outcome = json.loads(done.stdout)
    assert outcome["ok"] is True
    assert outcome["about"]["dtype"] == "bfloat16"
    assert len(outcome["results"]) == 15
    line = next(line for line in outcome["results"] if line["name"] == "edited logits equal eager attention")
    assert 0 < line["difference"] <= line["bound"]
    assert line["verdict"] == "pass"
    assert set(outcome) == {"schema", *SCHEMAS["check"].keys}
    assert set(line) == {"name", "compared", "measured", "difference", "bound", "verdict", "remedy"}


def test_exit_code_1_if_a_line_fails(model, monkeypatch):
    lines = (
        CheckResult("good", "a and b", "off by 0", 0.0, 0.0, "pass", ""),
        CheckResult("bad", "c and d", "off by 2", 2.0, 1.0, "fail", "Look there."),
        CheckResult("none", "e", "there is no e", None, None, "not applicable", ""),
    )
    report = CheckReport("mine", {"class": "Mine", "dtype": "float32"}, lines)
    monkeypatch.setattr("mata_interp.check", lambda lalm: report, raising=False)
    done = call(model)
    assert done.exit_code == 1
    text = " ".join(done.stdout.split())
    assert "fail bad off by 2 1 --" in text
    assert "Look there." in text
    assert "there is no e" in text
    assert "1 of 3" in text
    assert json.loads(call(model, "--json").stdout)["ok"] is False
    assert call(model, "--json").exit_code == 1


def test_a_model_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mata-interp", "check", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert str(tmp_path / "none") in capsys.readouterr().err.splitlines()[-1]


def test_wrong_usage(model):
    assert call(model, "--dtype", "int8").exit_code == 2
    assert call(model, "--model", "organism").exit_code == 2
