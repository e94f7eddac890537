"""The command line as people and machines use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import mata_interp
from mata_interp import cli
from mata_interp.cli.app import app
from mata_interp.cli.options import parse_layers, parse_list
from mata_interp.cli.schemas import LISTENING, SCHEMAS
from mata_interp.experiments import load_recordings
from tests.reporting.small import small_study

COMMANDS = ("study", "listen", "trace", "layers", "sweep", "check", "run", "report")
COMMAND = Path(sys.executable).with_name("mata-interp")
SMALL_ITEMS = ["--items", "6", "--batch-size", "6"]

# the small benchmark holds two items that are meant to be left out, which is message
pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")


def invoke(*arguments: object) -> str:
    """What a command that succeeds prints to stdout."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def call_main(monkeypatch, *arguments: object) -> int:
    """Exit code of the command as a shell would see it."""
    monkeypatch.setattr(sys, "argv", ["mata-interp", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def on_small() -> list[object]:
    """Options that name the tiny model and the small benchmark."""
    small = small_study()
    return ["--model", small.model, "--benchmark", small.benchmark]


@pytest.fixture
def clip() -> Path:
    return small_study().benchmark.parent / "clips" / "0.wav"


def test_help_teaches():
    for command in (*COMMANDS, "benchmark", "organism"):
        assert command in invoke("--help")
    for command in COMMANDS:
        assert f"  mata-interp {command}" in invoke(command, "--help")
    for command in ("list", "inspect", "score", "submit"):
        assert f"  mata-interp benchmark {command}" in invoke("benchmark", command, "--help")


def test_help_is_quick_and_light():
    """Under a second for a person; here the work of the processor counts, whatever else the machine does."""
    before = os.times()
    subprocess.run([COMMAND, "--help"], check=True, capture_output=True)
    after = os.times()
    spent = sum(getattr(after, n) - getattr(before, n) for n in ("children_user", "children_system"))
    assert spent < 1.0
    code = "import sys, mata_interp.cli.app\nprint(*({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.split() == []


def test_version():
    assert invoke("--version").split() == ["mata-interp", mata_interp.__version__]


def test_shell_completion_is_offered():
    environment = {
        **os.environ,
        "_MATA_INTERP_COMPLETE": "complete_bash",
        "COMP_WORDS": "mata-interp st",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["study"]


@pytest.mark.parametrize(
    ("text", "layers"), [("3-5", (3, 4, 5)), ("3", (3,)), ("5,1-2", (1, 2, 5)), (" 0 - 1 , 1", (0, 1))]
)
def test_ranges_hold_both_ends(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["5-3", "", "a", "1-", "-1", "1.5", "1-2-3"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(typer.BadParameter):
        parse_layers(text)


def test_choices():
    assert parse_list("a dog, a cat") == ("a dog", "a cat")
    assert parse_list("one, two; three") == ("one, two", "three")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("study", "--nonsense"),
        ("study", "--items", "0"),
        ("listen", "clip.wav"),
        ("run", "--layers", "5-3"),
        ("run", "--alpha", "much"),
    ],
)
def test_wrong_usage_is_2(arguments, monkeypatch, capsys):
    assert call_main(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Usage: mata-interp" in printed.err
    assert printed.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "{tmp}"), "manifest.json"),
        (("listen", "{clip}", "What?", "--choices", "a,a", "--model", "{model}"), "repeated"),
        (
            ("run", "--model", "{model}", "--benchmark", "{bench}", "--layers", "9", "--out", "{tmp}/run"),
            "layer 9",
        ),
        (("benchmark", "inspect", "{bench}", "--fields", "x"), "'x'"),
    ],
)
def test_an_error_of_ours_is_1_and_one_line(arguments, words, monkeypatch, capsys, tmp_path, clip):
    small = small_study()
    places = {"tmp": tmp_path, "model": small.model, "bench": small.benchmark, "clip": clip}
    assert call_main(monkeypatch, *(a.format(**places) for a in arguments)) == 1
    message = capsys.readouterr()
    assert message.out == ""
    line = next(line for line in message.err.splitlines() if line.startswith("error: "))
    assert words in line
    assert "Traceback" not in message.err


def test_what_is_no_error_of_ours_is_not_hidden(monkeypatch, clip):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(mata_interp, "listen", broken)
    monkeypatch.setattr(
        sys, "argv", ["mata-interp", "listen", str(clip), "What?", "--model", str(small_study().model)]
    )
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_warnings_of_ours_are_one_line(on_small, monkeypatch, capsys, tmp_path):
    warnings.simplefilter("always")
    assert call_main(monkeypatch, "run", *on_small, *SMALL_ITEMS, "--out", tmp_path / "run") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert any("1 left out" in note for note in notes), notes


def test_warnings_are_shown_as_before_afterwards(monkeypatch):
    before = warnings.showwarning
    assert call_main(monkeypatch, "--version") == 0
    assert warnings.showwarning is before


