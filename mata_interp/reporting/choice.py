"""The section on how layers and alpha were chosen, on other clips than those of the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..experiments import StudyResult
from ..experiments.study_result import GridRow, LayerOrigin, Selection
from .dose_response import dose_response_content
from .figures.first_last import first_last
from .figures.scale import robust_limit
from .figures.svg import responsive
from .parts import Block, Content, FigurePart, Row, Section, Table
from .wording import count, known, layer_range, named_layers, number, percent, printable

SHOWN = 10  # of the configurations, the best


def choice_section(study: StudyResult, folder: Path | None = None) -> Section:
    """The selection sweep and the reason for the choice; ``folder`` holds the sweep of single items."""
    selection, test, origin = study.selection, study.test, study.selection.layer_origin
    chosen = "Layers and alpha were" if origin is None else f"{_origin(origin)} Only alpha was"
    text = (
        f"{chosen} chosen on {count(selection.clips, 'clip')} and tested on "
        f"{count(test.clips, 'other clip')} ({count(test.items, 'item')}); no clip is in both. "
        f"{printable(selection.reason)}"
    )
    content: list[Content] = [("text", text)]
    if selection.grid and origin is None:
        content.append(("figure", _map(selection)))
        content.append(("folded", _best(selection)))
    elif selection.grid:  # a single set of layers, which may have gaps, has no map
        content.append(("table", _best(selection)))
    content += dose_response_content(folder, selection)
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


def _map(selection: Selection) -> FigurePart:
    grid, base, chosen = selection.grid, selection.baseline, selection.chosen
    cube, layers, alphas = _cube(grid, base.margin)
    details = _details(grid, cube.shape, layers, alphas)
    place = None
    if chosen.alpha in alphas and chosen.layers:
        place = alphas.index(chosen.alpha), len(chosen.layers) - 1, layers.index(chosen.layers[0])
    clipped = ""
    if np.nanmin(cube) < -robust_limit(cube):
        clipped = " Losses beyond the scale have its darkest orange."
    return FigurePart(
        "grid",
        responsive(
            lambda width: first_last(cube, layers, alphas, place, width, details),
            "grid",
            "Margin by layers and alpha",
        ),
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


def _cube(grid: Sequence[GridRow], base: float) -> tuple[np.ndarray, list[int], list[float]]:
    """Margin minus the baseline's, [alpha, width - 1, first layer], with the layers and the alphas."""
    layers = sorted({layer for row in grid for layer in row.layers})
    alphas = sorted({row.alpha for row in grid})
    cube = np.full((len(alphas), max(len(row.layers) for row in grid), len(layers)), np.nan)
    for row in grid:
        cube[alphas.index(row.alpha), len(row.layers) - 1, layers.index(row.layers[0])] = row.margin - base
    return cube, layers, alphas


def _details(
    grid: Sequence[GridRow], shape: tuple[int, ...], layers: Sequence[int], alphas: Sequence[float]
) -> np.ndarray:
    """Accuracy and number of items of each configuration, as text in the shape of the cube."""
    texts = np.full(shape, "", dtype=object)
    for row in grid:
        place = alphas.index(row.alpha), len(row.layers) - 1, layers.index(row.layers[0])
        texts[place] = f"accuracy {percent(row.accuracy)} of {count(row.n, 'item')}"
    return texts


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
