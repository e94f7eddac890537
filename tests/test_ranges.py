"""Layers told briefly."""

from __future__ import annotations

from mata_interp.cli.options import parse_layers
from mata_interp.ranges import brief, layer_range, named_layers, runs


def test_runs_are_unbroken():
    assert runs((9, 3, 4, 5, 4)) == [(3, 5), (9, 9)]
    assert runs(()) == []


def test_labels_are_what_the_command_line_takes():
    assert brief((9, 3, 4, 5)) == "3-5,9"
    assert brief(()) == ""
    assert parse_layers(brief((0, 2, 3, 7))) == (0, 2, 3, 7)


def test_sentences():
    assert layer_range((9, 3, 4, 5)) == "3\u20135, 9"
    assert layer_range(()) == "none"
    assert [named_layers(some) for some in ([3], [4, 3], [])] == ["layer 3", "layers 3\u20134", "no layers"]
