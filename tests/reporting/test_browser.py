"""Pages in a real browser: do they show what they should, load nothing, and fit a phone?"""

import pytest

import mata_interp as mi
from mata_interp.reporting.wording import number, percent

from .browser import CHROMIUM, tab
from .small import HOSTILE, small_study

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

WIDTHS = (1200, 420)
OVERFLOWING = """[...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll') && !e.closest('svg'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def browser():
    with tab() as opened:
        yield opened


def open_page(browser, page, width):
    browser.logged.clear()
    browser.requested.clear()
    browser.open(page, width)
    outside = [
        url for url in browser.requested if not url.startswith("data:") and url != page.resolve().as_uri()
    ]
    return browser.logged, outside, browser.evaluate("document.documentElement.scrollWidth")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("hostile", ["", HOSTILE], ids=["plain", "hostile"])
def test_the_report(browser, width, hostile):
    small = small_study(hostile)
    logged, outside, wide = open_page(browser, small.run / "report.html", width)
    assert logged == []
    assert outside == []
    assert wide <= width
    assert browser.evaluate(OVERFLOWING) == []
    run = mi.load_run(small.run)
    primary = run.effects.primary.effect
    shown = browser.evaluate("document.body.innerText")
    assert f"{number(100 * primary.before, 1)} → {percent(primary.after)}" in shown
    assert run.manifest["data"]["sha256"] in shown
    figures = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].filter(s => s.getBoundingClientRect().width > 0).length"
    )
    assert figures == 5  # of each figure the drawing that fits, and only that
    assert browser.evaluate("document.querySelectorAll('svg text').length") > 100


def test_what_a_bad_page_does_is_noticed(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<div style='width:900px'>x</div><img src='http://127.0.0.1:9/x.png'><script>oops()</script>"
    )
    logged, outside, wide = open_page(browser, page, 420)
    assert any("oops" in line for line in logged)
    assert outside == ["http://127.0.0.1:9/x.png"]
    assert wide > 420
    assert browser.evaluate(OVERFLOWING)
