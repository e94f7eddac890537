"""Folders of MMAU and MMAR as they are downloaded, and what a name without data says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from mata_interp.benchmarks import load_benchmark, places
from mata_interp.errors import BenchmarkError

from .conftest import a_record, write_json


def mmau(folder: Path, place: Path, audio: str = "test-mini-audios") -> Path:
    """MMAU's data file in ``place``, and its audio in ``place / audio``."""
    (place / audio).mkdir(parents=True)
    for n in range(3):
        shutil.copy(folder / "clips" / f"{n}.wav", place / audio / f"{n}.wav")
    records = [a_record(n, audio_id=f"./test-mini-audios/{n}.wav") for n in range(3)]
    write_json(place / "mmau-test-mini.json", records)
    return place


def mmar(folder: Path, place: Path) -> Path:
    (place / "audio").mkdir(parents=True)
    lines = []
    for n in range(3):
        shutil.copy(folder / "clips" / f"{n}.wav", place / "audio" / f"{n}.wav")
        record = a_record(n, audio_path=f"./audio/{n}.wav", modality="sound", url=f"https://a.example/{n}")
        del record["audio_id"]
        lines.append(json.dumps(record))
    (place / "MMAR-meta.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return place


def all_decode(items) -> bool:
    return len(items) == 3 and not items.drop_undecodable().excluded


@pytest.mark.parametrize(
    "audio",
    ["test-mini-audios", "audio", "data/test-mini-audios", "sounds/wav", "."],
    ids=str,
)
def test_a_folder_of_mmau_wherever_its_audio_is(folder, tmp_path, audio):
    place = tmp_path / "MMAU"
    mmau(folder, place, "test-mini-audios")
    if audio != "test-mini-audios":
        files = place / "test-mini-audios"
        target = place / audio
        target.mkdir(parents=True, exist_ok=True)
        for file in files.iterdir():
            shutil.move(file, target / file.name)
        files.rmdir()
    (place / "evaluation.py").write_text("# the official script")
    items = load_benchmark(place)
    assert (items.name, items[0].domain) == ("MMAU", "sound")
    assert all_decode(items)
    assert items.sha256 == load_benchmark(place / "mmau-test-mini.json").sha256


def test_a_folder_of_mmar(folder, tmp_path):
    items = load_benchmark(mmar(folder, tmp_path / "MMAR"))
    assert all_decode(items)
    assert items[0].source == "https://a.example/0"


def test_a_folder_with_both_test_sets(folder, tmp_path):
    place = mmau(folder, tmp_path / "MMAU")
    (place / "test-audios").mkdir()
    shutil.copy(folder / "clips" / "3.wav", place / "test-audios" / "3.wav")
    record = a_record(3, audio_id="./test-audios/3.wav", split="test")
    del record["answer"]
    write_json(place / "mmau-test.json", [record])
    assert [item.id for item in load_benchmark(place)] == ["q0", "q1", "q2"]
    (whole,) = load_benchmark(place, subset="test")
    assert (whole.id, whole.answer, whole.load_audio().seconds) == ("q3", None, 0.5)
    write_json(place / "mmau-mini.json", [record])
    with pytest.raises(BenchmarkError, match=r"'mmau-mini\.json'"):
        load_benchmark(place)


def test_a_folder_of_ones_own(folder):
    (folder / "questions.csv").write_text("audio,question,choices,answer\nclips/0.wav,Who?,a dog|a cat,B\n")
    (item,) = load_benchmark(folder)
    assert (item.answer, item.load_audio().seconds) == ("a cat", 0.5)


def test_a_given_audio_root_is_kept(folder, tmp_path):
    place = mmau(folder, tmp_path / "MMAU")
    moved = tmp_path / "elsewhere" / "test-mini-audios"
    shutil.move(place / "test-mini-audios", moved)
    assert all_decode(load_benchmark(place, audio_root=moved.parent))
    assert load_benchmark(place).drop_undecodable().excluded[0].reason.startswith("no such file")


def test_no_path_leads_out_of_the_folder(folder, tmp_path):
    place = mmau(folder, tmp_path / "MMAU")
    soundfile.write(tmp_path / "out.wav", [0.1] * 1600, 16_000)
    write_json(place / "mmau-test-mini.json", [a_record(0, audio_id="../out.wav")])
    assert "leads out of audio_root" in load_benchmark(place).drop_undecodable().excluded[0].reason


@pytest.mark.parametrize(("name", "source"), [("mmau", "Sakshi113/MMAU"), ("mmar", "BoJack/MMAR")])
def test_a_name_without_data_says_what_to_download_and_where_to_put_it(tmp_path, monkeypatch, name, source):
    monkeypatch.setenv("MATA_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchmarkError) as caught:
        load_benchmark(name)
    assert source in str(caught.value)
    assert str(tmp_path / "data" / name) in str(caught.value)


def test_a_name_with_data_in_the_data_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATA_DATA", str(tmp_path / "data"))
    mmau(folder, tmp_path / "data" / "mmau")
    mmar(folder, tmp_path / "data" / "MMAR")
    assert all_decode(load_benchmark("mmau"))
    assert all_decode(load_benchmark("mmar"))
    assert load_benchmark("mmau").name == "mmau"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MATA_DATA", "~/data")
    assert places.data_folder() == tmp_path / "data"
    monkeypatch.delenv("MATA_DATA")
    assert places.data_folder().name == "mata-interp"
