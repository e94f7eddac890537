"""`mata-interp benchmark`: list, inspect and score, as people and machines use them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mata_interp import cli
from mata_interp.cli.app import app
from mata_interp.cli.schemas import SCHEMAS
from mata_interp.experiments import load_run
from tests.benchmarks.conftest import a_record, downloaded_file, folder, write_json
from tests.reporting.small import small_study

__all__ = ["folder"]


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def fails(monkeypatch, capsys, *arguments: object) -> str:
    """The one line that a command which exits with 1 writes to stderr."""
    monkeypatch.setattr(sys, "argv", ["mata-interp", "benchmark", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    message = capsys.readouterr()
    assert message.out == ""
    assert message.err.startswith("error: ")
    assert len(message.err.splitlines()) == 1
    return message.err


def test_list():
    message = json.loads(invoke("list", "--json"))
    assert set(message) == {"schema", *SCHEMAS["benchmark list"].keys}
    names = {row["name"]: row["verified"] for row in message["benchmarks"]}
    assert names["mmau"]
    assert names["listening"]
    assert not names["mcr-bench"]
    assert "mmsu " in invoke("list")


def test_inspect_names_what_is_odd(folder):
    records = [
        a_record(0, category=["Reasoning"]),
        a_record(1, choices=["x", "x"]),
        a_record(2, audio_id="clips/none.wav"),
        a_record(3, answer=""),
    ]
    file = write_json(folder / "a.json", records)
    message = json.loads(invoke("inspect", file, "--json"))
    assert (message["items"], message["missing_audio"], message["missing_audio_items"]) == (3, 1, ["q2"])
    assert (message["repeated_choices"], message["no_answer"], message["release"]) == (1, 1, None)
    assert message["odd_fields"] == {"category": {"text": 3, "list": 1}}
    people = invoke("inspect", file)
    assert "q2: see --audio-root" in people
    assert "category has values of several types: 3 text, 1 list" in people
    assert "q1: choices: 'x'" in people


def test_inspect_through_a_mapping(folder):
    record = {"id": "s", "audio_path": "clips/0.wav", "question": "Which?", "task_name": "tone"}
    record |= {"choice_a": "up", "choice_b": "down", "choice_c": "", "choice_d": "", "answer_gt": "up"}
    file = write_json(folder / "mmsu.json", [record])
    message = json.loads(invoke("inspect", file, "--fields", "mmsu", "--json"))
    assert message["mapping"]["verified"] is False
    assert message["choices"] == {"2": 1}
    assert "mapping mmsu: not verified" in invoke("inspect", file, "--fields", "mmsu")


def test_score(folder):
    message = ["a bell", "(B)", "hm"]
    file = write_json(folder / "p.json", [a_record(n, model_output=text) for n, text in enumerate(message)])
    scores = json.loads(invoke("score", file, "--benchmark", "mmau", "--json"))
    assert set(scores) == {"schema", *SCHEMAS["benchmark score"].keys}
    assert scores["official"]["accuracy"] == pytest.approx(1 / 3)
    assert scores["option_aware"]["accuracy"] == pytest.approx(2 / 3)
    people = invoke("score", file, "--benchmark", "mmau")
    assert "33.3\u202f%" in people
    assert "66.7\u202f%" in people
    assert "name no option: 1 " in people
    short = write_json(folder / "s.json", [{"id": "q0", "model_output": "a bell"}])
    whole = write_json(folder / "whole.json", [a_record(0), a_record(1)])
    joined = json.loads(invoke("score", short, "--benchmark", "mmau", "--answers", whole, "--json"))
    assert (joined["official"]["n"], joined["official"]["no_prediction"]) == (1, 1)
    assert joined["official"]["accuracy"] == 1


@pytest.mark.filterwarnings("ignore::mata_interp.errors.RunWarning")
def test_submit(tmp_path):
    """What a run answered, in the benchmark's own records; what it left out is counted."""
    small = small_study()
    out = tmp_path / "submission.json"
    arguments = ("submit", small.run, "--benchmark", "mmau", "--data", small.benchmark, "--out", out)
    message = json.loads(invoke(*arguments, "--json"))
    rows, records = json.loads(out.read_text("utf-8")), json.loads(small.benchmark.read_text("utf-8"))
    run = load_run(small.run).records
    baseline = run[run["condition"] == "baseline"].set_index("item")["predicted"]
    assert {row["id"]: row["model_output"] for row in rows if "model_output" in row} == dict(baseline)
    assert [{k: v for k, v in row.items() if k != "model_output"} for row in rows] == records
    assert (message["predictions"], message["no_prediction"]) == (len(baseline), len(records) - len(baseline))
    assert set(message) == {"schema", *SCHEMAS["benchmark submit"].keys}
    assert f"{len(baseline)} predictions" in invoke(*arguments)


