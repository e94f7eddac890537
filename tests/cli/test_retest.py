"""`mata-interp retest`: exit codes, and what is printed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp.cli.app import app

MATA = mi.Mata(1.0, [4, 5, 6, 7])


@pytest.fixture(scope="module")
def model_and_evidence():
    lalm = mi.LALM.from_pretrained("organism")
    items = mi.load_benchmark("listening").filter(condition="conflict").split("confirmation").sample(40)
    return lalm, mi.evidence(lalm, items, MATA, sham=None, progress=False)


def run(*arguments: object):
    return CliRunner().invoke(app, ["retest", *map(str, arguments)])


def test_reproduced(model_and_evidence, tmp_path):
    lalm, evidence = model_and_evidence
    folder = MATA.save_pretrained(tmp_path, lalm=lalm, evidence=evidence)
    result = run(folder, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["reproduced"] is True
    assert printed["before"]["accuracy"] == printed["after"]["accuracy"]
    assert printed["schema"] == "mata-interp/retest/1"


def test_not_reproduced(model_and_evidence, tmp_path):
    lalm, evidence = model_and_evidence
    folder = mi.Mata(0.0, [4]).save_pretrained(tmp_path, lalm=lalm, evidence=evidence)
    result = run(folder)
    assert result.exit_code == 1
    assert "Not reproduced" in result.stdout


def test_wrong_usage(tmp_path):
    assert run(MATA.save_pretrained(tmp_path)).exit_code == 2  # no model is named
    assert run(tmp_path, "--model", "organsm").exit_code == 2
