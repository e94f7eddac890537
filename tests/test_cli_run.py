"""`mata-interp run`: generated answers, dry runs, several edits, and how its options reach the run."""

from __future__ import annotations

import json
import socket
import time

import pytest

import mata_interp
from mata_interp.cli.schemas import SCHEMAS
from tests.reporting.small import small_study
from tests.test_cli import call_main, invoke

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")


@pytest.fixture(scope="module")
def on_small() -> list[object]:
    small = small_study()
    return [
        "run",
        "--model",
        small.model,
        "--benchmark",
        small.benchmark,
        "--items",
        "6",
        "--batch-size",
        "3",
    ]


def test_dry(on_small, tmp_path):
    out = tmp_path / "run"
    output = json.loads(invoke(*on_small, "--out", out, "--dry-run", "--json"))
    assert not out.exists()
    assert (output["items"], output["conditions"], output["done"]) == (6, ["baseline", "mata"], 0)
    assert output["seconds"] > 0
    assert set(output) == {"schema", *SCHEMAS["run --dry-run"].keys}
    printed = invoke(*on_small, "--out", out, "--dry-run")
    assert "6 items" in printed
    assert str(out) in printed


def test_generated_answers(on_small, tmp_path):
    words = ["--generate", "--max-new-tokens", "5", "--temperature", "0.8", "--top-p", "0.9"]
    how = ["--prompt", "letters", "--phase", "decode", "--out", tmp_path / "run"]
    result = json.loads(invoke(*on_small, *words, *how, "--seed", "3", "--json"))
    assert set(result["unparsed"]) == set(result["official"]) == set(result["cut"]) == {"baseline", "mata"}
    assert all(0 <= result["unparsed"][name] <= 1 for name in result["unparsed"])
    manifest = mata_interp.load_run(tmp_path / "run").manifest
    assert manifest["prompt_format"] == "lmms-eval"
    assert manifest["conditions"]["mata"]["interventions"][0]["phase"] == "decode"
    assert manifest["conditions"]["mata"]["decoding"] == {
        "max_new_tokens": 5, "temperature": 0.8, "top_k": 0, "top_p": 0.9, "seed": 3,
    }  # fmt: skip
    report = invoke(*on_small, *words, *how, "--seed", "3")
    assert report.split()[:6] == ["condition", "items", "accuracy", "official", "unparsed", "cut"]


@pytest.mark.parametrize(
    ("options", "address", "workers"),
    [
        (["--ray"], None, None),
        (["--ray", "--workers", "2"], None, 2),
        (["--ray", "auto", "--json"], "auto", None),
        (["--ray=ray://127.0.0.1:{port}", "--workers", "4"], "ray://127.0.0.1:{port}", 4),
    ],
)
def test_ray_stands_alone_or_with_an_address(on_small, tmp_path, monkeypatch, options, address, workers):
    run, got = mata_interp.run, []

    def spy(*arguments, ray, **settings):
        got.append(ray)
        return run(*arguments, **settings)

    monkeypatch.setattr(mata_interp, "run", spy)
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:  # something that answers at the address
        port = server.getsockname()[1]
        invoke(*on_small, "--out", tmp_path / "run", *(text.format(port=port) for text in options))
    expected = address and address.format(port=port)
    assert (got[0].address, got[0].workers) == (expected, workers)


