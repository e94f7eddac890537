import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.text import Text

from mata_interp.plot.attention import share_of, share_table
from mata_interp.ranges import brief
from mata_interp.reporting.figures.dose_response import dose_response
from mata_interp.reporting.figures.first_last import first_last
from mata_interp.reporting.figures.flow import Flow, flow
from mata_interp.reporting.figures.forest import Row, Section, forest
from mata_interp.reporting.figures.heat_map import heat_map
from mata_interp.reporting.figures.margins import margins
from mata_interp.reporting.figures.profile import profile
from mata_interp.reporting.figures.scale import robust_limit
from mata_interp.reporting.figures.svg import NARROW, WIDE, figure_style, responsive

from .small import HOSTILE

RNG = np.random.default_rng(0)
NAN = float("nan")
LAYERS = [0, 1, 3, 4]


def heads_of(values: np.ndarray, layers: Sequence[int]) -> xr.DataArray:
    """A share of each head."""
    coords = {"layer": list(layers), "head": range(values.shape[1])}
    return xr.DataArray(values, coords, ("layer", "head"), "audio_share")


def windows_of(count: int, widths: int, alphas: Sequence[float], values: np.ndarray) -> xr.DataArray:
    """A causal map of windows, of values [alpha, width - 1, first]; NaN is not tried."""
    places = [(size, first) for size in range(widths) for first in range(count - size)]
    names = [brief(range(first, first + size + 1)) for size, first in places]
    cells = [[values[n, size, first] for n in range(len(alphas))] for size, first in places]
    return xr.DataArray(
        cells, {"layers": names, "alpha": list(alphas)}, ("layers", "alpha"), "change of margin"
    )


SHARE = RNG.random((4, 3))
SHARE[0, 2] = NAN  # a layer with fewer heads
GROUPS = ["audio", "question", "template", "sink"]
TRACE = xr.Dataset(
    {"mass": (("item", "layer", "head", "group"), RNG.dirichlet([1, 2, 2, 3], (6, 4, 3)))},
    {
        "item": range(6),
        "layer": LAYERS,
        "head": range(3),
        "group": GROUPS,
        "cluster": ("item", list("aabbcc")),
    },
)
BY_LAYER = share_table(share_of(TRACE, "share"))
ROWS = [Row("a", 0.1, 0.0, 0.2, 20, 4, 2, "primary"), Row(HOSTILE, NAN, NAN, NAN, 0, 0, 0, "sham")]
WINDOWS = np.array([[[0.1, -0.2, 0.3], [0.0, NAN, NAN]], [[-9.0, 0.1, 0.2], [0.3, 0.4, NAN]]])
MAP = windows_of(3, 2, (0.1, 1.0), WINDOWS)
CHOSEN = ((1, 2), 1.0)
LARGE = heads_of(RNG.random((32, 20)), range(32))
DEEP = windows_of(28, 14, (0.1, 0.2, 0.5, 1.0, 2.0), RNG.normal(0, 1, (5, 14, 28)))
DOSE = pd.DataFrame(
    {
        "alpha": [0, 0.1, 1.0],
        "value": [0, 0.2, 0.4],
        "low": [0, 0.1, 0.2],
        "high": [0, 0.3, 0.6],
        "line": "on audio",
    }
)
MARGINS = [pd.Series(values, ["a", HOSTILE, "c"]) for values in ([-1.0, 1.0, 2.0], [1.0, -1.0, 3.0])]

DRAWINGS = {
    "heat": lambda width: heat_map(heads_of(SHARE, LAYERS), {1, 4}, width),
    "heat of a large model": lambda width: heat_map(LARGE, set(), width),
    "profile": lambda width: profile(TRACE, BY_LAYER, {1, 4}, width),
    "forest": lambda width: forest([Section("x", ROWS), Section("y", ROWS[:1])], width),
    "first and last": lambda width: first_last(MAP, CHOSEN, width),
    "first and last of a large model": lambda width: first_last(DEEP, None, width),
    "flow": lambda width: flow(Flow(40, 30, 2, 0, 28), width),
    "flow of few changes": lambda width: flow(Flow(396, 1, 1, 1, 1), width),
    "dose and response": lambda width: dose_response(DOSE, 1.0, width),
    "margins": lambda width: margins(*MARGINS, width),
}


