"""The section on how layers and alpha were chosen: on other clips than those they were tested on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .figures.scale import robust_limit
from .figures.svg import responsive
from .figures.window_heatmap import window_heatmap
from .parts import Block, Content, FigurePart, Row, Section, Table
from .wording import count, layer_range, named_layers, number, percent, printable

SHOWN = 10  # of the configurations, the best


def choice_section(study: Mapping[str, Any]) -> Section:
    """The selection sweep and the reason given with it."""
    selection, test = study["selection"], study["test"]
    given = selection.get("given_layers")
    what = "Layers and strength were" if given is None else f"{_given(given)} Only the strength was"
    text = (
        f"{what} chosen on {count(selection['clips'], 'clip')} and tested on "
        f"{count(test['clips'], 'other clip')} ({count(test['items'], 'item')}); no clip is in both. "
    )
    content: list[Content] = [("text", text + printable(selection["reason"]))]
    if selection["grid"] and given is None:
        content.append(("figure", _map(selection)))
        content.append(("folded", _best(selection)))
    elif selection["grid"]:  # a single set of layers, which may have gaps, has no map
        content.append(("table", _best(selection)))
    title = "How layers and alpha were chosen" if given is None else "How alpha was chosen, in given layers"
    return Section("choice", title, content)


def _given(given: Mapping[str, Any]) -> str:
    """Where layers came from that this study did not choose, and whether they have met the tested clips."""
    layers = f"{named_layers(given['layers']).capitalize()}, given"
    if given["found_in"] is None:
        return (
            f"{layers} by hand, not chosen by this study: on which clips, if on any, somebody chose that is "
            "not known here."
        )
    met = given["test_clips"]
    reuse = (
        f"{count(met, 'of them is', 'of them are')} tested here again, so the effect is exploratory"
        if met
        else "none of them is tested here"
    )
    return (
        f"{layers}, not chosen by this study: the window of a fusion profile of "
        f"{printable(given['found_in'], 60)}, made on {count(given['clips'], 'clip')}. Of these, "
        f"{given['selection_clips']:,} are among the selection clips of this study; {reuse}."
    )


def _map(selection: Mapping[str, Any]) -> FigurePart:
    tried, base, chosen = selection["grid"], selection["baseline"], selection["chosen"]
    cube, layers, alphas = _cube(tried, base["margin"])
    place = None
    if chosen["alpha"] in alphas and chosen["layers"]:
        place = alphas.index(chosen["alpha"]), len(chosen["layers"]) - 1, layers.index(chosen["layers"][0])
    clipped = np.nanmin(cube) < -robust_limit(cube)
    lost = " Losses beyond the scale have its darkest orange." if clipped else ""
    return FigurePart(
        "grid",
        responsive(
            lambda width: window_heatmap(cube, layers, alphas, place, width),
            "grid",
            "Margin by layers and alpha",
        ),
        "What was tried on the selection clips.",
        "Each cell is a window of neighbouring layers, above its middle, the wider the higher; its colour is "
        f"the mean margin of {count(base['n'], 'item')} minus the baseline's ({number(base['margin'])} nats, "
        f"accuracy {percent(base['accuracy'])}).{lost} Framed: the choice, {named_layers(chosen['layers'])} "
        f"at alpha {chosen['alpha']:g} with rule {printable(chosen['rule'])}. The best of "
        f"{count(len(tried), 'configuration')} looks better here than it is; the test clips count.",
    )


def _cube(tried: list[Mapping[str, Any]], base: float) -> tuple[np.ndarray, list[int], list[float]]:
    """Margin minus the baseline's, [alpha, width - 1, first], the layers and the alphas."""
    layers = sorted({layer for row in tried for layer in row["layers"]})
    alphas = sorted({float(row["alpha"]) for row in tried})
    cube = np.full((len(alphas), max(len(row["layers"]) for row in tried), len(layers)), np.nan)
    for row in tried:
        value = np.nan if row["margin"] is None else row["margin"] - base
        cube[alphas.index(row["alpha"]), len(row["layers"]) - 1, layers.index(row["layers"][0])] = value
    return cube, layers, alphas


def _best(selection: Mapping[str, Any]) -> Table:
    """The configurations with the best margins, and the baseline."""
    base = selection["baseline"]
    known = [row for row in selection["grid"] if row["margin"] is not None]
    best = sorted(known, key=lambda row: -row["margin"])[:SHOWN]
    rows = [
        Row(
            [
                layer_range(row["layers"]),
                f"{row['alpha']:g}",
                number(row["margin"]),
                number(row["margin"] - base["margin"], 2, sign=True),
                percent(row["accuracy"]),
            ],
            "primary" if all(row[name] == value for name, value in selection["chosen"].items()) else "",
        )
        for row in best
    ]
    rows.append(Row(["without MATA", "", number(base["margin"]), "", percent(base["accuracy"])], "sham"))
    return Table(
        f"The {count(len(best), 'best configuration')} on the selection clips.",
        ("Layers", "Alpha", "Mean margin, nats", "Change", "Accuracy"),
        [Block(rows)],
        "How close the runners-up come says how firmly the choice stands.",
    )
