"""`mata-interp sweep` as people and machines use it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import xarray as xr
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp import cli
from mata_interp.cli.app import app
from mata_interp.cli.commands.sweep import SweepOptions, configurations
from mata_interp.cli.grids import read_grid
from mata_interp.cli.options import parse_alphas
from mata_interp.cli.schemas import SCHEMAS
from tests.reporting.small import small_study
from tests.test_cli import COMMAND

# the small benchmark holds two items that are meant to be left out, which is said
pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")


def arguments(*more: object) -> list[str]:
    small = small_study()
    words = ["sweep", "--model", small.model, "--benchmark", small.benchmark, "--items", 6, *more]
    return [str(argument) for argument in words]


def invoke(*more: object) -> str:
    done = CliRunner().invoke(app, arguments(*more), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_map_of_windows(tmp_path):
    message = json.loads(invoke("--alpha", "0.5,2", "--out", tmp_path, "--json"))
    swept = xr.load_dataarray(tmp_path / "sweep.nc", engine="scipy")
    result = xr.load_dataarray(tmp_path / "map.nc", engine="scipy")
    assert (tmp_path / "map.png").read_bytes()[1:4] == b"PNG"
    assert "<svg" in (tmp_path / "map.svg").read_text("utf-8")
    assert result.dims == ("layers", "alpha")
    assert result.shape == (3, 2)  # half of three layers: windows of one
    assert message["items"] == swept.sizes["item"] == 6
    assert message["looped"] == 0
    assert set(message) == {"schema", *SCHEMAS["sweep"].keys}
    assert (message["map"], message["no_map"]) == (str(tmp_path / "map.png"), None)
    for row in message["configurations"]:
        place = result.sel(layers=row["layers"], alpha=row["alpha"])
        assert float(place) == pytest.approx(row["change"])
        assert (float(place["low"]), float(place["high"])) == pytest.approx((row["low"], row["high"]))
    mata = mi.Mata(2.0, [1])
    items = list(mi.load_benchmark(small_study().benchmark).split("selection").sample(6))
    lalm = mi.LALM.from_pretrained(small_study().model)
    records = mi.run(lalm, items, {"baseline": None, "mata": mata}, progress=False).records
    means = records.groupby("condition")["margin"].mean()
    row = next(row for row in message["configurations"] if (row["layers"], row["alpha"]) == ("1", 2.0))
    assert row["change"] == pytest.approx(means["mata"] - means["baseline"], abs=1e-4)
    # the same command again reads what is there; another one is refused
    people = invoke("--alpha", "0.5,2", "--out", tmp_path)
    assert "6 items of" in people
    assert str(tmp_path / "map.png") in people


def test_another_sweep_in_the_folder_is_refused(tmp_path, monkeypatch, capsys):
    invoke("--layers", "each", "--out", tmp_path, "--json")
    monkeypatch.setattr(sys, "argv", ["mata-interp", *arguments("--layers", "heads", "--out", tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "sweep.nc") in error
    assert "--out" in error
    assert "out=" not in error


def test_a_grid_from_a_file(tmp_path):
    grid = tmp_path / "mine.toml"
    grid.write_text('[early]\nalpha = 1.0\nlayers = "0-1"\n[[two]]\nalpha = 1\nlayers = [0]\n'
                    '[[two]]\nalpha = -1\nlayers = [2]\nrule = "add"\nkeys = "text"\n')  # fmt: skip
    two = (mi.Mata(1, [0]), mi.Mata(-1, [2], "add", keys="text"))
    assert read_grid(grid) == {"early": mi.Mata(1.0, [0, 1]), "two": two}
    message = json.loads(invoke("--grid", grid, "--out", tmp_path / "out", "--json"))
    assert [row["name"] for row in message["configurations"]] == ["early", "two"]
    assert message["configurations"][1]["rule"] == "abs then add"
    assert not (tmp_path / "out" / "map.png").exists()
    assert message["map"] is None
    assert message["no_map"]


def test_edits_that_no_map_can_place_say_why(tmp_path):
    """Two sets of heads of one layer lie on no map of single heads."""
    grid = tmp_path / "heads.json"
    edit = {"alpha": 1, "layers": [1]}
    grid.write_text(json.dumps({"one": {**edit, "heads": [0]}, "two": {**edit, "heads": [0, 1]}}))
    message = json.loads(invoke("--grid", grid, "--out", tmp_path / "out", "--json"))
    assert len(message["configurations"]) == 2
    assert message["map"] is None
    assert message["no_map"] in invoke("--grid", grid, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "map.png").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON or TOML"),
        ("[]", "alpha"),
        ('{"a": {"alpha": 1}}', "'a'.*alpha and layers"),
        ('{"a": {"alpha": 1, "layers": [1], "strength": 2}}', "'a'.*strength"),
        ('{"a": {"alpha": 1, "layers": "5-3"}}', "'a'.*5-3"),
        ('{"a": [{"alpha": 1, "layers": [1], "rule": "pow"}]}', "'a'.*'pow'"),
    ],
)
def test_a_bad_grid_names_file_and_entry(text, message, tmp_path):
    (tmp_path / "grid.json").write_text(text)
    with pytest.raises(mi.errors.InterventionError, match=rf"(?s)grid\.json.*{message}"):
        read_grid(tmp_path / "grid.json")


def test_the_configurations_follow_the_options(tiny_lalm):
    def of(layers, **options):
        unused = dict.fromkeys(("widths", "alphas", "rule", "heads", "keys", "queries", "phase", "grid"))
        return list(configurations(tiny_lalm, SweepOptions(layers, **{**unused, **options})).values())

    assert len(of("windows")) == 7 * 5
    assert len(of("windows", widths=(1, 4), alphas=(1.0,))) == 5
    assert of("each") == [mi.Mata(1.0, [n], "knockout") for n in range(4)]
    assert of("each", alphas=(0.5,), rule="abs", heads=(1,))[2] == mi.Mata(0.5, [2], heads=[1])
    assert len(of("heads")) == 16
    assert of("0-1;3", alphas=(2.0,), queries="text") == [
        mi.Mata(2.0, [0, 1], queries="text"),
        mi.Mata(2.0, [3], queries="text"),
    ]
    assert parse_alphas("0.5,1, 2") == (0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--layers", "5-3"), "5-3"),
        (("--layers", "each", "--widths", "1-2"), "--layers windows"),
        (("--layers", "heads", "--heads", "1"), "--heads"),
        (("--layers", "heads", "--alpha", "1,2"), "--alpha"),
        (("--alpha", "much"), "much"),
        (("--rule", "pow"), "pow"),
    ],
)
def test_wrong_usage_is_2(more, words, tmp_path):
    done = CliRunner().invoke(app, arguments(*more, "--out", tmp_path / "out"))
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_nothing_half_done(tmp_path):
    out = tmp_path / "out"
    running = subprocess.Popen(
        [COMMAND, *arguments("--items", "12", "--batch-size", "1", "--out", out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stderr is not None
    for line in running.stderr:  # the note on what was left out comes when the items have been looked at
        if "left out" in line:
            break
    running.send_signal(2)
    _, message = running.communicate(timeout=120)
    if running.returncode == 0 or (out / "sweep.nc").exists():
        pytest.skip("the sweep was over before it could be stopped")
    assert running.returncode == 130
    assert "Traceback" not in message
    assert not (out / "sweep.nc").exists()  # only parts, from which the same command continues