def test_listen_for_people(clip, tmp_path):
    message = invoke(
        "listen", clip, "Is it high or low?", "--choices", "high,low", "--model", small_study().model,
        "--alpha", 2, "--layers", "1-2", "--rule", "add", "--out", tmp_path / "heard.html",
    )  # fmt: skip
    for setting in ("add", "alpha 2", "1–2"):
        assert setting in message
    assert (tmp_path / "heard.html").resolve().as_uri() in message
    assert "T2dnU" in (tmp_path / "heard.html").read_text("utf-8")  # "OggS" in base64


def test_listen_for_machines(clip):
    message = json.loads(
        invoke("listen", clip, "High?", "--choices", "yes;no", "--model", small_study().model, "--json")
    )
    assert set(message) == {"schema", *SCHEMAS["listen"].keys}
    assert message["page"] is None
    (message,) = message["clips"]
    assert set(message) == set(LISTENING)
    assert [row["option"] for row in message["options"]] == ["yes", "no"]
    assert sum(row["before"] for row in message["options"]) == pytest.approx(1)
    assert message["mata"]["layers"] == [1]  # 36 to 71 % of three layers


def test_listen_takes_several_clips_and_captions(clip, tmp_path):
    page = tmp_path / "clips.html"
    arguments = [
        "listen",
        clip,
        clip,
        "High?",
        "--choices",
        "yes;no",
        "--model",
        small_study().model,
        "--json",
    ]
    message = json.loads(
        invoke(*arguments, "--caption", "A low tone.", "--caption", "A high tone.", "--out", page)
    )
    assert [one["caption"] for one in message["clips"]] == ["A low tone.", "A high tone."] * 2
    together = json.loads(invoke(*arguments, "--together"))["clips"]
    assert [len(one["clip_starts"]) for one in together] == [2]
    assert page.read_text("utf-8").count("T2dnU") == 4


def test_listen_passes_its_options_on(clip, monkeypatch):
    calls, listen = [], mata_interp.listen
    monkeypatch.setattr(
        mata_interp, "listen", lambda *args, **how: (calls.append(how), listen(*args, **how))[1]
    )
    options = ["--caption", "A low tone.", "--prompt", "kimi", "--max-new-tokens", 3, "--seed", 1]
    message = json.loads(invoke("listen", clip, "High?", "--model", small_study().model, *options, "--json"))
    (message,) = message["clips"]
    assert (message["caption"], message["options"]) == ("A low tone.", [])
    assert (calls[0]["prompt_format"], calls[0]["max_new_tokens"]) == ("kimi", 3)


def test_trace(on_small, tmp_path):
    out = tmp_path / "trace.nc"
    message = json.loads(invoke("trace", *on_small, *SMALL_ITEMS, "--json", "--out", out))
    import xarray as xr

    traced = xr.load_dataset(out, engine="scipy")
    assert message["items"] == traced.sizes["item"] <= 6
    assert message["layer"] == [0, 1, 2]
    assert message["audio_share"] == pytest.approx(
        mata_interp.audio_share(traced).mean(("item", "head")).values
    )
    assert [sum(parts) for parts in zip(*message["mass"].values(), strict=True)] == pytest.approx(
        [1, 1, 1], abs=1e-5
    )
    assert set(message) == {"schema", *SCHEMAS["trace"].keys}
    assert message["split"] == "all"
    people = invoke("trace", *on_small, *SMALL_ITEMS)
    assert f"{100 * message['audio_share'][2]:.1f}\u202f%" in people


