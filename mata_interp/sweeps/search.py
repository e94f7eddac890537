"""A search over windows of layers and strengths, from coarse to fine.

The number of windows grows with the square of the depth: 32 layers have 392 windows of up to 16 layers, and
with five strengths 1,960 configurations, whose rows cost more than the prompts themselves. Most of them are
neighbours of one another. So the search tries windows that begin and end on a coarse grid, then the
neighbours of the best at half the distance, and so on down to single layers.

Each round has items of its own: an item's prompt is read once, for the configurations of its round. The last
round has half of the clips, and its configurations are compared on the same items, none of which had a
part in how they were found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.benchmarks.entries import as_items
from mata_interp.errors import ArgumentError, InterventionError
from mata_interp.execution import Output
from mata_interp.interventions import AttentionEdit, in_order
from mata_interp.ranges import brief

from .measures import margin
from .run_sweep import sweep
from .table import table

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["LARGE_GRID", "LEAST_CLIPS", "WindowGrid", "last_round", "rounds_of_clips", "search_windows"]

LARGE_GRID = 600
"""Configurations from which on a search pays: the full grid of windows of up to half of 18 layers has 630."""

LEAST_CLIPS = 32
"""Clips that a search needs, so that even its first rounds rest on several."""

CELLS = 8  # of the depth, between the boundaries of the first round
LEADERS = 8  # windows whose neighbours are tried in the next round

Place = tuple[int, int, int]
"""First layer of a window, the one after its last, and strength: indices into those of the grid."""


@dataclass(frozen=True)
class WindowGrid:
    """Configurations that are windows of consecutive layers at several strengths.

    Attributes:
        layers: the layers, ascending.
        alphas: the strengths, ascending.
        names: place -> name of the configuration. Not every place needs one.
    """

    layers: tuple[int, ...]
    alphas: tuple[float, ...]
    names: dict[Place, str]

    @classmethod
    def from_configurations(cls, configurations: Mapping[str, AttentionEdit]) -> WindowGrid:
        """The grid of configurations that differ in window and strength only.

        Raises:
            InterventionError: one of them is not a window of the layers that they have together, or two
                are the same.
        """
        layers = tuple(sorted({layer for edit in configurations.values() for layer in edit.layers}))
        alphas = tuple(sorted({edit.alpha for edit in configurations.values()}))
        names: dict[Place, str] = {}
        for name, edit in configurations.items():
            first = layers.index(edit.layers[0]) if edit.layers else 0
            stop = first + len(edit.layers)
            if not edit.layers or layers[first:stop] != edit.layers:
                raise InterventionError(
                    f"Layers {brief(edit.layers)} of configuration {name!r} are not a window of consecutive "
                    "layers: sweep them instead of searching."
                )
            place = (first, stop, alphas.index(edit.alpha))
            if place in names:
                raise InterventionError(f"{name!r} and {names[place]!r} have the same layers and alpha.")
            names[place] = name
        return cls(layers, alphas, names)

    @property
    def distances(self) -> tuple[int, ...]:
        """Layers between neighbouring boundaries in each round: about an eighth of the depth, halved to 1."""
        halvings = max(0, round(math.log2(len(self.layers) / CELLS)))
        return tuple(2**k for k in range(halvings, -1, -1))

    def first(self) -> list[Place]:
        """The first round: windows whose boundaries are multiples of the distance, and each layer alone."""
        distance, count = self.distances[0], len(self.layers)
        boundaries = {*range(0, count, distance), count}
        return [
            (first, stop, alpha)
            for first, stop, alpha in self.names
            if {first, stop} <= boundaries or stop - first == 1
        ]

    def near(self, leaders: Sequence[Place], distance: int) -> list[Place]:
        """The leaders and their neighbours: each boundary as it is or moved, and the next strengths."""
        candidates = {
            (first + before, stop + behind, alpha + other)
            for first, stop, alpha in leaders
            for before in (-distance, 0, distance)
            for behind in (-distance, 0, distance)
            for other in (-1, 0, 1)
        }
        return [place for place in self.names if place in candidates]

    def leaders(self, gains: Mapping[Place, float]) -> list[Place]:
        """The best windows, each at its best strength; of equal ones the weaker, narrower, earlier.

        Args:
            gains: place -> mean change of the margin.
        """
        ordered = sorted(gains, key=lambda p: (-gains[p], p[2], p[1] - p[0], p[0]))
        best: dict[tuple[int, int], Place] = {}
        for place in ordered:
            best.setdefault(place[:2], place)
        return list(best.values())[:LEADERS]

    def search(self, measure: Callable[[Sequence[str]], Sequence[float]]) -> list[dict[str, Any]]:
        """All rounds.

        Args:
            measure: called once for each round with the names of its configurations; the mean change of the
                margin under each of them, nats.

        Returns:
            Of each round its distance, the names of its configurations and those of its leaders, best first.
        """
        rounds: list[dict[str, Any]] = []
        leaders: list[Place] = []
        for distance in self.distances:
            places = self.near(leaders, distance) if leaders else self.first()
            names = [self.names[place] for place in places]
            leaders = self.leaders(dict(zip(places, measure(names), strict=True)))
            rounds.append(
                {
                    "distance": distance,
                    "configurations": names,
                    "leaders": [self.names[place] for place in leaders],
                }
            )
        return rounds


def search_windows(
    lalm: LALM,
    items: Sequence[Item],
    configurations: Mapping[str, AttentionEdit],
    baseline: str,
    **options: Any,
) -> xr.DataArray:
    """`sweep` a part of a grid of windows by strengths: a coarse grid, then what is near its best.

    A round's best are those with the largest mean change of the margin of the right option. At 32 layers and
    five strengths a prompt is read under some 300 configurations instead of 1,960.

    Args:
        lalm: the model.
        items: with known answers, of `LEAST_CLIPS` clips at least.
        configurations: of the full grid, by name, from `window_configs`.
        baseline: name of the configuration without an edit, which is tried on every item.
        options: ``batch_size``, ``block``, ``strict``, ``progress``, ``prompt_format`` and ``ray`` of
            `sweep`; ``out``, the `Output` of the whole search, beside whose file the parts of each round are
            kept.

    Returns:
        As `sweep`, of all configurations that were tried; NaN where one was not tried on an item. ``round``,
        from 0, is a coordinate of ``item``; :func:`last_round` gives those that can be compared. Among the
        attributes are ``search``, ``"coarse"``, ``grid``, the number of configurations of the full grid, and
        ``rounds``, as JSON: distance, number of items, names of the configurations, and of the leaders.

    Raises:
        InterventionError: the configurations are not windows of consecutive layers.
        ArgumentError: there are too few clips, or an item has no known answer.

    See Also:
        sweep: the full grid.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").filter(condition="conflict").split("selection")[:32]
        >>> grid = {"baseline": None} | mi.window_configs(lalm, alphas=[1.0])
        >>> windows = {name: edit for name, edit in grid.items() if edit is not None}
        >>> found = mi.search_windows(lalm, items, windows, "baseline", progress=False)
        >>> found.attrs["grid"] == len(windows)
        True
    """
    items = as_items(items)
    grid = WindowGrid.from_configurations(configurations)
    parts = rounds_of_clips(items, len(grid.distances))
    sweeps: list[xr.DataArray] = []
    output: Output | None = options.pop("out", None)

    def measure(names: Sequence[str]) -> list[float]:
        edits = {baseline: None, **{name: configurations[name] for name in names}}
        out = None if output is None else output.round(len(sweeps), edits)
        sweeps.append(swept := sweep(lalm, parts[len(sweeps)], edits, out=out, **options))
        margins = margin(swept)
        moved = (margins - margins.sel(configuration=baseline, drop=True)).mean("item")
        return moved.sel(configuration=list(names)).values.tolist()

    rounds = grid.search(measure)
    for one, swept in zip(rounds, sweeps, strict=True):
        one["items"] = swept.sizes["item"]
    tried = {name for one in rounds for name in one["configurations"]}
    edits = {baseline: None, **{name: edit for name, edit in configurations.items() if name in tried}}
    attrs = {"search": "coarse", "grid": len(configurations), "rounds": json.dumps(rounds)}
    return _joined(lalm, items, sweeps, edits, attrs)


def rounds_of_clips(items: Sequence[Item], rounds: int) -> list[list[Item]]:
    """The items of each round: half of the clips for the last, the others shared by those before it.

    Clips are dealt out in turns, so that each round has items of all kinds and lengths.

    Raises:
        ArgumentError: there are fewer than `LEAST_CLIPS` clips.
    """
    clips: dict[str, list[Item]] = {}
    for item in items:
        clips.setdefault(str(item.cluster), []).append(item)
    if len(clips) < LEAST_CLIPS:
        raise ArgumentError(
            f"A search needs items of at least {LEAST_CLIPS} clips, and there are {len(clips)}: sweep the "
            "full grid."
        )
    turns = [*range(rounds - 1), *[rounds - 1] * max(1, rounds - 1)]
    dealt: list[list[Item]] = [[] for _ in range(rounds)]
    for number, some in enumerate(clips.values()):
        dealt[turns[number % len(turns)]].extend(some)
    return dealt


def last_round(swept: xr.DataArray) -> xr.DataArray:
    """The part of a search that can be compared: the last round's items and configurations.

    Args:
        swept: from `search_windows`; a sweep of a full grid is returned as it is.
    """
    if "round" not in swept.coords:
        return swept
    last = swept.isel(item=(swept["round"] == swept["round"].max()).values)
    tried = last.notnull().any(["item", "choice"])
    return last.isel(configuration=tried.values)


def _joined(
    lalm: LALM,
    items: Sequence[Item],
    sweeps: Sequence[xr.DataArray],
    configurations: Mapping[str, AttentionEdit | None],
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """Sweeps of different items and configurations as one, NaN where a configuration was not tried."""
    names, by_id = list(configurations), {item.id: item for item in items}
    ids = [str(name) for swept in sweeps for name in swept["item"].values]
    values = np.full((len(ids), len(names), max(swept.sizes["choice"] for swept in sweeps)), np.nan)
    done = 0
    for swept in sweeps:
        columns = [names.index(str(name)) for name in swept["configuration"].values]
        rows = slice(done, done + swept.sizes["item"])
        values[rows, columns, : swept.sizes["choice"]] = swept.transpose("item", "configuration", "choice")
        done = rows.stop
    edits = {name: in_order(edit) for name, edit in configurations.items()}
    lines = {
        name: "\n".join(dict.fromkeys(line for swept in sweeps for line in swept.attrs[name].splitlines()))
        for name in ("culprits", "excluded")
    }
    checks = {
        "canary": max(swept.attrs["canary"] for swept in sweeps),
        "looped": sum(swept.attrs["looped"] for swept in sweeps),
    }
    joined = table(
        lalm, [values], [by_id[name] for name in ids], edits, "choice", {**checks, **lines, **attrs}
    )
    numbers = [number for number, swept in enumerate(sweeps) for _ in range(swept.sizes["item"])]
    return joined.assign_coords(round=("item", numbers))
