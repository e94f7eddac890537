"""The page of a run of 1,000 items: written in seconds, of bounded size, and quick to use."""

from __future__ import annotations

import pytest

import mata_interp as mi

from .browser import MISSING
from .small import small_study
from .speed import ACTIONS, extended, interactions, write

ITEMS = 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return extended(small_study().run, tmp_path_factory.mktemp("large") / "run", ITEMS)


def test_an_extended_run_is_a_run(tmp_path):
    small = mi.load_run(small_study().run)
    run = mi.load_run(extended(small_study().run, tmp_path / "run", 30))
    n = small.records["item"].nunique()
    assert run.missing == 0
    assert run.records["item"].nunique() == n * -(-30 // n)
    assert run.records["correct"].mean() == small.records["correct"].mean()


@pytest.mark.acceptance
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_page_of_a_thousand_items_is_quick(folder, tmp_path):
    """CPU time and not time, as other work may run on the machine: on a quiet one it takes no longer."""
    figures = write(folder, tmp_path / "page.html")
    times = interactions(tmp_path / "page.html")
    print({**figures, **times})
    assert mi.load_run(folder).records["item"].nunique() >= ITEMS
    assert figures["CPU with import, s"] < 15
    assert figures["peak, MiB"] < 1500
    assert figures["page, MB"] < 8
    assert set(times) == set(ACTIONS)
    assert {action: each["cpu"] for action, each in times.items() if each["cpu"] >= 50} == {}
