"""Every analysis states its question, and is listed."""

from __future__ import annotations

import re

import pytest

from tests.support.analyses import ROOT, run_script

SCRIPTS = sorted(p.name for p in (ROOT / "analyses").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_the_question_and_examples(script):
    text = run_script(script, "--help")
    assert "?" in text.split("--")[0]
    assert f"python analyses/{script}" in text


def test_the_index_has_every_script():
    linked = re.findall(r"\[(\w+\.py)\]\((\w+\.py)\)", (ROOT / "analyses" / "README.md").read_text())
    assert all(name == target for name, target in linked)
    assert sorted(name for name, _ in linked) == SCRIPTS
