"""The items that a window is chosen on: the same in Python, in `layers` and in ``--layers auto``."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp.cli.app import app
from mata_interp.cli.inputs import AutoLayers
from mata_interp.defaults import LAYER_ITEMS
from mata_interp.errors import RunError
from mata_interp.fusion import selection_items
from tests.reporting.small import write_model


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """The ids of the items that reach `fusion_layers`, which is stopped there."""
    ids: list[str] = []

    def fusion_layers(lalm, items, **settings):
        ids.extend(item.id for item in items)
        raise RunError("The items are known.")

    monkeypatch.setattr(mi, "fusion_layers", fusion_layers, raising=False)
    return ids


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("count", [12, None])
def test_python_and_the_command_line_look_at_the_same_clips(measured, tmp_path, count, seed):
    items = mi.load_benchmark("listening")
    chosen = selection_items(items, LAYER_ITEMS if count is None else count, seed)
    expected = [item.id for item in chosen]
    assert len(expected) == len(set(expected)) == (count or LAYER_ITEMS)
    model = str(write_model(tmp_path / "model"))
    options = ["--seed", str(seed)] + ([] if count is None else ["--items", str(count)])
    CliRunner().invoke(app, ["layers", model, *options])
    assert measured == expected
    if count is None:
        measured.clear()
        auto: Any = AutoLayers(lambda: items, seed=seed)
        with pytest.raises(RunError):
            auto.measure(mi.LALM.from_pretrained(model))
        assert measured == expected


def test_items_without_a_selection_split_are_refused():
    items = mi.load_benchmark("listening").split("confirmation")[:1]
    with pytest.raises(RunError, match="selection"):
        selection_items(items)