def test_a_dead_cluster_address_fails_soon(on_small, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray")
    start = time.monotonic()
    arguments = [*on_small, "--out", tmp_path / "run", "--ray", "127.0.0.1:1"]
    assert call_main(monkeypatch, *arguments) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert time.monotonic() - start < 20
    assert call_main(monkeypatch, *arguments[:-1], "nowhere") == 2
    assert "'nowhere'" in capsys.readouterr().err


def test_without_ray_there_is_none(on_small, tmp_path, monkeypatch):
    run, got = mata_interp.run, []
    monkeypatch.setattr(mata_interp, "run", lambda *a, ray, **k: (got.append(ray), run(*a, **k))[1])
    invoke(*on_small, "--out", tmp_path / "run")
    assert got == [False]


def test_several_strengths_are_several_conditions(on_small, tmp_path):
    result = json.loads(
        invoke(*on_small, "--alpha", "0.5,2", "--layers", "1", "--heads", "0", "--keys", "text", "--queries",
               "text", "--out", tmp_path / "run", "--json")
    )  # fmt: skip
    names = ["mata, alpha 0.5", "mata, alpha 2"]
    assert list(result["effects"]) == names
    edits = mata_interp.load_run(tmp_path / "run").manifest["conditions"]
    assert [edits[name]["interventions"][0]["alpha"] for name in names] == [0.5, 2.0]
    edit = edits[names[0]]["interventions"][0]
    assert (edit["heads"], edit["keys"], edit["queries"]) == ([0], "text", "text")


def test_a_grid_is_one_condition_per_entry(on_small, tmp_path):
    grid = tmp_path / "edits.toml"
    grid.write_text('[early]\nalpha = 1.0\nlayers = "0-1"\n[late]\nalpha = 2\nlayers = [2]\nrule = "add"\n')
    arguments = [*on_small, "--grid", grid, "--out", tmp_path / "run"]
    result = json.loads(invoke(*arguments, "--json"))
    assert list(result["accuracy"]) == ["baseline", "early", "late"]
    assert set(result["effects"]) == {"early", "late"}
    assert result["effects"]["late"]["after"] == result["accuracy"]["late"]
    edits = mata_interp.load_run(tmp_path / "run").manifest["conditions"]
    assert edits["late"]["interventions"][0]["rule"] == "add"
    lines = invoke(*arguments).splitlines()
    for name in ("baseline", "early", "late"):
        line = next(line for line in lines if line.startswith(name))
        assert f"{100 * result['accuracy'][name]:.1f}\u202f%" in line


def test_split(on_small, tmp_path):
    arguments = [*on_small[:5], "--split", "confirmation", "--out", tmp_path / "run", "--json"]
    result = json.loads(invoke(*arguments))
    confirmation = mata_interp.load_benchmark(on_small[4]).split("confirmation")
    assert result["split"] == "confirmation"
    records = mata_interp.load_run(tmp_path / "run").records
    assert set(records["item"]) == {item.id for item in confirmation}


def own_columns(tmp_path) -> list[object]:
    """Options that name the small benchmark in columns of its own, its sounds elsewhere."""
    small = small_study()
    names = {"question": "prompt", "audio": "wav", "answer": "gold"}
    columns = {"question": "prompt", "audio_id": "wav", "answer": "gold"}
    records = json.loads(small.benchmark.read_text("utf-8"))
    renamed = [{columns.get(key, key): value for key, value in record.items()} for record in records]
    file, mapping = tmp_path / "own.json", tmp_path / "fields.json"
    file.write_text(json.dumps(renamed), encoding="utf-8")
    mapping.write_text(json.dumps(names), encoding="utf-8")
    return ["--benchmark", file, "--fields", mapping, "--audio-root", small.benchmark.parent]


def test_fields_and_audio_root(on_small, tmp_path):
    """`study` reads the items of a file with other columns as `run` does."""
    where = own_columns(tmp_path)
    invoke(*on_small, *where, "--out", tmp_path / "run")
    invoke(*on_small, "--out", tmp_path / "as before")
    measured, reference = (mata_interp.load_run(tmp_path / name).records for name in ("run", "as before"))
    assert len(measured) == 12
    assert measured.equals(reference)
    invoke("study", *on_small[1:3], *where, "--items", "6", "--out", tmp_path / "study")
    assert (tmp_path / "study" / "report.html").exists()


def test_a_dataset_with_several_splits(on_small, tmp_path, monkeypatch, capsys):
    """A folder that `datasets` saved, its sounds in an audio column: asked about as the file is."""
    datasets = pytest.importorskip("datasets")
    small = small_study()
    records = json.loads(small.benchmark.read_text("utf-8"))
    usable = [record for record in records if "missing" not in record["audio_id"]]
    for record in usable:
        path = small.benchmark.parent / record.pop("audio_id")
        record["audio"] = {"bytes": path.read_bytes(), "path": path.name}
    made = datasets.Dataset.from_list(usable).cast_column("audio", datasets.Audio(decode=False))
    splits = {name: made.filter(lambda r, name=name: r["split"] == name) for name in ("selection", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    where = ["--benchmark", tmp_path / "saved", "--audio-root", tmp_path / "sounds"]
    invoke(*on_small, *where, "--subset", "test", "--out", tmp_path / "run")
    invoke(*on_small, "--subset", "test", "--out", tmp_path / "of the file")
    measured, reference = (mata_interp.load_run(tmp_path / name).records for name in ("run", "of the file"))
    assert len(measured) == 12
    assert measured.equals(reference)
    assert call_main(monkeypatch, *on_small, *where, "--out", tmp_path / "other") == 1
    error = capsys.readouterr().err
    assert "'selection', 'test'" in error


@pytest.mark.parametrize(
    "command",
    [
        ["trace"],
        ["layers", "--criteria", "knockout_last"],
        ["sweep", "--layers", "each"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_on_items_takes_fields(on_small, tmp_path, command, monkeypatch, capsys):
    """A file with other columns gives the results of the original file."""
    where, how = own_columns(tmp_path), [*on_small[1:3], "--items", "4", "--json"]
    out = ["--out", tmp_path / "out"] if command[0] == "sweep" else []
    measured = json.loads(invoke(*command, *how, *where, *out))
    benchmark = on_small[3:5]
    out = ["--out", tmp_path / "as before"] if out else []
    reference = json.loads(invoke(*command, *how, *benchmark, *out))
    for output in (measured, reference):
        for path in ("out", "map", "report"):
            output.pop(path, None)
    assert measured == reference
    without = [word for word in where if word != "--fields"][:2]
    assert call_main(monkeypatch, *command, *how, *without, *out) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "BenchmarkError"
    assert "question" in error["message"]
