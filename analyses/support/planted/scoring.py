"""Scores of windows against the planted models: overlap, false windows, coverage and calibration.

A file of windows has one row for each planted model, number of clips and draw. Columns of a CSV file, or keys
of a JSON list of objects:

- ``plant``: name of the planted model.
- ``clips``: number of clips that the window was chosen from.
- ``draw``: number of the draw, from 0; `draw_clips` in support/planted/truths.py gives its clips.
- ``layers``: the window, such as ``3-4,7``; ``none`` abstains.
- ``stability``, optional: claimed probability that a window from other clips overlaps this one by half.
- ``boundaries``, optional: a list of {"first", "last", "first_interval": [low, high], "last_interval"}, one
  for each run of layers, as in `FusionProfile.boundaries`; in a CSV file as JSON text.

Every planted model that is scored needs the same draws. To abstain on a model that uses its audio counts as
an IoU of 0; any window on a model that does not use it is a false one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mata_interp.errors import ArgumentError
from mata_interp.fusion.windows import overlap
from mata_interp.ranges import runs
from mata_interp.statistics import proportion

from .truths import KnownModel, parse_window

__all__ = ["BINS", "Scores", "read_windows", "score"]

REQUIRED = ("plant", "clips", "draw", "layers")
AGREE = 0.5  # IoU from which windows are similar
COVERAGE = ["truth", "clips", "edges", "covered", "low", "high", "exact", "width"]
BINS = (0.0, 0.25, 0.5, 0.8, 0.95, 1.0)  # of the stability

Scores = dict[str, pd.DataFrame]
"""``models``: one row for each model and number of clips; ``clips``: one for each number of clips;
``boundaries``: coverage of the boundaries' intervals, of the pooled runs of the truth and of its runs as
they are; ``stability``: claimed and observed, by bins;
``stability_by_clips``: the same, by number of clips."""


def read_windows(path: Path) -> pd.DataFrame:
    """The rows of a file, with ``layers`` as tuples and ``boundaries`` as lists.

    Raises:
        ArgumentError: the file cannot be read, lacks a column, or a row has a wrong value.
    """
    try:
        if path.suffix == ".json":
            table = pd.DataFrame(json.loads(path.read_text()))
        else:
            table = pd.read_csv(path, dtype={"layers": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path} is no table of windows: {error}.") from error
    if missing := [name for name in REQUIRED if name not in table]:
        raise ArgumentError(f"{path} lacks the columns {missing}: see --help for the format.")
    rows = []
    for number, row in enumerate(table.to_dict("records")):
        try:
            rows.append(_parsed(row))
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"{path}, row {number}: {error}") from error
    return pd.DataFrame(rows)


def _parsed(row: Mapping[Any, Any]) -> dict[str, Any]:
    layers, stability, edges = row["layers"], row.get("stability"), row.get("boundaries")
    edges = json.loads(edges) if isinstance(edges, str) and edges else edges
    return {
        "plant": str(row["plant"]),
        "clips": int(row["clips"]),
        "draw": int(row["draw"]),
        "layers": parse_window(layers) if isinstance(layers, str) else tuple(map(int, layers)),
        "stability": float("nan") if stability in (None, "") else float(stability),
        "boundaries": edges if isinstance(edges, list) else [],
    }


def score(windows: pd.DataFrame, known: Mapping[str, KnownModel]) -> Scores:
    """Score windows.

    Args:
        windows: from `read_windows`.
        known: the planted models to score.

    Raises:
        ArgumentError: a model lacks draws that another has, a row is there twice, or a window names layers
            that the model does not have.
    """
    rows: Any = windows[windows["plant"].isin(list(known))]
    _require_complete(rows, known)
    rows = rows.assign(
        iou=[overlap(row.layers, known[row.plant].layers) for row in rows.itertuples()],
        uses=[bool(known[name].layers) for name in rows["plant"]],
        empty=[not layers for layers in rows["layers"]],
    )
    return {
        "models": _by_model(rows, known),
        "clips": pd.DataFrame([_of_size(size, part) for size, part in rows.groupby("clips")]),
        "boundaries": _coverage(rows, known),
        **_calibration(rows),
    }


def _require_complete(rows: Any, known: Mapping[str, KnownModel]) -> None:
    """Every model has the same draws, each once, and windows name its layers."""
    if absent := sorted({*known} - {*rows["plant"]}):
        raise ArgumentError(
            f"There are no windows of {absent}. To abstain, write a row whose layers are none."
        )
    keys = ["plant", "clips", "draw"]
    if rows.duplicated(keys).any():
        twice = rows[rows.duplicated(keys)].iloc[0]
        raise ArgumentError(f"{twice['plant']}, {twice['clips']} clips, draw {twice['draw']} is there twice.")
    draws = {name: {*zip(part["clips"], part["draw"], strict=True)} for name, part in rows.groupby("plant")}
    every = set().union(*draws.values())
    for name, some in draws.items():
        if some != every:
            clips, draw = min(every - some)
            raise ArgumentError(f"{name} lacks draw {draw} of {clips} clips, which other models have.")
    for row in rows.itertuples():
        count = known[row.plant].num_layers
        if outside := [layer for layer in row.layers if not 0 <= layer < count]:
            raise ArgumentError(f"{row.plant} has {count} layers; draw {row.draw} names {outside}.")


def _by_model(rows: Any, known: Mapping[str, KnownModel]) -> pd.DataFrame:
    entries = []
    for (name, clips), part in rows.groupby(["plant", "clips"], sort=False):
        model = known[name]
        entries.append(
            {
                "plant": name,
                "role": model.role,
                "num_layers": model.num_layers,
                "truth": model.layers,
                "clips": clips,
                "draws": len(part),
                "iou": part["iou"].mean(),
                "exact": (part["iou"] == 1).mean(),
                "abstained": part["empty"].mean(),
                "commonest": part["layers"].value_counts().index[0],
            }
        )
    return pd.DataFrame(entries)


def _of_size(size: Any, rows: Any) -> dict[str, Any]:
    """Means over models of one number of clips; false windows with the Wilson interval."""
    using, not_using = rows[rows["uses"]], rows[~rows["uses"]]
    per_model = using.groupby("plant")["iou"].mean()
    false = proportion(~not_using["empty"]) if len(not_using) else None
    return {
        "clips": int(size),
        "models": len(per_model),
        "iou": per_model.mean() if len(per_model) else np.nan,
        "worst_iou": per_model.min() if len(per_model) else np.nan,
        "exact": (using["iou"] == 1).mean() if len(using) else np.nan,
        "abstained": using["empty"].mean() if len(using) else np.nan,
        "null_draws": len(not_using),
        "false_windows": float((~not_using["empty"]).mean()) if len(not_using) else np.nan,
        "false_low": float(false.low) if false else np.nan,
        "false_high": float(false.high) if false else np.nan,
    }


def _coverage(rows: Any, known: Mapping[str, KnownModel]) -> pd.DataFrame:
    """Of the true boundaries whose run a window overlaps: how many lie in the window's interval for them.

    The rule pools neighbours before it splits them, so that its boundaries are those of ``pooled`` runs
    (`KnownModel.runs`). Beside them stand the runs of the truth ``as it is``, without pooling.
    ``exact`` is the fraction of true boundaries that are those of the window: an interval of one layer would
    cover as much. ``width`` is the mean number of layers in an interval.
    """
    true_runs = {
        "pooled": {name: model.runs for name, model in known.items()},
        "as it is": {name: runs(model.layers) for name, model in known.items()},
    }
    entries, sizes = [], rows[rows["uses"]].groupby("clips")
    for truth, clips in product(true_runs, sizes.groups):
        edges = [
            (low <= true <= high, true == chosen, high - low + 1)
            for row in sizes.get_group(clips).itertuples()
            for true, chosen, (low, high) in _matched_edges(row.boundaries, true_runs[truth][row.plant])
        ]
        if edges:
            covered, exact, width = np.array(edges).T
            share = proportion(covered.astype(bool))
            entries.append(
                {
                    "truth": truth,
                    "clips": int(clips),
                    "edges": len(edges),
                    "covered": float(covered.mean()),
                    "low": float(share.low),
                    "high": float(share.high),
                    "exact": float(exact.mean()),
                    "width": float(width.mean()),
                }
            )
    return pd.DataFrame(entries, columns=COVERAGE)


def _matched_edges(
    edges: list[dict[str, Any]], truth: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, list[int]]]:
    """Each true boundary with that of the run that overlaps it, and its interval."""
    for first, last in truth:
        for edge in edges:
            if edge["first"] <= last and edge["last"] >= first:
                if edge.get("first_interval"):
                    yield first, edge["first"], edge["first_interval"]
                if edge.get("last_interval"):
                    yield last, edge["last"], edge["last_interval"]
                break


def _calibration(rows: Any) -> Scores:
    """Claimed stability against how often other draws of the same model and size give a similar window."""
    entries = []
    for (_, clips), part in rows.groupby(["plant", "clips"]):
        windows = list(part["layers"])
        for place, (window, stability) in enumerate(zip(windows, part["stability"], strict=True)):
            if window and np.isfinite(stability) and len(windows) > 1:
                remaining = windows[:place] + windows[place + 1 :]
                observed = np.mean([overlap(window, other) >= AGREE for other in remaining])
                entries.append((int(clips), stability, observed))
    table = pd.DataFrame(entries, columns=["clips", "claimed", "observed"]).astype(float)
    bins = pd.cut(table["claimed"], list(BINS), include_lowest=True)
    grouped: Any = table.groupby(bins, observed=True)
    means = grouped[["claimed", "observed"]].mean().reset_index(drop=True)
    by_bin = means.assign(
        windows=grouped.size().to_numpy(),
        range=[f"{max(part.left, 0):.2f}-{part.right:.2f}" for part in grouped.groups],
    )
    sizes: Any = table.groupby("clips")
    by_clips = sizes.mean().reset_index().assign(windows=sizes.size().to_numpy())
    return {"stability": by_bin, "stability_by_clips": by_clips.astype({"clips": int})}
