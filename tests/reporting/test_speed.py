"""The page of a run of 1,000 items: written in seconds, of bounded size, and quick to use."""

from __future__ import annotations

import pytest

import mata_interp as mi

from .browser import MISSING
from .small import small_study
from .speed import ACTIONS, extended, interactions, write

ITEMS = 1000
LEAST = 5.0  # milliseconds: below it, what the clock and the browser do between frames shows


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
    """Ratios of CPU time to a page of 100 items: writing is linear at most, use grows little."""
    hundred = extended(small_study().run, tmp_path / "run", ITEMS // 10)
    few, many = (write(one, one / "page.html") for one in (hundred, folder))
    least, most = (interactions(one / "page.html") for one in (hundred, folder))
    print({"few": few | least, "many": many | most})
    assert mi.load_run(folder).records["item"].nunique() >= ITEMS
    assert many["CPU, s"] < 10 * few["CPU, s"]
    assert many["peak, MiB"] < 1500
    assert many["page, MB"] < 8
    assert set(most) == set(ACTIONS)
    slow = {name: (each["cpu"], least[name]["cpu"]) for name, each in most.items()}
    assert {name: both for name, both in slow.items() if both[0] >= 5 * max(both[1], LEAST)} == {}
