"""Progress on stderr: one line a minute where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from mata_interp import progress
from mata_interp.progress import progress_bar, rough_duration, stage, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def often(monkeypatch):
    """Lines every twentieth of a second."""
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    monkeypatch.setattr(progress._lines, "_last", None)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_line_names_stage_counts_and_the_time_left(often, capsys):
    lines: list[str] = []
    with stage("choosing layers"), progress_bar("sweep", total=96) as bar:
        bar.update(48)
        wait_for(lambda: lines.extend(capsys.readouterr().err.splitlines()) or len(lines) >= 2)
    assert all("choosing layers: sweep: 48 of 96 items, about " in line for line in lines)
    assert all(line.endswith(" left") for line in lines)


def test_a_stage_without_a_bar_is_reported_too(often, capsys):
    lines: list[str] = []
    with stage("testing"):
        wait_for(lambda: lines.extend(capsys.readouterr().err.splitlines()) or lines)
    assert "testing: " in lines[0]
    assert lines[0].endswith(" so far")


def test_what_is_quick_prints_nothing_and_leaves_no_thread(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_lines", progress._Lines())  # whose minute begins now
    before = set(threading.enumerate())
    for n in range(20):
        assert list(track(range(3), f"stage {n}")) == [0, 1, 2]
    wait_for(lambda: set(threading.enumerate()) <= before)
    assert capsys.readouterr().err == ""


def test_silent_where_it_is_not_wanted(often, capsys):
    with stage("quiet", show=False), progress_bar("bar", total=3, show=False) as bar:
        bar.update(1)
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_the_minute_runs_on_over_short_stages(often, capsys):
    """Many stages, each shorter than the interval, are not silent together."""
    lines: list[str] = []

    def one_more() -> bool:
        with progress_bar("batch", total=1) as bar:
            time.sleep(0.02)
            bar.update(1)
        lines.extend(capsys.readouterr().err.splitlines())
        return len(lines) >= 2

    wait_for(one_more)


def test_done_before_does_not_count_as_speed(often, capsys):
    lines: list[str] = []
    with progress_bar("answering", total=10, unit="part", initial=5):
        wait_for(lambda: lines.extend(capsys.readouterr().err.splitlines()) or lines)
    assert "5 of 10 parts" in lines[0]
    assert "left" not in lines[0]


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("trace", total=4) as bar:
        bar.update(4)
    assert "4/4" in terminal.getvalue()


def test_the_block_ends_with_its_error(often):
    with pytest.raises(ValueError, match="inside"), progress_bar("trace", total=2):
        raise ValueError("inside")
    assert progress._lines._stack == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.31, "0.31 seconds"),
        (100, "100 seconds"),
        (600, "10 minutes"),
        (9000, "2.5 hours"),
        (1e6, "12 days"),
    ],
)
def test_two_figures_are_enough(seconds, text):
    assert rough_duration(seconds) == text
