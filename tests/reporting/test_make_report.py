"""The page that ``make report`` wrote, in a real browser; MATA_REPORT names another run folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mata_interp as mi

from .browser import MISSING, chromium, visit

FOLDER = Path(os.environ.get("MATA_REPORT", Path(__file__).parents[2] / "runs" / "organism"))
PAGE = FOLDER / "report.html"
VIEW = "document.querySelector('.item-view').itemView"

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
    pytest.mark.skipif(not PAGE.exists(), reason=f"{PAGE} does not exist: run `make report` first"),
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def test_it_is_small_and_in_order(browser):
    assert PAGE.stat().st_size < 8e6
    with visit(browser, PAGE) as page:
        ids = page.evaluate("[...document.querySelectorAll('main > section')].map(s => s.id)")
        assert ids[:4] == ["answer", "items", "summary", "effect"]
        assert {"attention", "choice", "provenance", "left-out"} <= set(ids)
        facts = page.evaluate("document.querySelector('#provenance').innerText")
        manifest = mi.load_run(FOLDER).manifest
        for fact in (manifest["data"]["sha256"], str(manifest["seed"]), "manifest.json", "mata-interp study"):
            assert fact in facts
        links = page.evaluate("[...document.querySelectorAll('#provenance .links a')].map(a => a.href)")
        assert "https://arxiv.org/abs/2509.18816" in links


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_no_fault_and_nothing_too_wide(browser, width, dark):
    with visit(browser, PAGE, width, dark) as page:
        page.page.wait_for_selector('.item-view[data-loaded]:not([data-loaded=""])', state="attached")
        assert page.faults() == []
        assert page.overflowing() == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.logged == []
        assert page.requested == []


def test_its_first_item_has_a_caption_and_plays(browser):
    with visit(browser, PAGE) as page:
        page.page.wait_for_selector('.item-view[data-loaded]:not([data-loaded=""])', state="attached")
        assert page.page.locator(".iv-caption").inner_text()
        assert page.page.locator(".iv-options tbody tr").count() >= 2
        page.page.locator(".iv-play").click()
        for _ in range(400):
            if page.evaluate(f"{VIEW}.player.currentTime") > 0.1:
                break
            page.page.wait_for_timeout(50)
        assert page.evaluate(f"{VIEW}.player.currentTime") > 0.1
        assert page.logged == []
