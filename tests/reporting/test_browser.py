"""Pages in a real browser: do they show what they should, load nothing, and fit every screen and paper?"""

import json
import shutil

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.reporting.wording import number, percent

from .browser import MISSING, chromium, visit
from .small import HOSTILE, small_study

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

LUMINANCE = """element => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  canvas.fillStyle = getComputedStyle(document.querySelector(element)).backgroundColor;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize(
    ("width", "hostile"),
    [(390, HOSTILE), (768, HOSTILE), (1440, "")],
    ids=["390-hostile", "768-hostile", "1440-plain"],
)
def test_the_report(browser, width, hostile):
    small = small_study(hostile)
    with visit(browser, small.run / "report.html", width) as page:
        assert page.logged == []
        assert page.requested == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.overflowing() == []
        run = mi.load_run(small.run)
        primary = run.effects.primary.effect
        shown = page.evaluate("document.body.innerText")
        assert f"{number(100 * primary.before, 1)} → {percent(primary.after)}" in shown
        assert run.manifest["data"]["sha256"] in shown
        figures = page.evaluate(
            "[...document.querySelectorAll('figure')].filter(f => f.querySelector('svg')).map(f =>"
            " [...f.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width > 0).length)"
        )
        assert set(figures) == {1}  # of each figure the drawing that fits, and only that
        assert page.evaluate("document.querySelectorAll('svg text').length") > 100


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1440, False)], ids=["390-dark", "1440-light"])
def test_it_has_no_serious_fault_of_access(browser, width, dark):
    with visit(browser, small_study().run / "report.html", width, dark) as page:
        assert page.faults() == []


def test_light_and_dark(browser):
    path = small_study().run / "report.html"
    with visit(browser, path, dark=True) as page:
        assert page.evaluate(LUMINANCE, "html") < 0.1
        page.page.click("#theme")
        assert page.evaluate(LUMINANCE, "html") > 0.9
        page.page.reload()
        assert page.evaluate(LUMINANCE, "html") > 0.9  # the choice is kept
        page.page.emulate_media(media="print")
        assert page.evaluate(LUMINANCE, "html") > 0.9
    with visit(browser, path) as page:
        assert page.evaluate(LUMINANCE, "html") > 0.9
        colour = "getComputedStyle(document.querySelector('#forest svg text')).fill"
        light = page.evaluate(colour)
        page.page.click("#theme")
        assert page.evaluate(LUMINANCE, "html") < 0.1
        assert page.evaluate(colour) != light  # figures follow
        page.page.emulate_media(media="print")
        assert page.evaluate(LUMINANCE, "html") > 0.9
        assert page.evaluate(colour) == light


def test_the_keyboard_reaches_the_answer_and_terms_explain_themselves(browser):
    with visit(browser, small_study().run / "report.html") as page:
        page.page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
        page.page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        tip = page.page.locator(".tooltip")
        assert not tip.is_visible()
        page.page.locator("main .term").first.focus()
        assert tip.is_visible()
        assert tip.inner_text() == page.evaluate("document.activeElement.dataset.tip")
        page.page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.page.locator("#heat-map .wide [data-tip]").first.hover()
        assert "layer" in tip.inner_text()


def test_contents_lead_to_sections(browser):
    with visit(browser, small_study().run / "report.html") as page:
        targets = page.evaluate("[...document.querySelectorAll('.contents a')].map(a => a.hash.slice(1))")
        assert len(targets) > 6
        for target in targets:
            assert page.evaluate("id => document.getElementById(id) !== null", target)


def test_printed_pages_are_full(browser, tmp_path):
    with visit(browser, small_study().run / "report.html") as page:
        page.page.pdf(path=tmp_path / "report.pdf", format="A4", prefer_css_page_size=True)
        page.page.emulate_media(media="print")
        assert not page.page.locator("#theme").is_visible()
        assert not page.page.locator(".contents").is_visible()
        height = page.evaluate("document.documentElement.scrollHeight")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    pages = data.count(b"/Type /Page\n") or data.count(b"/Type /Page ") or data.count(b"/Type/Page/")
    assert 0 < pages < 3 + height / 800


def test_very_long_and_right_to_left_text(browser, tmp_path):
    """Names of 10,000 characters and marks that turn the direction of writing stay text in their place."""
    folder = shutil.copytree(small_study().run, tmp_path / "run")
    study = json.loads((folder / "study.json").read_text())
    texts = [
        "x" * 10_000,
        "word " * 2_000,
        "\u202e\u2067evil\u2069 <script>alert(1)</script> \"quoted\" 'too'",
    ]
    study["excluded"] = [{"item": text, "field": "audio", "reason": text} for text in texts]
    (folder / "study.json").write_text(json.dumps(study))
    page_file = mi.report(folder)
    for width in (390, 1440):
        with visit(browser, page_file, width) as page:
            assert page.logged == []
            assert page.overflowing() == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shown = page.evaluate("document.querySelector('#left-out').innerText")
            assert "x" * 10_000 in shown
            assert "<script>alert(1)</script>" in shown
            assert "\u202e" not in shown


def test_parts_that_are_missing_are_noticed(browser, tmp_path):
    folder = shutil.copytree(small_study().run, tmp_path / "run")
    (folder / "selection.nc").unlink()  # the page needs nothing of it that effects.json has not
    (folder / "layers.json").write_text("{}")
    with visit(browser, mi.report(folder)) as page:
        notices = page.evaluate("[...document.querySelectorAll('.notice')].map(n => n.innerText)")
        assert page.evaluate("document.body.innerText").count("Dose and response.") == 1
        assert any("layers.json" in notice for notice in notices)
        assert page.logged == []


@pytest.mark.parametrize("width", [390, 1440])
def test_a_listening(browser, width, tiny_lalm, tmp_path):
    rate = tiny_lalm.sampling_rate
    sound = np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate).astype(np.float32)
    question = f"High or low? {HOSTILE}"
    path = mi.listen(tiny_lalm, (sound, rate), question, ("high", "low")).save(tmp_path / "heard.html")
    with visit(browser, path, width) as page:
        assert page.logged == []
        assert page.requested == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.querySelector('h1').innerText") == question
        page.page.wait_for_selector('[data-loaded="1"]', state="attached")
        player = "document.querySelector('.item-view').itemView.player"
        assert page.evaluate(f"{player}.duration") == pytest.approx(0.5, abs=0.01)
        assert page.faults() == []


def test_what_a_bad_page_does_is_noticed(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<div style='width:900px'>x</div><img src='http://127.0.0.1:9/x.png'><script>oops()</script>"
    )
    with visit(browser, path, 420) as page:
        assert any("oops" in line for line in page.logged)
        assert page.requested == ["http://127.0.0.1:9/x.png"]
        assert page.evaluate("document.documentElement.scrollWidth") > 420
        assert page.overflowing()
        assert any("image-alt" in fault for fault in page.faults())


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A study beside the same with another name for its folder."""
    folder = tmp_path_factory.mktemp("compared")
    other = shutil.copytree(small_study().run, folder / "other")
    return mi.report([small_study().run, other], folder / "compare.html")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1440, True)], ids=["390-light", "1440-dark"])
def test_a_comparison(browser, comparison, width, dark):
    with visit(browser, comparison, width, dark) as page:
        assert page.logged == []
        assert page.requested == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.overflowing() == []
        assert page.faults() == []


def test_items_of_a_comparison_are_filtered(browser, comparison):
    with visit(browser, comparison) as page:
        rows = page.page.locator("#item-differences tbody tr")
        assert rows.count() == 12  # the same answers: none differ, so all are shown
        state = "select[name=state-A]"
        names = page.evaluate(f"[...document.querySelector('{state}').options].slice(1).map(o => o.value)")
        total = 0
        for name in names:
            page.page.select_option(state, name)
            total += rows.count()
            assert {row.locator("td").nth(2).locator("span").inner_text() for row in rows.all()} == {name}
        assert total == 12
        page.page.select_option(state, "")
        page.page.select_option("select[name=agreement]", "differ")
        assert rows.count() == 0
        page.page.select_option("select[name=agreement]", "agree")
        page.page.fill("#item-differences input[name=search]", "4-conflict")
        assert rows.count() == 1
        assert rows.first.get_attribute("data-item") == "4-conflict"
