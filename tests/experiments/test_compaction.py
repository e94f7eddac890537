"""The parts of a finished run become one file per condition; both forms read alike; a kill loses nothing."""

from __future__ import annotations

import os

import pandas as pd
import pytest

import mata_interp as mi
from mata_interp.experiments import folder as folder_module
from mata_interp.experiments.answering import Unit
from mata_interp.experiments.folder import RunFolder
from mata_interp.experiments.results import load_run
from tests.support.sounds import make_items

from .test_folder import filled, part


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(folder_module, "MANY_PARTS", 1)


def files(folder: RunFolder) -> list[str]:
    return sorted(os.listdir(folder.path / "parts"))


def test_both_forms_read_alike(tmp_path, many):
    folder = filled(tmp_path / "run")
    before = load_run(folder.path)
    folder.compact()
    assert files(folder) == ["other-audio.parquet", "plain.parquet"]
    after = load_run(folder.path)
    assert after.missing == 0
    pd.testing.assert_frame_equal(after.records, before.records, check_exact=True)
    assert folder.scan_parts() == (set(folder.expected()), [])
    assert folder.unknown_files() == []
    inodes = [os.stat(folder.path / "parts" / name).st_ino for name in files(folder)]
    folder.compact()  # there is nothing left to do
    assert [os.stat(folder.path / "parts" / name).st_ino for name in files(folder)] == inodes
    glob = pd.concat(map(pd.read_parquet, sorted((folder.path / "parts").glob("*.parquet"))))
    assert len(glob) == len(before.records)  # as any reader of Parquet sees it


def test_few_parts_stay_as_they_are(tmp_path):
    folder = filled(tmp_path / "run")
    before = files(folder)
    folder.compact()
    assert files(folder) == before


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_an_unfinished_run_is_not_compacted(tmp_path, many, what):
    folder = filled(tmp_path / "run")
    path = folder.part_path("plain", 1)
    path.unlink() if what == "missing" else path.write_bytes(b"no")
    before = files(folder)
    folder.compact()
    assert files(folder) == before


def test_a_kill_between_writing_and_removing_loses_nothing(tmp_path, many):
    folder = filled(tmp_path / "run")
    before = load_run(folder.path).records
    folder.compact()
    folder.write_part("plain", 0, part("plain", 0))  # as if it had not been removed yet
    compacted = load_run(folder.path)
    pd.testing.assert_frame_equal(compacted.records, before, check_exact=True)
    folder.compact()
    assert files(folder) == ["other-audio.parquet", "plain.parquet"]


def test_a_damaged_file_is_noticed_and_its_parts_are_computed_again(tmp_path, many):
    folder = filled(tmp_path / "run")
    folder.compact()
    path = folder.whole_path("plain")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    done, damaged = folder.scan_parts()
    assert done == {("other audio", 0), ("other audio", 1)}
    assert len(damaged) == 2
    assert all("plain.parquet" in name for name in damaged)
    unit = Unit(4, 1, ("i2", "i3"), "own", ("plain",))
    assert folder.missing(unit) is not None
    for batch in (0, 1):
        folder.write_part("plain", batch, part("plain", batch))
    assert folder.scan_parts() == (set(folder.expected()), [])
    folder.compact()
    assert folder.scan_parts() == (set(folder.expected()), [])
    assert files(folder) == ["other-audio.parquet", "plain.parquet"]


def test_a_run_compacts_itself_and_goes_on_from_there(tiny_lalm, tmp_path, many):
    (tmp_path / "clips").mkdir()
    items = make_items(tmp_path / "clips", clips=2)
    conditions = {"baseline": None, "mata": mi.Mata(1.0, [1])}
    first = mi.run(tiny_lalm, items, conditions, tmp_path / "run", batch_size=2, progress=False)
    folder = RunFolder(tmp_path / "run")
    assert files(folder) == ["baseline.parquet", "mata.parquet"]
    assert sorted(os.listdir(folder.path)) == ["manifest.json", "parts"]
    again = mi.run(tiny_lalm, items, conditions, tmp_path / "run", batch_size=2, progress=False)
    pd.testing.assert_frame_equal(again.records, first.records, check_exact=True)
    saved = again.save(tmp_path / "copy")
    pd.testing.assert_frame_equal(load_run(saved).records, first.records, check_exact=True)
