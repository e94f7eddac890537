"""--dry-run: which items, how long and how much memory, and nothing written."""

from __future__ import annotations

import json

import pytest

from mata_interp.cli.schemas import SCHEMAS
from tests.cli.test_options import call_main

SMALL = {
    "study": ("--items", 6, "--layers", "4-5", "--alpha", "1"),
    "trace": ("--items", 3, "--split", "selection"),
    "sweep": ("--items", 3, "--layers", "4-5"),
    "layers": ("--items", 2, "--criteria", "knockout_text"),
    "run": ("--items", 3, "--layers", "4-5"),
}


@pytest.mark.parametrize("command", SMALL)
def test_a_dry_run_says_what_would_be_done(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call_main(monkeypatch, command, *SMALL[command], "--dry-run", "--json") == 0
    output = json.loads(capsys.readouterr().out)
    schema = SCHEMAS[f"{command} --dry-run"]
    assert set(output) == {"schema", *schema.keys}
    assert output["schema"] == schema.id
    stage = output["stages"][-1] if command == "study" else output
    assert stage["items"] == sum(stage["by_condition"].values()) > 0
    assert output["memory"]["total"] > output["memory"]["weights"] > 0
    assert output["seconds"] is None or output["seconds"] > 0
    assert list(tmp_path.iterdir()) == []
    assert call_main(monkeypatch, command, *SMALL[command], "--dry-run") == 0
    text = capsys.readouterr().out
    assert "Memory: about" in text
    assert f"{stage['items']} items" in text


def test_a_trace_in_a_file_is_read_again(monkeypatch, capsys, tmp_path):
    out = tmp_path / "trace.nc"
    words = ("trace", "--items", 3, "--prompt", "official", "--out", out, "--json")
    assert call_main(monkeypatch, *words) == 0
    first, captured = out.read_bytes(), capsys.readouterr()
    assert "3 items" in captured.err  # said before it started
    assert call_main(monkeypatch, *words) == 0
    assert out.read_bytes() == first
    assert capsys.readouterr().out == captured.out
    assert call_main(monkeypatch, "trace", "--items", 6, "--out", out) == 1
    assert "holds another trace" in capsys.readouterr().err
