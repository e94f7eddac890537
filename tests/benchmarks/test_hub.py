"""Datasets of Hugging Face from local folders: audio inside or beside them, several splits."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import pytest

from mata_interp.benchmarks import hub, load_benchmark
from mata_interp.benchmarks.hub import is_dataset
from mata_interp.errors import BenchmarkError

from .conftest import RATE, a_record, write_json

datasets = pytest.importorskip("datasets")


def dataset(folder, count: int = 3):
    """Records with audio in a column, as bytes."""
    records = [a_record(n) for n in range(count)]
    for n, record in enumerate(records):
        path = folder / "clips" / f"{n}.wav"
        record["audio"] = {"bytes": path.read_bytes(), "path": path.name}
        del record["audio_id"]
    made = datasets.Dataset.from_list(records)
    return made.cast_column("audio", datasets.Audio(decode=False))


def test_audio_inside_the_dataset_is_written_once(folder, tmp_path):
    dataset(folder).save_to_disk(tmp_path / "saved")
    shutil.rmtree(folder / "clips")
    written = tmp_path / "audio"
    items = load_benchmark(tmp_path / "saved", audio_root=written)
    assert (items.name, len(items), items.excluded) == ("saved", 3, ())
    files = {file.name: file.stat().st_mtime_ns for file in written.iterdir()}
    assert set(files) == {item.audio for item in items}
    assert items[0].load_audio(RATE).seconds == 0.5
    again = load_benchmark(tmp_path / "saved", audio_root=written)
    assert (again.sha256, [i.content_id for i in again]) == (items.sha256, [i.content_id for i in items])
    assert {file.name: file.stat().st_mtime_ns for file in written.iterdir()} == files


def test_equal_to_the_same_records_in_a_file(folder, tmp_path):
    dataset(folder).save_to_disk(tmp_path / "saved")
    there = load_benchmark(tmp_path / "saved", audio_root=tmp_path / "audio")
    here = load_benchmark(write_json(folder / "a.json", [a_record(n) for n in range(3)]))
    assert [(i.id, i.question, i.choices, i.answer, i.domain, i.extra) for i in there] == [
        (i.id, i.question, i.choices, i.answer, i.domain, i.extra) for i in here
    ]
    assert [i.load_audio().sha256 for i in there] == [i.load_audio().sha256 for i in here]


def test_audio_beside_the_dataset_stays_in_the_folder(folder, tmp_path_factory, monkeypatch):
    """A folder with a table of paths: they begin there, and none leads out of it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    place = tmp_path_factory.mktemp("table")
    records = [a_record(0), a_record(1, audio_id="../clips/1.wav")]
    (place / "test.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    (folder / "clips").rename(place / "clips")
    items = load_benchmark(place, subset="test").drop_undecodable(RATE)
    assert [item.id for item in items] == ["q0"]
    assert "leads out of audio_root" in items.excluded[0].reason


def test_paths_in_an_audio_column_are_relative_to_the_root(tmp_path):
    """As in datasets that hold paths only: one inside becomes relative, one outside stays, to be refused."""
    inside, outside = str(tmp_path / "a" / "x.wav"), "/elsewhere/x.wav"
    paths = [hub._path({"bytes": None, "path": path}, tmp_path) for path in (inside, outside)]
    assert [hub._relative_to(tmp_path, path) for path in paths] == ["a/x.wav", outside]
    assert hub._relative_to(tmp_path, hub._path(None, tmp_path)) is None


@pytest.mark.skipif(find_spec("torchcodec") is not None, reason="torchcodec is there")
def test_a_dataset_that_needs_torchcodec_names_it(folder):
    """`datasets` reads a bare folder of audio with torchcodec only."""
    with pytest.raises(BenchmarkError, match="install 'torchcodec'"):
        load_benchmark(folder / "clips")


def test_splits(folder, tmp_path):
    both = datasets.DatasetDict({"test": dataset(folder, 2), "dev": dataset(folder, 1)})
    both.save_to_disk(tmp_path / "both")
    root = tmp_path / "audio"
    assert len(load_benchmark(tmp_path / "both", subset="dev", audio_root=root)) == 1
    with pytest.raises(BenchmarkError, match=r"has the splits \['dev', 'test'\]: give one as subset"):
        load_benchmark(tmp_path / "both", audio_root=root)
    with pytest.raises(BenchmarkError, match=r"no split 'train'"):
        load_benchmark(tmp_path / "both", subset="train", audio_root=root)


def test_any_folder_that_datasets_reads_with_a_mapping(folder, tmp_path, monkeypatch):
    """Parquet files, as on the hub, and a field mapping over them."""
    place = tmp_path / "parquet"
    place.mkdir()
    renamed = dataset(folder).rename_columns({"question": "prompt"}).cast_column("audio", datasets.Audio())
    renamed.to_parquet(place / "test-00000.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    items = load_benchmark("mine", path=place, fields={"question": "prompt"}, audio_root=tmp_path / "audio")
    assert (items.name, len(items.drop_undecodable(RATE))) == ("mine", 3)
    assert items[0].question == "Which sound comes first?"


def test_folders_that_are_no_dataset(tmp_path):
    assert is_dataset("hf:owner/name")
    assert not is_dataset(tmp_path / "none")
    with pytest.raises(BenchmarkError, match="cannot be loaded"):
        load_benchmark(tmp_path)