def test_trace_of_a_split_in_another_prompt_format(on_small, tmp_path):
    """The format reaches every batch, and the items are those of the split."""
    import numpy as np
    import xarray as xr

    out, options = tmp_path / "trace.nc", ["--split", "confirmation", "--items", 6, "--batch-size", 4]
    message = json.loads(invoke("trace", *on_small, *options, "--prompt", "kimi", "--json", "--out", out))
    items = mata_interp.load_benchmark(on_small[3]).split("confirmation").sample(6)
    lalm = mata_interp.LALM.from_pretrained(on_small[1])
    traced = xr.load_dataset(out, engine="scipy")
    assert message["split"] == "confirmation"
    assert list(traced["item"].values) == [item.id for item in items]
    plain = [
        mata_interp.trace(lalm, lalm.prompt(item, format="kimi"), progress=False)["mass"] for item in items
    ]
    np.testing.assert_allclose(traced["mass"], np.concatenate(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("query", ["text", "generated"])
def test_trace_of_more_queries(on_small, query):
    tokens = ["--max-new-tokens", 2] if query == "generated" else []
    arguments = ["trace", *on_small, *SMALL_ITEMS, "--query", query, *tokens]
    message = json.loads(invoke(*arguments, "--json"))
    assert message["query"] == query
    assert message["queries"] > message["items"] * (1 if query == "generated" else 5)
    assert [sum(parts) for parts in zip(*message["mass"].values(), strict=True)] == pytest.approx(
        [1, 1, 1], abs=1e-5
    )
    assert (message["mass"]["generated"][0] > 0) == (query == "generated")


def test_run_and_its_report(on_small, tmp_path):
    arguments = ["run", *on_small, *SMALL_ITEMS, "--layers", "0-1", "--alpha", 1, "--out", tmp_path / "run"]
    message = json.loads(invoke(*arguments, "--json"))
    run = mata_interp.load_run(tmp_path / "run")
    assert run.manifest["conditions"]["mata"]["interventions"][0]["layers"] == [0, 1]
    correct = run.records.groupby("condition")["correct"].mean()
    assert message["accuracy"] == pytest.approx(dict(correct))
    assert message["items"] == message["effects"]["mata"]["n"] == run.records["item"].nunique() <= 6
    assert message["excluded"] == [asdict(exclusion) for exclusion in run.excluded]
    assert set(message) == {"schema", *SCHEMAS["run"].keys}
    people = invoke(*arguments)  # goes on with the finished run
    assert f"{100 * correct['mata']:.1f}\u202f%" in people
    assert json.loads(invoke("report", tmp_path / "run", "--json"))["report"] == str(
        tmp_path / "run" / "report.html"
    )
    assert (tmp_path / "run" / "report.html").is_file()


def test_study_goes_on_and_ends_with_the_page(on_small, tmp_path):
    folder = shutil.copytree(small_study().run, tmp_path / "run")
    for name in ("report.html", "study.json", "effects.json"):
        (folder / name).unlink()
    message = invoke("study", *on_small, "--out", folder)
    study = mata_interp.load_run(folder).study
    assert study is not None
    assert study.answer in message
    assert message.splitlines()[-1].endswith((folder / "report.html").resolve().as_uri())
    machine = json.loads(invoke("study", *on_small, "--out", folder, "--json"))
    assert machine["primary"]["difference"] == study.primary.effect.difference
    assert machine["report"] == str((folder / "report.html").resolve())
    assert set(machine) == {"schema", *SCHEMAS["study"].keys}


def test_benchmark_inspect():
    small = small_study()
    message = json.loads(invoke("benchmark", "inspect", small.benchmark, "--decode", "--json"))
    assert message["items"] == 24
    assert message["counts"]["condition"] == {"neutral": 8, "congruent": 8, "conflict": 8}
    assert message["choices"] == {"2": 24}
    assert {row["field"] for row in message["excluded"]} == {"answer", "audio"}
    assert set(message) == {"schema", *SCHEMAS["benchmark inspect"].keys}
    people = invoke("benchmark", "inspect", small.benchmark)
    assert people.startswith("tones: 25 items, 1 left out")
    assert "bad answer: answer: 'neither'" in people


def test_the_benchmark_that_ships_can_be_inspected():
    message = json.loads(invoke("benchmark", "inspect", "listening", "--json"))
    assert set(message["counts"]["condition"]) == {"neutral", "congruent", "conflict"}
    assert message["excluded"] == []


def test_the_organism_has_commands_of_its_own():
    done = subprocess.run([COMMAND, "organism", "--help"], capture_output=True, text=True, check=True)
    assert "train" in done.stdout
    assert "Usage: mata-interp organism" in done.stdout


def test_a_stopped_run_continues(on_small, tmp_path):
    """Ctrl-C as a terminal sends it, once the first answers are written."""
    out = tmp_path / "run"
    arguments = ["run", *map(str, on_small), "--items", "9", "--batch-size", "1", "--out", str(out)]
    running = subprocess.Popen(
        [COMMAND, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while running.poll() is None and not list(out.glob("parts/*.parquet")):
        time.sleep(0.02)
    running.send_signal(2)
    _, message = running.communicate(timeout=60)
    done = len(list(out.glob("parts/*.parquet")))
    if running.returncode == 0:
        pytest.skip("the run was over before it could be stopped")
    assert running.returncode == 130
    assert "stopped" in message
    assert "Traceback" not in message
    assert done > 0
    invoke(*arguments)
    parts = len(list(out.glob("parts/*.parquet")))
    assert parts == 2 * 9 > done


def test_report_adds_items(tmp_path):
    small, folder = small_study(), tmp_path / "run"
    shutil.copytree(small.run, folder)
    (folder / "items.npz").unlink()
    item = str(mata_interp.load_run(folder).records["item"].iloc[0])
    invoke("report", folder, "--add-items", item, "--benchmark", small.benchmark)
    recordings = load_recordings(folder / "items.npz")
    assert recordings.detailed == (item,)
    assert len(recordings.items) == 12
    assert (folder / "report.html").read_text("utf-8").count("T2dnU") == 1
