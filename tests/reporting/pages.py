"""Pages in a real browser, driven by playwright; and pages of many made-up items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mata_interp.experiments.clip_media import clip_media
from mata_interp.experiments.item_recordings import ItemRecording
from mata_interp.reporting.item_view.markup import item_view_markup, script, style
from mata_interp.reporting.item_view.view_data import ViewCondition, ViewItem, view_data
from mata_interp.reporting.parts import Page, Section
from mata_interp.reporting.render import render_page

from .browser import MISSING, chromium

OUTCOMES = ("fixed", "broken", "churned", "unchanged")
CONDITIONS = (
    ViewCondition("without MATA", "baseline"),
    ViewCondition("MATA", "mata"),
    ViewCondition("same rule on text", "sham"),
)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped without one."""
    if MISSING:
        pytest.skip(MISSING)
    with chromium() as running:
        yield running


@contextmanager
def opened(running: Any, path: Path, address: str = "", **settings: Any) -> Iterator[Any]:
    """A page in a context of its own. Nothing may be logged, and nothing asked of the network."""
    settings.setdefault("viewport", {"width": 1280, "height": 900})
    context = running.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(20_000)
    logged: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.on("dialog", lambda dialog: (logged.append(dialog.message), dialog.dismiss()))
    page.goto(path.resolve().as_uri() + address)
    yield page
    assert logged == []
    address = path.resolve().as_uri()
    assert [url for url in requested if not url.startswith(("data:", address))] == []
    context.close()


def loaded(page: Any, item: str | None = None) -> Any:
    """Wait until the view shows an item; returns the view's element."""
    selector = '.item-view[data-loaded]:not([data-loaded=""])' if item is None else f'[data-loaded="{item}"]'
    page.wait_for_selector(selector, state="attached")
    return page.locator(".item-view")


def sound(seconds: float, seed: int, rate: int = 16_000) -> np.ndarray:
    """A sweep with pauses and some noise."""
    time = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    sweep = np.sin(2 * np.pi * (250 + 400 * seed % 900 + 600 * time / seconds) * time)
    return 0.4 * sweep * (np.sin(2 * np.pi * 1.5 * time) > -0.3) + rng.normal(0, 0.01, len(time))


def made_up_items(
    count: int,
    *,
    full: int = 4,
    layers: int = 8,
    heads: int = 4,
    bins: int = 60,
    text: str = "",
    seed: int = 0,
) -> list[ViewItem]:
    """Items, of which ``full`` have heads and audio."""
    rng = np.random.default_rng(seed)
    items = []
    for n in range(count):
        peak = 0.02 * np.exp(-0.5 * ((np.arange(bins) - rng.uniform(0, bins)) / rng.uniform(2, 9)) ** 2)
        shape = rng.gamma(1.0, 0.5, (3, layers, heads, 1))
        shape[1:, : layers // 2] = shape[0, : layers // 2]
        mass = shape * (peak + rng.gamma(1.0, 0.002, (3, layers, heads, bins)))
        seconds = 3.0 + n % 3
        recording = ItemRecording(
            f"item-{n}",
            f"Which sound is heard in clip {n}? {text}",
            f"A bell rings. {text}" if n % 3 != 1 else "",
            np.linspace(0, seconds, bins + 1),
            mass.mean(2),
            mass if n < full else None,
        )
        if n < full:
            samples = sound(seconds, n)
            media = clip_media(samples, 16_000)
            media_of = {name: getattr(media, name) for name in ("audio", "peaks", "spectrogram", "top_hz")}
            recording = replace(recording, **media_of)
        outcome = OUTCOMES[n % 4]
        right = {"fixed": (1, 0), "broken": (0, 1), "churned": (1, 2), "unchanged": (0, 0)}[outcome]
        choices = (f"a dog{text}", f"a bell{text}", "rain")
        predicted = [choices[right[0]], choices[right[1]], choices[right[0]]]
        rows = [
            {
                "predicted": answer,
                "logprob": [-0.3 if c == answer else -1.5 - rng.random() for c in choices],
                "text": None,
            }
            for answer in predicted
        ]
        items.append(
            ViewItem(
                f"item-{n}", outcome, f"task {n % 5}{text}", ("sound", "music")[n % 2],
                ("conflict", "neutral")[n % 2],
                round(float(rng.gamma(2, 0.1)), 4), choices, choices[0], choices[1], rows, recording,
                f"mata-interp report RUN --add-items item-{n}",
            )
        )  # fmt: skip
    return items


def write_page(path: Path, items: list[ViewItem], layers: int = 8, **settings: Any) -> Path:
    """A report with nothing but the view."""
    data = view_data(
        CONDITIONS,
        items,
        layers=range(layers),
        edited=range(layers // 2, layers),
        outcomes=OUTCOMES,
        **settings,
    )
    content = [("text", note) for note in data.notes] + [("html", item_view_markup(data))]
    section = Section("items", "Items", content, style=style(), script=script())  # type: ignore[arg-type]
    page = Page(kicker="a test", title="Items", answer=["Nothing but items."], sections=[section])
    path.write_text(render_page(page, "0"), encoding="utf-8", errors="replace")
    return path
