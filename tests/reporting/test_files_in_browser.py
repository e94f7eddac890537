"""The buttons of a page that save figures, numbers, tables and methods, in a real browser."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import mata_interp as mi

from .browser import MISSING, chromium, visit
from .small import HOSTILE, small_study

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

PAGE = "report.html"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mi.paper(small_study().run, tmp_path_factory.mktemp("files") / "paper")


def saved(page, selector: str, key: str = "") -> tuple[str, bytes]:
    """Name and content of the file that the browser saves when a button is pressed, by pointer or by key."""
    with page.page.expect_download() as waiting:
        _press(page, selector, key)
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


KEEP_FILES = """() => {
  const address = URL.createObjectURL.bind(URL);
  URL.createObjectURL = (blob) => { window.blob = blob; return address(blob); };
  HTMLAnchorElement.prototype.click = function () { window.link = this; };
}"""
KEPT_FILE = """async () => {
  const bytes = new Uint8Array(await window.blob.arrayBuffer());
  return [window.link.download, Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")];
}"""


def handed_over(page, selector: str, key: str = "") -> tuple[str, bytes]:
    """What `saved` returns, taken where the page hands it to the browser, whose downloads take a second each.

    ``KEEP_FILES`` must have run in the page.
    """
    page.evaluate("() => { delete window.blob; delete window.link; }")
    _press(page, selector, key)
    name, characters = page.evaluate(KEPT_FILE)
    return name, characters.encode("latin-1")


def _press(page, selector: str, key: str) -> None:
    button = page.page.locator(selector)
    button.press(key) if key else button.click()


def unfold(page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")


def names_of(page, attribute: str) -> list[str]:
    return page.evaluate(
        f"[...document.querySelectorAll('[data-{attribute}]')].map(b => b.dataset.{attribute})"
    )


def test_every_button_saves_the_file_of_the_paper(browser, folder):
    with visit(browser, small_study().run / PAGE) as page:
        unfold(page)
        page.evaluate(KEEP_FILES)
        names = names_of(page, "file")
        assert {path.name for path in folder.iterdir() if path.suffix != ".svg"} == set(names)
        for name in names:
            assert handed_over(page, f"[data-file='{name}']", "Enter") == (name, (folder / name).read_bytes())
        assert page.logged == []
        assert page.requested == []


@pytest.mark.parametrize(
    ("dark", "hostile"), [(False, HOSTILE), (True, "")], ids=["light-hostile", "dark-plain"]
)
def test_drawings_stand_alone(browser, dark, hostile, tmp_path):
    """Well-formed, on white, with one colour for each mark, the texts and the tooltips of the page."""
    with visit(browser, small_study(hostile).run / PAGE, dark=dark) as page:
        page.evaluate(KEEP_FILES)
        for id in names_of(page, "svg"):
            name, content = handed_over(page, f"[data-svg='{id}']")
            assert name == f"{id}.svg"
            text = content.decode()
            root = ET.fromstring(text)
            assert root[0].tag.endswith("rect")
            assert root[0].get("fill") == "#ffffff"
            assert float(root.get("width").removesuffix("pt")) > 100
            for word in ("light-dark", "var(", "inherit", "data-tip", "<script", 'onerror="'):
                assert word not in text, (id, word)
            used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
            assert used <= set(re.findall(r'\bid="([^"]+)"', text))
            drawing = f"document.querySelector('#{id} .wide svg')"
            tips = page.evaluate(f"[...{drawing}.querySelectorAll('[data-tip]')].map(m => m.dataset.tip)")
            titles = [node.text for node in root.iter() if node.tag.endswith("}title")]
            assert sorted(titles) == sorted(tips)
            (tmp_path / name).write_bytes(content)
            with visit(browser, tmp_path / name, 900) as alone:
                assert alone.logged == []
                assert alone.requested == []
                shown = alone.evaluate("[...document.querySelectorAll('text')].map(t => t.textContent)")
                assert shown == page.evaluate(
                    f"[...{drawing}.querySelectorAll('text')].map(t => t.textContent)"
                )
        assert page.logged == []


def test_buttons_have_names_and_keys_and_are_not_printed(browser, folder):
    with visit(browser, small_study().run / PAGE) as page:
        unfold(page)
        labels = page.evaluate(
            "[...document.querySelectorAll('.files button')].map(b => [b.textContent.trim(), b.ariaLabel])"
        )
        assert len({name for _, name in labels}) == len(labels) > 20
        assert all(text.split()[0].lower() in name.lower() for text, name in labels)  # said as it is seen
        for key in ("", "Space"):
            assert saved(page, "[data-file='forest.csv']", key)[1] == (folder / "forest.csv").read_bytes()
        assert page.faults() == []
        page.page.emulate_media(media="print")
        assert not page.page.locator(".files:visible").count()


def test_texts_are_copied(browser, folder):
    with visit(browser, small_study().run / PAGE) as page:
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        unfold(page)
        for name in ("methods.md", "methods.tex", "references.bib"):
            page.page.locator(f"[data-copy='{name}']").click()
            page.page.locator(f"[data-copy='{name}'] ~ [role=status]", has_text="Copied").wait_for()
            assert page.evaluate("navigator.clipboard.readText()") == (folder / name).read_text("utf-8")


def test_a_refused_clipboard_selects_the_text(browser, folder):
    with visit(browser, small_study().run / PAGE) as page:
        unfold(page)
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
        page.page.locator("[data-copy='methods.md']").click()
        page.page.locator("[data-copy='methods.md'] ~ [role=status]", has_text="Selected").wait_for()
        assert (
            page.evaluate("getSelection().toString()").strip() == (folder / "methods.md").read_text().strip()
        )


def test_without_scripts_there_are_no_buttons(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((small_study().run / PAGE).resolve().as_uri())
    assert page.locator(".files").count() > 10
    assert page.locator(".files:visible").count() == 0
    context.close()
