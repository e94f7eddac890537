"""`mata-interp trace` under an edit (--method, --alpha, --rule) gives the trace of the Python function."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import mata_interp as mi
from mata_interp.cli.schemas import SCHEMAS
from mata_interp.interventions import record_of
from mata_interp.interventions.catalogue import InstABoost
from tests.cli.test_options import call_main
from tests.reporting.small import small_study
from tests.support.command_line import invoke

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")

EDITS = {
    "method": (["--method", "InstABoost", "--set", "factor=2", "--layers", "1"], InstABoost((1,), 2)),
    "strength": (["--alpha", "1", "--layers", "1-2"], mi.Mata(1.0, [1, 2])),
    "settings": (
        ["--rule", "add", "--heads", "0", "--keys", "text", "--queries", "text", "--phase", "prefill"],
        mi.Mata(0.1, [1], "add", [0], "prefill", "text", "text"),
    ),
}


@pytest.fixture(scope="module")
def on_small() -> list[object]:
    small = small_study()
    return ["trace", "--model", small.model, "--benchmark", small.benchmark, "--items", "3"]


@pytest.mark.parametrize("kind", EDITS)
def test_the_trace_is_that_under_the_edit(on_small, tmp_path, kind):
    options, edit = EDITS[kind]
    if kind == "settings":
        options = [*options, "--layers", "1"]
    out = tmp_path / "trace.nc"
    result = json.loads(invoke(*on_small, "--query", "text", *options, "--out", out, "--json"))
    assert set(result) == {"schema", *SCHEMAS["trace"].keys}
    assert result["intervention"] == json.loads(json.dumps(record_of(edit)))
    small = small_study()
    lalm = mi.LALM.from_pretrained(small.model)
    every = mi.load_benchmark(small.benchmark)
    names = xr.load_dataset(out, engine="scipy")["item"].values
    items = [item for name in names for item in every if item.id == name]
    expected, plain = (
        mi.trace(lalm, items, "text", intervention=x, progress=False)["mass"] for x in (edit, None)
    )
    written = xr.load_dataset(out, engine="scipy")["mass"]
    np.testing.assert_allclose(written, expected, atol=1e-6)
    assert float(abs(written - plain).max()) > 1e-3


def test_the_published_layers_stand_in(on_small):
    result = json.loads(invoke(*on_small, "--method", "InstABoost", "--json"))
    lalm = mi.LALM.from_pretrained(small_study().model)
    assert result["intervention"]["layers"] == list(mi.published_layers(lalm))
    assert json.loads(invoke(*on_small, "--json"))["intervention"] is None


def test_a_file_without_the_edit_is_refused(on_small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "trace.nc"
    invoke(*on_small, "--out", out, "--json")
    assert call_main(monkeypatch, *on_small, "--out", out, "--alpha", "1") == 1
    assert "intervention" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--layers", "1"], ("--layers", "--method, --alpha or --rule")),
        (["--keys", "text"], ("--keys", "--method, --alpha or --rule")),
        (["--alpha", "0.5,1"], ("--alpha", "one edit")),
        (["--set", "factor=2"], ("--set", "--method")),
        (["--method", "InstABoost", "--alpha", "1"], ("--alpha", "--method")),
        (["--method", "InstABost"], ("InstABoost",)),
        (["--rule", "abss"], ("'abs'",)),
    ],
)
def test_wrong_usage(options, named, monkeypatch, capsys):
    def load_model(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("mata_interp.cli.commands.trace.load_model", load_model)
    assert call_main(monkeypatch, "trace", *options) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert all(text in printed for text in named)
