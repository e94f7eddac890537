"""A file exists whole or not at all; JSON is plain."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest

from mata_interp.errors import RunError
from mata_interp.execution.files import plain, read_json, remove_leftovers, write_json, write_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_whole(tmp_path / "a.bin", lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half of the n")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_whole(tmp_path / "a.bin", fail)
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write .*file/a\.json.*out=") as caught:
        write_json(tmp_path / "file" / "a.json", {})
    assert isinstance(caught.value, RuntimeError)


def test_json_holds_no_nan_and_keeps_floats_exactly(tmp_path):
    value = {
        "a": np.float32(0.1),
        "b": [math.nan, math.inf, 0.1 + 0.2],
        "c": np.arange(2),
        "d": {"z", "y"},
        3: None,
    }
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text
    assert read_json(tmp_path / "a.json") == {
        "a": float(np.float32(0.1)),
        "b": [None, None, 0.1 + 0.2],
        "c": [0, 1],
        "d": ["y", "z"],
        "3": None,
    }
    assert plain(json.loads(text)) == plain(value)


def test_unreadable_json_is_a_run_error(tmp_path):
    (tmp_path / "a.json").write_text('{"half')
    with pytest.raises(RunError, match=r"cannot read .*a\.json"):
        read_json(tmp_path / "a.json")


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    for name in (f".a.parquet.{host}.{dead.pid}.tmp", f".a.parquet.{host}.{os.getppid()}.tmp",
                 f".a.parquet.elsewhere.{dead.pid}.tmp", "notes.tmp"):  # fmt: skip
        (tmp_path / name).write_text("x")
    assert remove_leftovers(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == sorted(
        [f".a.parquet.{host}.{os.getppid()}.tmp", f".a.parquet.elsewhere.{dead.pid}.tmp", "notes.tmp"]
    )


def test_a_file_that_is_there_is_left_alone_if_only_a_new_one_is_wanted(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", 1, new=True)
    write_json(tmp_path / "a.json", 2, new=True)
    assert read_json(tmp_path / "a.json") == 1
    monkeypatch.setattr(os, "link", refuse)  # a file system without hard links
    write_json(tmp_path / "b.json", 3, new=True)
    assert read_json(tmp_path / "b.json") == 3
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json"]


def refuse(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_folder_that_cannot_be_flushed_is_written_all_the_same(tmp_path, monkeypatch, refusal):
    """As on some network and shared drives."""
    whole = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(refusal, os.strerror(refusal))
        return whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_json(tmp_path / "new" / "a.json", 1)
    assert read_json(tmp_path / "new" / "a.json") == 1
    assert os.listdir(tmp_path / "new") == ["a.json"]


def test_a_failing_disk_is_an_error_also_for_the_folder(tmp_path, monkeypatch):
    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match="Input/output error"):
        write_json(tmp_path / "a.json", 1)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_full_disk_promises_to_continue_only_where_the_command_does(tmp_path, resumes):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match="Make room") as caught:
        write_whole(tmp_path / "a", full, resumes=resumes)
    assert ("continue" in str(caught.value)) is resumes
