"""The item view in a real Chromium: it plays, seeks, filters, follows the pointer, and remembers."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import parse_qs

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.reporting.item_view.view_data import view_data

from .browser import Visit
from .pages import CONDITIONS, OUTCOMES, browser, loaded, made_up_items, opened, write_page
from .small import small_study
from .test_item_view import EVIL

VIEW = "document.querySelector('.item-view').itemView"
PLAYER = f"{VIEW}.player"
ROWS = "document.querySelectorAll('.iv-rows tbody tr').length"
OVERFLOWING = """[...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.iv-rows') && !e.closest('.iv-options') && !e.closest('svg'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def items():
    return made_up_items(40)


@pytest.fixture(scope="module")
def page_file(items, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("view") / "page.html", items)


@pytest.fixture
def page(chromium, page_file):
    with opened(chromium, page_file) as opened_page:
        loaded(opened_page)
        yield opened_page


STATE = """(() => {
  const view = document.querySelector('.item-view').itemView, { state, player, cell } = view;
  return { cell: [cell.layer, cell.head], locked: state.locked, moment: view.moment, bin: view.shownBin,
    item: state.item.id, time: player.currentTime, paused: player.paused, loop: player.loop };
})()"""


def state(page) -> dict:
    """What the view shows, as plain data."""
    return page.evaluate(STATE)


def drawn(page, which: str) -> str:
    return page.evaluate(f"document.querySelector('{which} canvas').toDataURL()")


def hover_cell(page, layer: int, head: int, click: bool = False) -> None:
    middle = f"(map => [map.x({head + 1}) + map.cell.width / 2, map.y({layer}) + map.cell.height / 2])"
    x, y = page.evaluate(f"{middle}({VIEW}.map)")
    canvas = page.locator(".iv-map canvas")
    (canvas.click if click else canvas.hover)(position={"x": x, "y": y})


def on_tracks(page, seconds: float) -> dict[str, float]:
    return {"x": page.evaluate(f"{VIEW}.tracks.xAt({seconds})"), "y": 100}


def until(page, condition: str) -> None:
    """Wait for a condition; playwright's own way evaluates text in the page, which its policy forbids."""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def address(page) -> dict[str, str]:
    hash = page.evaluate("location.hash")
    assert hash.startswith("#items?"), hash
    return {name: values[0] for name, values in parse_qs(hash.removeprefix("#items?")).items()}


# ------------------------------------------------------------------------------------------------------ sound
def test_it_plays(page):
    assert page.evaluate(f"{PLAYER}.duration") == pytest.approx(3.0, abs=0.05)
    play = page.locator(".iv-play")
    play.click()
    until(page, f"{PLAYER}.currentTime > 0.15")
    first = state(page)["time"]
    until(page, f"{PLAYER}.currentTime > {first} + 0.1")
    cursor = "new DOMMatrix(getComputedStyle(document.querySelector('.iv-cursor')).transform).m41"
    until(page, f"{cursor} > {VIEW}.tracks.xAt(0.15)")
    play.click()
    at = state(page)
    assert at["paused"]
    assert page.evaluate(cursor) == pytest.approx(page.evaluate(f"{VIEW}.tracks.xAt({at['time']})"), abs=1)


def test_a_click_seeks_and_locks_the_moment(page):
    tracks = page.locator(".iv-tracks")
    tracks.click(position=on_tracks(page, 2.0))
    at = state(page)
    assert at["time"] == pytest.approx(2.0, abs=0.02)
    assert at["moment"] == pytest.approx(2.0, abs=0.02)
    assert float(tracks.get_attribute("aria-valuenow")) == pytest.approx(2.0, abs=0.02)
    page.mouse.move(5, 5)
    assert state(page)["moment"] == pytest.approx(2.0, abs=0.02)
    page.keyboard.press("Escape")
    assert state(page)["moment"] is None


def test_a_drag_loops(page):
    page.locator(".iv-tracks").scroll_into_view_if_needed()
    box = page.locator(".iv-tracks").bounding_box()
    begin, end = (on_tracks(page, seconds)["x"] for seconds in (0.5, 0.8))
    page.mouse.move(box["x"] + begin, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + (begin + end) / 2, box["y"] + 80)
    page.mouse.move(box["x"] + end, box["y"] + 80)
    page.mouse.up()
    assert state(page)["loop"] == pytest.approx([0.5, 0.8], abs=0.02)
    page.locator(".iv-play").click()
    until(page, f"{PLAYER}.context.currentTime - {PLAYER}.begun.clock > 0.7")  # more than twice the loop
    assert 0.5 <= state(page)["time"] <= 0.82
    page.locator(".iv-loop-off").click()
    assert state(page)["loop"] is None


def test_only_what_a_head_attends_to(page, items):
    """The samples are those of the clip times the attention over its largest value."""
    hover_cell(page, 5, 2, click=True)
    page.locator("[name=only]").check()
    gain = page.evaluate(f"{PLAYER}.gain.values")
    mass = items[0].recording.heads[0, 5, 2]
    np.testing.assert_allclose(gain, mass / mass.max(), atol=0.02)
    louder, quieter = int(mass.argmax()), int(mass.argmin())
    level = f"""(bin => {{
      const {{ edges }} = {PLAYER}.gain, rate = {PLAYER}.buffer.sampleRate;
      const at = Math.round((edges[bin] + edges[bin + 1]) / 2 * rate);
      const both = [{PLAYER}.gated(), {PLAYER}.buffer];
      const [gated, plain] = both.map(b => b.getChannelData(0).slice(at - 3, at + 3));
      return gated.reduce((s, x, i) => s + x * plain[i], 0) / plain.reduce((s, x) => s + x * x, 1e-12);
    }})"""
    assert page.evaluate(f"{level}({louder})") == pytest.approx(1, abs=0.05)
    assert page.evaluate(f"{level}({quieter})") == pytest.approx(float(gain[quieter]), abs=0.05)
    page.locator("[name=only]").uncheck()
    assert page.evaluate(f"{PLAYER}.gain") is None


# ---------------------------------------------------------------------------------------------------- overlay
def test_a_head_under_the_pointer_changes_the_overlay(page):
    plain, chosen = drawn(page, ".iv-tracks"), state(page)["cell"]
    hover_cell(page, 6, 3)
    assert state(page)["cell"] == [6, 3]
    assert drawn(page, ".iv-tracks") != plain
    assert "layer 6, head 3" in page.locator(".iv-values").inner_text()
    page.mouse.move(5, 5)
    assert state(page)["cell"] == chosen
    assert drawn(page, ".iv-tracks") == plain
    hover_cell(page, 6, 3, click=True)
    hover_cell(page, 1, 0)
    assert (state(page)["cell"], state(page)["locked"]) == ([6, 3], True)
    page.keyboard.press("Escape")
    hover_cell(page, 1, 0)
    hover_cell(page, 1, 1)
    assert (state(page)["cell"], state(page)["locked"]) == ([1, 1], False)


def test_a_moment_under_the_pointer_lights_heads_up(page, items):
    whole = drawn(page, ".iv-map")
    page.locator(".iv-tracks").hover(position=on_tracks(page, 1.51))
    assert drawn(page, ".iv-map") != whole
    shown = np.array(page.evaluate(f"{VIEW}.map.cells"))
    mass = items[0].recording.heads[0, :, :, state(page)["bin"]] / np.diff(items[0].recording.edges)[0]
    np.testing.assert_allclose(shown[:, 1:], mass, atol=0.01 * mass.max() + 0.003)
    page.mouse.move(5, 5)
    assert drawn(page, ".iv-map") == whole


def test_what_is_drawn_is_what_was_recorded(page, items):
    """Every value of every condition, unpacked by the script."""
    recording = items[0].recording
    rows = np.array(
        page.evaluate(
            "[0,1,2].map(c => [0,1,2,3,4,5,6,7].map(l => [-1,0,1,2,3].map(h =>"
            f"[...{VIEW}.attention.row(l, h, [c])])))"
        )
    ) * np.diff(recording.edges)
    np.testing.assert_allclose(rows[:, :, 1:], recording.heads, atol=recording.heads.max() / 255)
    np.testing.assert_allclose(rows[:, :, 0], recording.mean, atol=recording.mean.max() / 255)
    whole = np.array(page.evaluate(f"{VIEW}.map.cells"))
    np.testing.assert_allclose(whole[:, 1:], recording.heads[0].sum(-1), rtol=0.05)


def test_conditions_and_their_difference(page, items):
    plain = drawn(page, ".iv-tracks"), drawn(page, ".iv-map")
    recording = items[0].recording
    for view, expected in (("1", recording.heads[1]), ("1-0", recording.heads[1] - recording.heads[0])):
        page.locator("[name=view]").select_option(view)
        assert drawn(page, ".iv-tracks") != plain[0]
        assert drawn(page, ".iv-map") != plain[1]
        cells = np.array(page.evaluate(f"{VIEW}.map.cells"))[:, 1:]
        np.testing.assert_allclose(cells, expected.sum(-1), atol=0.02 * recording.heads.sum(-1).max())
    top = page.evaluate(f"{VIEW}.attention.top(5, 1)")
    per_second = recording.heads[:, 5, 1] / np.diff(recording.edges)
    assert top == pytest.approx(per_second.max(), rel=0.02)  # one scale for all conditions


# ------------------------------------------------------------------------------------------------------ table
def test_filters_reduce_the_rows(page, items):
    assert page.evaluate(ROWS) == 40
    page.locator(".iv-chip[data-outcome=broken]").click()
    assert page.evaluate(ROWS) == 10
    assert page.locator(".iv-count").inner_text().startswith("10 of 40")
    page.locator("[name=task]").select_option("task 1")
    assert page.evaluate(ROWS) == sum(i.outcome == "broken" and i.task == "task 1" for i in items) == 2
    page.locator(".iv-chip[data-outcome=broken]").click()
    page.locator("[name=task]").select_option("")
    page.locator("[name=q]").fill("item-7")
    assert page.evaluate(ROWS) == 1
    page.locator("[name=q]").fill("")
    page.locator("[name=dose]").select_option("high")
    doses = sorted(item.dose for item in items)
    shown = page.evaluate(f"{VIEW}.table.shown.map(i => i.dose)")
    assert sorted(shown) == [dose for dose in doses if dose > doses[80 // 3]]
    page.locator("th[data-key=dose] button").click()
    assert page.locator("th[data-key=dose]").get_attribute("aria-sort") == "ascending"
    assert page.evaluate(f"{VIEW}.table.shown.map(i => i.dose)") == sorted(shown)


def test_a_row_opens_its_item(page, items):
    page.locator("tr[data-item=item-2] .iv-open").click()
    loaded(page, "item-2")
    assert items[2].recording.question.strip() in page.locator(".iv-question").inner_text()
    assert "A bell rings." in page.locator(".iv-caption").inner_text()
    table = page.locator(".iv-options")
    assert "correct answer" in table.locator("tbody tr").nth(0).inner_text()
    assert "caption says so" in table.locator("tbody tr").nth(1).inner_text()
    row = items[2].rows[0]["logprob"]
    share = np.exp(row[1]) / np.exp(row).sum()
    assert f"{100 * share:.0f}" in table.locator("tbody tr").nth(1).locator("td").nth(0).inner_text()
    assert page.evaluate(f"{PLAYER}.duration") == pytest.approx(5.0, abs=0.05)


def test_an_item_without_audio_says_so(page):
    page.locator("tr[data-item=item-9] .iv-open").click()
    loaded(page, "item-9")
    assert "--add-items item-9" in page.locator(".iv-notices").inner_text()
    assert not page.locator(".iv-play").is_visible()
    assert page.locator(".iv-heads-missing").is_visible()
    assert np.array(page.evaluate(f"{VIEW}.map.cells")).shape == (8, 1)
    page.locator(".iv-tracks").click(position=on_tracks(page, 1.0))
    assert state(page)["time"] == pytest.approx(1.0, abs=0.02)


def test_audio_that_cannot_be_decoded_says_so(chromium, items, tmp_path):
    broken = replace(items[0], recording=replace(items[0].recording, audio=b"OggS and no more"))
    with opened(chromium, write_page(tmp_path / "page.html", [broken, items[1]])) as page:
        loaded(page, "item-0") if page.evaluate(ROWS) else None
        assert page.locator(".iv-unplayable").is_visible()
        assert not page.locator(".iv-play").is_visible()


def test_a_browser_that_cannot_unpack_says_so(chromium, page_file):
    context = chromium.new_context()
    context.add_init_script("delete window.DecompressionStream")
    page = context.new_page()
    page.goto(page_file.resolve().as_uri())
    loaded(page)
    assert page.locator(".iv-old").is_visible()
    assert page.locator(".iv-options tbody tr").count() == 3
    context.close()


# ---------------------------------------------------------------------------------------------------- address
def test_the_address_restores_the_state(chromium, page_file, page):
    page.locator("[name=q]").fill("clip")
    page.locator(".iv-chip[data-outcome=fixed]").click()
    page.locator("tr[data-item=item-0] .iv-open").click()
    loaded(page, "item-0")
    hover_cell(page, 5, 1, click=True)
    page.locator("[name=view]").select_option("1-0")
    page.locator(".iv-tracks").click(position=on_tracks(page, 1.27))
    page.locator("[name=only]").check()
    page.evaluate(f"{VIEW}.setLoop([0.5, 1.5])")
    before, fields = state(page), address(page)
    assert (fields["item"], fields["layer"], fields["head"], fields["view"]) == ("item-0", "5", "1", "1-0")
    assert (fields["outcome"], fields["q"], fields["only"], fields["loop"]) == (
        "fixed",
        "clip",
        "1",
        "0.500-1.500",
    )
    map_before, hash = drawn(page, ".iv-map"), page.evaluate("location.hash")
    page.mouse.move(5, 5)
    with opened(chromium, page_file, hash) as other:
        loaded(other, "item-0")
        after = state(other)
        for name in ("cell", "locked", "loop", "item", "bin"):
            assert after[name] == before[name], name
        assert after["time"] == pytest.approx(before["time"], abs=0.01)
        assert other.evaluate(ROWS) == 10
        assert other.locator("[name=only]").is_checked()
        assert drawn(other, ".iv-map") == map_before
        other.evaluate("location.hash = '#items?item=item-3&layer=2&head=0'")
        loaded(other, "item-3")
        assert state(other)["cell"] == [2, 0]


@pytest.mark.parametrize(
    "hash",
    [
        "#items",
        "#items?",
        "#items?item=none&layer=99&head=77&view=9-9&t=x&loop=-",
        "#items?head=1e9&layer=3&t=1e9",
    ],
)
def test_addresses_that_make_no_sense(chromium, page_file, hash):
    with opened(chromium, page_file, hash) as page:
        loaded(page)
        assert state(page)["item"] == "item-0"
        layer, head = state(page)["cell"]
        assert 0 <= layer < 8
        assert -1 <= head < 4


def test_nothing_is_written_to_the_address_before_something_is_done(page):
    page.locator(".iv-tracks").hover(position=on_tracks(page, 1.0))
    assert page.evaluate("location.hash") == ""


# ------------------------------------------------------------------------------------------------------- keys
def test_the_keyboard_does_all_of_it(page):
    page.locator("tr[data-item=item-0] .iv-open").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    loaded(page, "item-1")
    page.locator("[name=layer]").select_option("3")
    page.locator("[name=head]").select_option("2")
    assert (state(page)["cell"], state(page)["locked"]) == ([3, 2], True)
    page.locator(".iv-tracks").focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert state(page)["time"] == pytest.approx(1.1, abs=0.01)
    page.keyboard.press("[")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("]")
    assert state(page)["loop"] == pytest.approx([1.1, 3.9], abs=0.02)
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    until(page, f"!{PLAYER}.paused")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    assert not state(page)["locked"]
    page.keyboard.press("Escape")
    assert state(page)["loop"] is None


# --------------------------------------------------------------------------------------------- text and sizes
def test_hostile_text_shows_as_text(chromium, tmp_path):
    long = EVIL + "y" * 10_000
    file = write_page(tmp_path / "page.html", made_up_items(6, full=1, text=long))
    with opened(chromium, file, viewport={"width": 390, "height": 844}) as page:
        loaded(page)
        assert page.locator(".iv-question").text_content() == f"Which sound is heard in clip 0? {long}"
        assert page.locator(".iv-options tbody th").nth(0).text_content().startswith(f"a dog{EVIL}")
        assert page.evaluate("document.querySelectorAll('.item-view img, .item-view iframe').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(OVERFLOWING) == []
        box = page.locator(".iv-question").bounding_box()
        assert box["height"] < 200


@pytest.mark.parametrize("width", [390, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(chromium, page_file, width, scheme):
    with opened(chromium, page_file, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        loaded(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERFLOWING) == []
        tracks, map_ = (page.locator(f"{name} canvas").bounding_box() for name in (".iv-tracks", ".iv-map"))
        assert tracks["width"] > 0.55 * min(width, 700)
        assert map_["width"] > 150
        assert Visit(page).faults() == []


def test_a_thousand_items(chromium, tmp_path, record_property):
    """A page of rows stands in the document, however many there are; times are recorded, not judged."""
    file = write_page(tmp_path / "page.html", made_up_items(1000, full=24, layers=12, heads=8), layers=12)
    with opened(chromium, file) as page:
        loaded(page)
        assert page.evaluate(ROWS) == 50
        assert page.locator(".iv-count").inner_text() == "1,000 of 1,000 items, rows 1 to 50"
        nodes = page.evaluate("document.querySelectorAll('.item-view *').length")
        assert nodes < 1500
        actions = {
            "filter": f"{VIEW}.root.querySelector('.iv-chip').click()",
            "search": f"(({VIEW}).table.filters.q = 'clip 77', ({VIEW}).table.refilter())",
            "clear": f"(({VIEW}).table.setFilters({{}}))",
            "sort": f"{VIEW}.table.sortBy('dose')",
            "next page": f"{VIEW}.table.turn(1)",
            "hover a head": f"{VIEW}.previewCell({{layer: 7, head: 5}})",
            "hover a moment": f"(({VIEW}).preview.time = 1.7, {VIEW}.redrawMoment())",
        }
        times = {
            name: page.evaluate(
                f"(() => {{ const begin = performance.now(); {code}; document.body.offsetHeight; "
                "return performance.now() - begin; })()"
            )
            for name, code in actions.items()
        }
        record_property("milliseconds", times)
        print({name: round(value, 1) for name, value in times.items()})
        assert page.evaluate(ROWS) == 50
        assert page.locator(".iv-count").inner_text().endswith("rows 51 to 100")


# ------------------------------------------------------------------------------------------------ real pages
def test_the_page_of_a_study(chromium):
    small = small_study()
    with opened(chromium, small.run / "report.html") as page:
        view = loaded(page)
        assert page.evaluate(ROWS) == 12
        assert page.evaluate(f"{PLAYER}.duration") == pytest.approx(0.5, abs=0.02)
        item = mi.load_run(small.run).path
        recordings = mi.experiments.load_recordings(item / "items.npz")
        one = recordings.items[view.get_attribute("data-loaded")]
        row = np.array(page.evaluate(f"[...{VIEW}.attention.row(1, 0, [1])]")) * np.diff(one.edges)
        np.testing.assert_allclose(row, one.heads[1, 1, 0].astype(float), atol=float(one.heads.max()) / 150)


def test_answers_in_words_stand_beside_their_item(chromium, tiny_lalm, tmp_path):
    """A run that generates, from the model to the browser: each item's own words under each condition."""
    items = [item for item in mi.load_benchmark(small_study().benchmark)[:3] if item.answer in item.choices]
    conditions = {"baseline": None, "mata": mi.Mata(3.0, [0, 1])}
    decoding = mi.Decoding(max_new_tokens=6)
    run = mi.run(tiny_lalm, items, conditions, tmp_path / "run", decoding=decoding, progress=False)
    mi.record_items(tiny_lalm, run, items, progress=False)
    words = run.records.set_index(["item", "condition"])["text"]
    assert words.str.strip().ne("").all()
    with opened(chromium, mi.report(tmp_path / "run")) as page:
        for item in items:
            page.locator(f"tr[data-item='{item.id}'] .iv-open").click()
            loaded(page, item.id)
            shown = page.locator(".iv-generated").all_text_contents()
            assert len(shown) == len(conditions)
            for text, condition in zip(shown, conditions, strict=True):
                assert text.startswith("Generated, ")
                assert text.endswith(words[item.id, condition])


def test_a_page_of_several_listenings(chromium, tiny_lalm, tmp_path):
    rate = tiny_lalm.sampling_rate
    seconds = np.arange(rate // 2) / rate
    clips = [(np.sin(2 * np.pi * hertz * seconds).astype(np.float32), rate) for hertz in (300, 900)]
    question = f"High or low? {EVIL}".replace("\x00", "")
    listenings = [
        mi.listen(tiny_lalm, clip, question, ("high", "low"), layers=[1], alpha=2.0) for clip in clips
    ]
    file = mi.save_listenings(listenings, tmp_path / "clips.html")
    with opened(chromium, file) as page:
        loaded(page, "1")
        assert page.evaluate(ROWS) == 2
        page.locator("tr[data-item='2'] .iv-open").click()
        loaded(page, "2")
        page.locator("[name=view]").select_option("1")
        cells = np.array(page.evaluate(f"{VIEW}.map.cells"))[:, 1:]
        np.testing.assert_allclose(cells, listenings[1].recording.heads[1].sum(-1), atol=0.02)
        assert page.locator("h1").text_content() == mi.reporting.wording.printable(question)
    single = mi.listen(tiny_lalm, clips, "Which is higher?", ("first", "second")).save(tmp_path / "one.html")
    with opened(chromium, single, viewport={"width": 390, "height": 844}) as page:
        loaded(page)
        assert not page.locator(".iv-list").is_visible()
        assert page.evaluate(f"{VIEW}.state.item.clips") == [0, 0.5]
        assert page.evaluate(f"{PLAYER}.duration") == pytest.approx(1.0, abs=0.02)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_view_data_of_a_run_with_two_conditions(chromium, items, tmp_path):
    two = [
        replace(
            item,
            rows=item.rows[:2],
            recording=replace(
                item.recording,
                mean=item.recording.mean[:2],
                heads=None if item.recording.heads is None else item.recording.heads[:2],
            ),
        )
        for item in items[:3]
    ]
    data = view_data(CONDITIONS[:2], two, layers=range(8), edited=[4], outcomes=OUTCOMES)
    assert len(data.to_dict()["conditions"]) == 2
    from mata_interp.reporting.item_view.markup import item_view_markup, script, style
    from mata_interp.reporting.parts import Page, Section
    from mata_interp.reporting.render import render_page

    section = Section("items", "Items", [("html", item_view_markup(data))], style=style(), script=script())
    file = tmp_path / "page.html"
    file.write_text(render_page(Page("", "t", [""], sections=[section]), "0"), encoding="utf-8")
    with opened(chromium, file) as page:
        loaded(page)
        assert page.locator("[name=view] option").count() == 3