@pytest.mark.filterwarnings("ignore::mata_interp.errors.RunWarning")
def test_from_a_test_set_without_answers_to_its_submission(tmp_path):
    """As MMAU's nine thousand: not pinned, answered, not scored, and written for the leaderboard."""
    small = small_study()
    records = json.loads(small.benchmark.read_text("utf-8"))[:9]
    for record in records:
        del record["answer"]
    data = write_json(small.benchmark.parent / "mmau-test.json", records)
    assert json.loads(invoke("inspect", data, "--json"))["no_answer"] == 9
    assert "9 items without a known answer" in invoke("inspect", data)
    folder, out = tmp_path / "run", tmp_path / "submission.json"
    arguments = ["run", "--model", small.model, "--benchmark", data, "--out", folder, "--generate"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--max-new-tokens", "3"], catch_exceptions=False)
    assert str(folder) in done.stdout
    arguments = ["submit", folder, "--benchmark", "mmau", "--data", data, "--out", out]
    message = json.loads(invoke(*arguments, "--json"))
    assert (message["predictions"], message["no_prediction"], message["release"]) == (9, 0, None)
    assert f"SHA-256 {message['data_sha256']}" in invoke(*arguments)
    rows = json.loads(out.read_text("utf-8"))
    run = load_run(folder)
    baseline = run.records[run.records["condition"] == "baseline"].set_index("item")
    assert {row["id"]: row["model_output"] for row in rows} == dict(baseline["final_answer"])
    assert [{k: v for k, v in row.items() if k != "model_output"} for row in rows] == records
    CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False)
    page = (folder / "report.html").read_text("utf-8")
    assert message["data_sha256"] in page


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"model_output": 3}, "item 'q0', field 'model_output': 3"),
        ({"model_output": "x", "id": None}, "item 'record 1', field 'id'"),
        ({"model_output": "x", "answer": None}, "item 'q0', field 'answer': None"),
    ],
)
def test_errors_name_the_item_and_the_field(folder, monkeypatch, capsys, record, words):
    file = write_json(folder / "p.json", [a_record(0, **record)])
    assert words in fails(monkeypatch, capsys, "score", file, "--benchmark", "mmau")
    assert "'x'" in fails(monkeypatch, capsys, "inspect", file, "--fields", "x")


def test_wrong_names_and_paths_are_wrong_usage(folder):
    file = write_json(folder / "p.json", [a_record(0, model_output="x")])
    for arguments, fact in [
        (("score", file, "--benchmark", "mmsu"), "'mmsu'"),
        (("score", file, "--benchmark", "mmaar"), "Did you mean 'mmar'"),
        (("score", folder / "none.json", "--benchmark", "mmau"), "none.json"),
        (("inspect", folder / "none.json"), "none.json"),
    ]:
        done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
        assert done.exit_code == 2
        assert fact in " ".join(done.output.split())


