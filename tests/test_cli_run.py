"""`mata-interp run`: in words, dry, and how its options reach the run."""

from __future__ import annotations

import json

import pytest

import mata_interp
from tests.reporting.small import small_study
from tests.test_cli import call_main, invoke

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.experiments.RunWarning")


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
    said = json.loads(invoke(*on_small, "--out", out, "--dry-run", "--json"))
    assert not out.exists()
    assert (said["items"], said["conditions"], said["done"]) == (6, ["baseline", "mata"], 0)
    assert said["seconds"] > 0
    assert "Left: about" in invoke(*on_small, "--out", out, "--dry-run")


def test_in_words(on_small, tmp_path):
    words = ["--generate", "--max-new-tokens", "5", "--temperature", "0.8", "--top-p", "0.9"]
    how = ["--prompt", "letters", "--phase", "decode", "--out", tmp_path / "run"]
    found = json.loads(invoke(*on_small, *words, *how, "--seed", "3", "--json"))
    assert set(found["unparsed"]) == set(found["official"]) == set(found["cut"]) == {"baseline", "mata"}
    assert all(0 <= found["unparsed"][name] <= 1 for name in found["unparsed"])
    manifest = mata_interp.load_run(tmp_path / "run").manifest
    assert manifest["prompt_format"] == "lmms-eval"
    assert manifest["conditions"]["mata"]["interventions"][0]["phase"] == "decode"
    assert manifest["conditions"]["mata"]["decoding"] == {
        "max_new_tokens": 5, "temperature": 0.8, "top_k": 0, "top_p": 0.9, "seed": 3,
    }  # fmt: skip
    told = invoke(*on_small, *words, *how, "--seed", "3")
    assert told.split()[:6] == ["condition", "items", "accuracy", "official", "unparsed", "cut"]


@pytest.mark.parametrize(
    ("options", "address", "workers"),
    [
        (["--ray"], None, None),
        (["--ray", "--workers", "2"], None, 2),
        (["--ray", "10.0.0.1:6379", "--json"], "10.0.0.1:6379", None),
        (["--ray=ray://head:10001", "--workers", "4"], "ray://head:10001", 4),
    ],
)
def test_ray_stands_alone_or_with_an_address(on_small, tmp_path, monkeypatch, options, address, workers):
    run, got = mata_interp.run, []

    def spy(*arguments, ray, **settings):
        got.append(ray)
        return run(*arguments, **settings)

    monkeypatch.setattr(mata_interp, "run", spy)
    invoke(*on_small, "--out", tmp_path / "run", *options)
    assert (got[0].address, got[0].workers) == (address, workers)


def test_without_ray_there_is_none(on_small, tmp_path, monkeypatch):
    run, got = mata_interp.run, []
    monkeypatch.setattr(mata_interp, "run", lambda *a, ray, **k: (got.append(ray), run(*a, **k))[1])
    invoke(*on_small, "--out", tmp_path / "run")
    assert got == [False]


def test_what_makes_no_sense_is_refused(on_small, tmp_path, monkeypatch, capsys):
    out = ["--out", tmp_path / "run"]
    assert call_main(monkeypatch, *on_small, *out, "--prompt", "haiku") == 2
    assert "'haiku': choose one of options, lmms-eval" in capsys.readouterr().err.replace("\n", " ")
    assert call_main(monkeypatch, *on_small, *out, "--generate", "--top-p", "0.5") == 1
    assert "temperature above 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def own_columns(tmp_path) -> list[object]:
    """Options that name the small benchmark in columns of its own, its sounds elsewhere."""
    small = small_study()
    names = {"question": "prompt", "audio": "wav", "answer": "gold"}
    columns = {"question": "prompt", "audio_id": "wav", "answer": "gold"}
    records = json.loads(small.benchmark.read_text("utf-8"))
    own = [{columns.get(key, key): value for key, value in record.items()} for record in records]
    file, mapping = tmp_path / "own.json", tmp_path / "fields.json"
    file.write_text(json.dumps(own), encoding="utf-8")
    mapping.write_text(json.dumps(names), encoding="utf-8")
    return ["--benchmark", file, "--fields", mapping, "--audio-root", small.benchmark.parent]


def test_fields_and_audio_root(on_small, tmp_path):
    """`study` reads the items of a file with other columns as `run` does."""
    where = own_columns(tmp_path)
    invoke(*on_small, *where, "--out", tmp_path / "run")
    invoke(*on_small, "--out", tmp_path / "as before")
    ours, theirs = (mata_interp.load_run(tmp_path / name).records for name in ("run", "as before"))
    assert len(ours) == 12
    assert ours.equals(theirs)
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
    ours, theirs = (mata_interp.load_run(tmp_path / name).records for name in ("run", "of the file"))
    assert len(ours) == 12
    assert ours.equals(theirs)
    assert call_main(monkeypatch, *on_small, *where, "--out", tmp_path / "other") == 1
    assert "has the splits ['selection', 'test']: give one as subset" in capsys.readouterr().err


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
    """What is said of a file with other columns is what is said of the file as it was."""
    where, how = own_columns(tmp_path), [*on_small[1:3], "--items", "4", "--json"]
    out = ["--out", tmp_path / "out"] if command[0] == "sweep" else []
    ours = json.loads(invoke(*command, *how, *where, *out))
    benchmark = on_small[3:5]
    out = ["--out", tmp_path / "as before"] if out else []
    theirs = json.loads(invoke(*command, *how, *benchmark, *out))
    for said in (ours, theirs):
        said.pop("out", None)
    assert ours == theirs
    without = [word for word in where if word != "--fields"][:2]
    assert call_main(monkeypatch, *command, *how, *without, *out) == 1
    assert "error: " in capsys.readouterr().err
