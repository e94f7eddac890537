"""A real Chromium, driven by playwright: Debian's own, never a downloaded one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:
    MISSING = "playwright and axe-playwright-python are not installed (the extra `dev` has both)"
else:
    MISSING = "" if CHROMIUM else "Chromium is not installed"
"""Why pages cannot be tried here; empty where they can."""

OVERFLOWING = """() => [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll, pre, .visually-hidden') && !e.closest('svg'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 90))"""


@dataclass
class Visit:
    """A page in a tab of its own, with everything it logged and asked the network for."""

    page: Page
    logged: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression or function."""
        return self.page.evaluate(expression, argument)

    def overflowing(self) -> list[str]:
        """Elements that reach beyond the right edge of the window, each as the start of its markup."""
        return self.evaluate(OVERFLOWING)

    def faults(self) -> list[str]:
        """What axe-core calls a serious or critical fault, one line each."""
        violations = Axe().run(self.page).response["violations"]
        return [
            f"{rule['id']} ({rule['impact']}): {node['html'][:120]}"
            for rule in violations
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A fresh browser with a profile of its own."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, path: Path, width: int = 1440, dark: bool = False) -> Iterator[Visit]:
    """The file at ``path`` in a window of this width, in light or dark, once it has loaded."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(180_000)  # milliseconds: a busy machine fails no test
    try:
        visited = Visit(context.new_page())
        page, address = visited.page, path.resolve().as_uri()
        page.on("console", lambda message: visited.logged.append(message.text))
        page.on("pageerror", lambda error: visited.logged.append(str(error)))
        page.on(
            "request",
            lambda request: (
                visited.requested.append(request.url)
                if request.url.partition("#")[0] != address and not request.url.startswith(("data:", "blob:"))
                else None
            ),
        )
        page.goto(address)
        page.wait_for_timeout(300)  # for anything a script might still start
        yield visited
    finally:
        context.close()