def test_a_file_without_usable_items_is_a_failure(folder):
    file = write_json(folder / "bad.json", [a_record(0, choices=["x", "x"])])
    done = CliRunner().invoke(app, ["benchmark", "inspect", str(file), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["items"] == 0


@pytest.mark.parametrize(
    ("name", "key", "file", "sentence"),
    [
        ("mmau", "model_output", "mmau-test-mini.json", 0.907),
        ("mmar", "answer_prediction", "MMAR-meta.jsonl", 0.910),
    ],
)
def test_real_files(tmp_path, name, key, file, sentence):
    """Every right answer as "The answer is X.": the official score loses what the option-aware one keeps."""
    source = downloaded_file(file)
    message = json.loads(invoke("inspect", source, "--json"))
    assert message["release"]["benchmark"] == name
    text = source.read_text("utf-8")
    records = (
        json.loads(text) if source.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    )
    out = write_json(tmp_path / "p.json", [{**r, key: f"The answer is {r['answer']}."} for r in records])
    scores = json.loads(invoke("score", out, "--benchmark", name, "--json"))
    assert scores["official"]["accuracy"] == pytest.approx(sentence)
    assert scores["option_aware"]["accuracy"] >= 0.99


def test_help_is_light():
    code = "import sys, mata_interp.cli.app\nprint({'torch', 'datasets', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------ first use
def write_csv(folder, header="file,question,option_a,option_b,option_c,correct"):
    rows = "".join(f"clips/{n}.wav,Who barks?,a dog,a cat,rain,{'ABC'[n % 3]}\n" for n in range(6))
    (folder / "own.csv").write_text(f"{header}\n{rows}")
    return folder / "own.csv"


def test_inspect_of_unknown_columns_says_what_it_saw_and_guesses(folder, monkeypatch, capsys):
    file, fields = write_csv(folder), folder / "fields.json"
    message = fails(monkeypatch, capsys, "inspect", file)
    for fact in ("'option_a'", '"audio": "file"', '"answer": {"option": "correct"}', "--write-fields"):
        assert fact in message
    assert "path=" not in message
    counts = json.loads(invoke("inspect", file, "--write-fields", fields, "--decode", "--json"))
    assert (counts["items"], counts["excluded"], counts["missing_audio"]) == (6, [], 0)
    assert counts["mapping"]["verified"] is None
    assert set(counts) == {"schema", *SCHEMAS["benchmark inspect"].keys}
    again = invoke("inspect", file, "--fields", fields)
    assert "6 items, 0 left out" in again
    for word in ("verified", "known", "pinned"):
        assert word not in again


def test_write_fields_and_fields_exclude_each_other(folder):
    arguments = ["inspect", write_csv(folder), "--fields", "mmsu", "--write-fields", folder / "f.json"]
    done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    assert done.exit_code == 2
    assert not (folder / "f.json").exists()


def test_write_fields_without_a_guess_writes_nothing(folder, monkeypatch, capsys):
    (folder / "own.csv").write_text("x,y\n1,2\n")
    message = fails(monkeypatch, capsys, "inspect", folder / "own.csv", "--write-fields", folder / "f.json")
    assert "'x', 'y'" in message
    assert not (folder / "f.json").exists()


def test_a_folder_and_a_name(folder, tmp_path, monkeypatch, capsys):
    place = tmp_path / "data" / "mmau"
    place.mkdir(parents=True)
    shutil.move(folder / "clips", place / "test-mini-audios")
    write_json(place / "mmau-test-mini.json", [a_record(n, audio_id=f"./audio/{n}.wav") for n in range(6)])
    message = json.loads(invoke("inspect", place, "--decode", "--json"))
    assert (message["items"], message["missing_audio"], message["name"]) == (6, 0, "mmau")
    assert message["odd_fields"] == {}
    monkeypatch.setenv("MATA_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert json.loads(invoke("inspect", "mmau", "--json"))["sha256"] == message["sha256"]
    missing = fails(monkeypatch, capsys, "inspect", "mmar")
    assert "huggingface.co/datasets/BoJack/MMAR" in missing
    assert str(tmp_path / "data" / "mmar") in missing
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json"))["benchmarks"]}
    assert "BoJack/MMAR" in rows["mmar"]["source"]
