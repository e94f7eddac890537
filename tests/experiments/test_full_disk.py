"""No room left: one clear line, nothing half written, and the same call goes on once there is room."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from mata_interp.errors import RunError, RunWarning
from mata_interp.execution.files import write_whole
from mata_interp.experiments import load_run, run
from mata_interp.interventions import Mata
from tests.support.sounds import make_items

CONDITIONS = {"baseline": None, "mata": Mata(0.5, [1, 2])}
SAID = r"cannot write .*\. Make room"


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=6)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A real limit of the operating system on this process: writing beyond it fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_parts_that_do_not_fit(tiny_lalm, items, tmp_path):
    out = tmp_path / "run"
    whole = run(tiny_lalm, items, CONDITIONS, tmp_path / "whole", batch_size=4, progress=False)
    size = min(path.stat().st_size for path in (tmp_path / "whole" / "parts").iterdir())
    manifest = (tmp_path / "whole" / "manifest.json").stat().st_size
    assert manifest < size  # so that the limit meets the parts
    with no_file_above(size - 1), pytest.raises(RunError, match=SAID) as caught:
        run(tiny_lalm, items, CONDITIONS, out, batch_size=4, progress=False)
    assert "\n" not in str(caught.value)
    assert "parts/baseline--00000.parquet" in str(caught.value)
    assert os.listdir(out / "parts") == []  # no half part, no leftover
    again = run(tiny_lalm, items, CONDITIONS, out, batch_size=4, progress=False)
    pd.testing.assert_frame_equal(again.records, whole.records, check_exact=True)


def test_a_manifest_that_does_not_fit(tiny_lalm, items, tmp_path):
    with no_file_above(100), pytest.raises(RunError, match=SAID):
        run(tiny_lalm, items, CONDITIONS, tmp_path / "run", progress=False)
    assert os.listdir(tmp_path / "run") == []
    assert run(tiny_lalm, items, CONDITIONS, tmp_path / "run", progress=False).missing == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_no_space_left_on_device(tmp_path):
    """The kernel's own ENOSPC, from /dev/full."""

    def to_a_full_device(file):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(RunError, match=r"No space left on device\. Make room"):
        write_whole(tmp_path / "a", to_a_full_device)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 256 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_midway(small_disk, tiny_lalm, items, tmp_path):
    whole = run(tiny_lalm, items, CONDITIONS, tmp_path / "whole", batch_size=1, progress=False)
    (small_disk / "ballast").write_bytes(bytes(100 * 1024))
    with pytest.raises(RunError, match=r"No space left on device\. Make room"):
        run(tiny_lalm, items, CONDITIONS, small_disk / "run", batch_size=1, progress=False)
    with pytest.warns(RunWarning, match="are missing"):
        half = load_run(small_disk / "run")
    assert 0 < len(half.records) < len(whole.records)
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    again = run(tiny_lalm, items, CONDITIONS, small_disk / "run", batch_size=1, progress=False)
    pd.testing.assert_frame_equal(again.records, whole.records, check_exact=True)
