"""The section on how layers and alpha were chosen, on other clips than those of the test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..experiments import Effects, StudyResult
from ..experiments.study_result import GridRow, LayerOrigin, Selection
from ..plot.maps import is_window
from ..ranges import brief
from .dose_response import dose_response_content
from .figures.first_last import first_last
from .figures.scale import robust_limit
from .figures.svg import figure_part
from .parts import Block, Content, FigurePart, Row, Section, Table
from .wording import count, known, layer_range, named_layers, number, percent, printable

SHOWN = 10  # of the configurations, the best


def choice_section(study: StudyResult, effects: Effects | None = None) -> Section:
    """The selection sweep, the reason for the choice, and dose and response from the study's effects."""
    selection, test, origin = study.selection, study.test, study.selection.layer_origin
    chosen = "Layers and alpha were" if origin is None else f"{_origin(origin)} Only alpha was"
    text = (
        f"{chosen} chosen on {count(selection.clips, 'clip')} and tested on "
        f"{count(test.clips, 'other clip')} ({count(test.items, 'item')}); no clip is in both. "
        f"{printable(selection.reason)}"
    )
    content: list[Content] = [("text", text)]
    figure = _map(selection) if selection.grid and origin is None else None
    if figure is not None:
        content.append(("figure", figure))
        content.append(("folded", _best(selection)))
    elif selection.grid:
        content.append(("table", _best(selection)))
    content += dose_response_content(effects, selection.chosen.alpha)
    title = "Choice of layers and strength" if origin is None else "Choice of strength"
    return Section("choice", title, content)


def _origin(origin: LayerOrigin) -> str:
    """Where layers come from that the study did not choose, and whether they were chosen on tested clips."""
    layers = f"{named_layers(origin.layers).capitalize()} were prespecified"
    if origin.profile_model is None:
        return f"{layers} by hand; which clips they were chosen on, if any, is not known."
    reuse = "none of them is tested here"
    if origin.test_clips:
        tested = count(origin.test_clips, "of them is", "of them are")
        reuse = f"{tested} tested here again, so the effect is exploratory"
    return (
        f"{layers}: the window of a fusion profile of {printable(origin.profile_model, 60)}, computed on "
        f"{count(origin.clips, 'clip')}. Of these clips, {origin.selection_clips:,} are among the selection "
        f"clips of this study; {reuse}."
    )


def _map(selection: Selection) -> FigurePart | None:
    """The map of all windows; None for sets of layers with gaps, which have no place on one."""
    grid, base, chosen = selection.grid, selection.baseline, selection.chosen
    causal_map, details = _causal_map(grid, base.margin)
    if not is_window(causal_map):
        return None
    place = (chosen.layers, chosen.alpha) if any(row.configuration == chosen for row in grid) else None
    clipped = ""
    if np.nanmin(causal_map.values) < -robust_limit(causal_map.values):
        clipped = " Losses beyond the scale have its darkest orange."
    return figure_part(
        "grid",
        lambda width: first_last(causal_map, place, width, details),
        "Margin by layers and alpha",
        "Configurations tried on the selection clips.",
        "Each cell is a window of consecutive layers, from its first layer (across) to its last (up); "
        f"single layers lie on the diagonal. The colour is the mean margin of {count(base.n, 'item')} minus "
        f"the baseline's ({number(base.margin)} nats, accuracy {percent(base.accuracy)}, chance "
        f"{percent(selection.grid_chance)}).{_parts(selection)}{clipped} Framed: the selected "
        f"{named_layers(chosen.layers)} at alpha {chosen.alpha:g} with rule {printable(chosen.rule)}. The "
        f"best of {count(len(grid), 'configuration')} is optimistic here; only the test clips give an "
        "unbiased estimate.",
    )


def _parts(selection: Selection) -> str:
    """On how many items each configuration was tried, where a search did not try all on all."""
    numbers = {row.n for row in selection.grid}
    if numbers == {selection.baseline.n}:
        return ""
    return (
        f" A search from coarse to fine tried each on {min(numbers)} to {max(numbers)} of these items; the "
        "colour is its mean change on those."
    )


def _causal_map(grid: Sequence[GridRow], base: float) -> tuple[xr.DataArray, xr.DataArray]:
    """The change of the margin ``[layers, alpha]`` in nats, and accuracy and items of each cell as text."""
    sets = sorted({row.layers for row in grid}, key=lambda layers: (len(layers), layers))
    coords = {"layers": [brief(layers) for layers in sets], "alpha": sorted({row.alpha for row in grid})}
    change = xr.DataArray(np.nan, coords, ("layers", "alpha"), "change of margin")
    details = xr.full_like(change, "", dtype=object)
    for row in grid:
        place = {"layers": brief(row.layers), "alpha": row.alpha}
        change.loc[place] = row.margin - base
        details.loc[place] = f"accuracy {percent(row.accuracy)} of {count(row.n, 'item')}"
    return change, details


def _best(selection: Selection) -> Table:
    """The configurations with the best margins, and the baseline."""
    base = selection.baseline
    scored = [row for row in selection.grid if known(row.margin)]
    best = sorted(scored, key=lambda row: -row.margin)[:SHOWN]
    rows = [
        Row(
            [
                layer_range(row.layers),
                f"{row.alpha:g}",
                number(row.margin),
                number(row.margin - base.margin, 2, sign=True),
                percent(row.accuracy),
            ],
            "primary" if row.configuration == selection.chosen else "",
            {"layers": layer_range(row.layers), "alpha": repr(row.alpha), "margin": repr(row.margin)},
        )
        for row in best
    ]
    rows.append(Row(["without MATA", "", number(base.margin), "", percent(base.accuracy)], "sham"))
    return Table(
        f"The {count(len(best), 'best configuration')} on the selection clips.",
        ("Layers", "Alpha", "Mean margin, nats", "Change", "Accuracy"),
        [Block(rows)],
        f"Chance: {percent(selection.grid_chance)}. Small gaps to the runners-up mean the selection is not "
        "robust.",
    )
