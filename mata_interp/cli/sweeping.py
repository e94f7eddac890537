"""`mata-interp sweep`: a causal map of a model over some items."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import mata_interp as mi

from ..errors import RunError
from ..experiments.conditions import named_conditions
from ..experiments.files import write_whole
from ..experiments.manifest import known_beforehand
from ..experiments.selection import refuse_other_sweep, swept
from ..experiments.validation import validate_items
from ..interventions import AttentionEdit
from ..ranges import brief
from ..reporting.wording import count, interval, number, percent, printable
from ..statistics import clustered_interval
from ..sweeps import change
from .fusing import layers_wanted
from .grids import Edit, from_file, from_options
from .opening import Source, open_model
from .options import AUTO, parse_chosen
from .output import print_json, print_table, progress

if TYPE_CHECKING:
    from ..benchmarks import Items
    from ..lalm import LALM

SHOWN = 10  # configurations that people see
NOTHING = "no intervention"


def sweep_benchmark(
    model: str,
    source: Source,
    items: int | None,
    split: str,
    file: Path | None,
    options: Mapping[str, Any],
    out: Path,
    seed: int,
    batch_size: int,
    as_json: bool,
) -> None:
    """Sweep, write, print; the arguments are those of the command."""
    data = _items(whole := source.open(), split, items, seed)
    configurations = from_file(file) if file else None  # before the model is loaded, which may take minutes
    lalm = open_model(model)
    configurations = configurations or from_options(lalm, **_with_layers(options, lalm, whole, seed))
    conditions = {NOTHING: None, **configurations}
    refuse_other_sweep(
        out / "sweep.nc", known_beforehand(lalm, named_conditions(conditions), batch_size, seed)
    )
    with _stopped_cleanly(out):
        known = validate_items(lalm, data, progress=progress(), scored=True)
        how = {"batch_size": batch_size, "progress": progress(), "seed": seed}
        found = swept(lalm, known, conditions, out / "sweep.nc", **how)
    figures = _draw(found, configurations, out)
    rows = _changes(found)
    base = {"margin": float(mi.margin(found).sel(configuration=NOTHING).mean())}
    base["accuracy"] = float(_right(found).sel(configuration=NOTHING).mean())
    if as_json:
        counts = {"items": len(known.items), "clips": len(known.clusters), "baseline": base}
        checks = {name: found.attrs[name] for name in ("canary", "looped", "culprits")}
        print_json({**counts, "configurations": rows, **checks, "excluded": known.excluded, "out": out})
        return
    where = f"{count(len(known.items), 'item')} of {count(len(known.clusters), 'clip')}"
    print(f"{printable(lalm.name)} on {printable(data.name)}, {split}: {where}")
    print(
        f"without intervention: margin {number(base['margin'])} nats, accuracy {percent(base['accuracy'])}\n"
    )
    _print(rows)
    print(f"\nThe sweep: {out / 'sweep.nc'}" + "".join(f"\nThe map: {path}" for path in figures))


def _with_layers(options: Mapping[str, Any], lalm: LALM, items: Items, seed: int) -> Mapping[str, Any]:
    """The options with the layers that ``auto`` or a file stands for, and the clips they were chosen on."""
    wanted = options["layers"].strip()
    if wanted.lower() != AUTO and not wanted.lower().endswith(".json"):
        return options
    found = layers_wanted(parse_chosen(wanted), lalm, lambda: items, seed)
    mata = mi.Mata(0.0, found)
    settings = {**options["settings"], "chosen_on": mata.chosen_on}
    return {**options, "layers": brief(mata.layers), "settings": settings}


def _items(items: Items, split: str, limit: int | None, seed: int) -> Items:
    chosen = items if split == "all" else items.split(split, seed=seed)
    if not len(chosen):
        raise RunError(f"{items.name} has no item in its {split} split; --split all takes every item.")
    return chosen.sample(limit, seed=seed) if limit else chosen


@contextmanager
def _stopped_cleanly(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\nstopped; nothing of the sweep is kept in {out}: the same command begins anew", file=sys.stderr
        )
        raise


def _draw(found: xr.DataArray, configurations: Mapping[str, Edit], out: Path) -> list[Path]:
    """Write the map and its figure, where the configurations lie on one; what was written for people."""
    edits = [edit for edit in configurations.values() if isinstance(edit, AttentionEdit)]
    alike = {(edit.rule, edit.keys, edit.queries, edit.phase) for edit in edits}
    if len(edits) < len(configurations) or len(alike) > 1:
        return []
    try:
        drawn = change(
            found, {n: e for n, e in configurations.items() if isinstance(e, AttentionEdit)}, NOTHING
        )
    except mi.errors.MataError:  # they have no places on one map, or no item has a known answer
        return []
    content = drawn.to_netcdf(engine="scipy")
    write_whole(out / "map.nc", lambda file: file.write(content))
    for name in ("map.png", "map.svg"):
        form = name[-3:]
        write_whole(out / name, lambda file, form=form: mi.figure(drawn).savefig(file, format=form, dpi=200))
    return [out / "map.png"]


def _right(found: xr.DataArray) -> xr.DataArray:
    return found.fillna(-np.inf).argmax("choice") == found["answer"]


def _changes(found: xr.DataArray) -> list[dict[str, Any]]:
    """Of each configuration, what it does and what that changes, with an interval over clips."""
    margins, right = mi.margin(found), _right(found)
    others = [name for name in found["configuration"].values if name != NOTHING]
    moved = (margins - margins.sel(configuration=NOTHING, drop=True)).sel(configuration=others)
    mean, low, high = clustered_interval(moved.transpose("item", ...).values, found["cluster"].values)
    names = ("layers", "heads", "rule", "alpha", "group", "queries", "phase")
    labels = {name: moved[name].values.tolist() for name in names}
    return [
        {
            "name": str(name),
            **{label: values[k] for label, values in labels.items()},
            "change": float(mean[k]),
            "low": float(low[k]),
            "high": float(high[k]),
            "accuracy": float(right.sel(configuration=name).mean()),
        }
        for k, name in enumerate(others)
    ]


def _print(rows: list[dict[str, Any]]) -> None:
    """The largest gains and losses, in order."""
    order = sorted(rows, key=lambda row: -row["change"])
    half = SHOWN // 2
    few = order if len(order) <= SHOWN else [*order[:half], None, *order[-half:]]

    def nats(value: float) -> str:
        return number(value, 3, sign=True)

    cells = [
        ["...", "", "", ""]
        if row is None
        else [
            printable(row["name"], 60),
            nats(row["change"]),
            interval(row["low"], row["high"], nats),
            percent(row["accuracy"]),
        ]
        for row in few
    ]
    print_table(["configuration", "change, nats", "95 % over clips", "accuracy"], cells)
    print("\nEach interval stands by itself: of many configurations the best looks better than it is.")