def texts(svg: str) -> list[str]:
    """The words in a drawing, as a browser reads them."""
    root = ET.fromstring(f"<div>{svg}</div>")
    return ["".join(node.itertext()) for node in root.iter() if node.tag.rpartition("}")[2] == "text"]


@pytest.mark.parametrize("name", DRAWINGS)
def test_svg_can_stand_on_a_page(name):
    svg = responsive(DRAWINGS[name], "some", "a label & more")
    assert svg == responsive(DRAWINGS[name], "some", "a label & more")  # the same bytes every time
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids)), "two elements with one id"
    for used in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg):
        assert set(used) - {""} <= set(ids)
    assert "<style" not in svg  # it would reach the whole page
    assert "<?xml" not in svg
    assert "dc:date" not in svg
    assert 'aria-label="a label &amp; more"' in svg
    assert texts(svg), "text must stay text"


def test_every_figure_has_ids_of_its_own():
    one, other = (responsive(DRAWINGS["heat"], name, "") for name in ("one", "other"))
    ids = re.findall(r'\bid="([^"]+)"', one + other)
    assert len(ids) == len(set(ids))


def test_user_text_is_only_text():
    svg = responsive(DRAWINGS["forest"], "some", HOSTILE)

    tags = set()

    class Elements(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.add(tag)

    Elements().feed(svg)
    assert "svg" in tags
    assert not tags & {"script", "img"}
    assert HOSTILE in texts(svg)


def test_forest_shows_its_numbers():
    words = texts(responsive(DRAWINGS["forest"], "some", ""))
    assert words.count("+10.0 [0.0, +20.0]") == 4  # two rows, wide and narrow
    assert "4 / 2" in words
    assert "\u2014 \u2014" in words  # no estimate, no interval


def test_margins_count_what_changed():
    words = texts(responsive(DRAWINGS["margins"], "some", ""))
    assert words.count("1 corrected") == words.count("1 broken") == 2


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_window_with_a_gap_is_outlined_in_parts(width):
    axes = DRAWINGS["heat"](width).axes[0]
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    assert [(patch.get_y(), patch.get_height()) for patch in outlines] == [(0.5, 1), (2.5, 1)]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", DRAWINGS)
def test_no_text_leaves_the_drawing(name, width):
    with figure_style(name):
        figure = DRAWINGS[name](width)
        figure.draw_without_rendering()
        for text in figure.findobj(Text):
            words = text.get_text()
            if re.search("[a-z]", words) and HOSTILE not in words:  # ticks beyond the axes are never drawn
                box = text.get_window_extent()
                assert box.x0 > -2, text
                assert box.x1 < figure.bbox.width + 2, text


def test_a_very_large_loss_does_not_set_the_scale():
    usual = np.linspace(-0.1, 0.2, 100)
    assert robust_limit(usual) == pytest.approx(0.2)
    assert robust_limit(np.append(usual, -9.0)) == pytest.approx(0.2)
    assert robust_limit(np.append(usual, 9.0)) == pytest.approx(9.0)  # a gain is always within the scale
    words = texts(responsive(DRAWINGS["first and last"], "some", ""))
    assert "\u22120.40 or less" in words
    assert "+0.40" in words


def test_the_chosen_cell_is_outlined():
    figure = first_last(MAP, CHOSEN, WIDE)
    frame = next(patch for patch in figure.axes[1].patches if not patch.get_fill())
    assert (frame.get_x(), frame.get_y()) == (0.5, 1.5)  # from the second layer to the third
