"""Do the tests and intervals of the package hold what they promise, on data whose truth is known?

Simulated studies with realistic discordance, clips of several items and correlated sweeps. Each cell is one
kind of data; its rows say how often each procedure rejected or covered, with the Monte-Carlo error and the
goal: a test rejects a true null hypothesis in at most 5 % of data sets, and a 95 % interval holds the truth
in 93.5 to 96.5 % of them from 20 expected discordant pairs on. Where a bootstrap or a permutation test runs
inside the simulation it has fewer draws than in the package (999, or 499 for sweeps and cross-fitting);
p-values stay valid. Blocks of replicates share these draws (25 of them, 200 for margins), so that they are
matrix products; every cell compares its first replicates with the package's own functions.

Each cell is written to a file of its own when it is done: run the same command again to continue. Bootstraps,
Wilcoxon's test and whole studies have fewer replicates, as the table says. The result that ships is
calibration.json, with calibration.md and images/calibration.png beside this file. Seconds of a cell are null,
and not in the sum, where they were not recorded.

\b
Examples
  python analyses/calibration.py
  python analyses/calibration.py --keep analyses/calibration.json      only cells with other settings
  python analyses/calibration.py --replicates 500 --only answers --out runs/calibration-quick
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import typer
from support.calibration.cells import CELLS, Cell
from support.calibration.figure import draw
from support.calibration.table import markdown, summary

from mata_interp.seeding import named_generator

mpl.use("Agg")


def main(
    replicates: Annotated[int, typer.Option(min=1, help="Simulated data sets in each cell.")] = 10_000,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only cells whose name contains this text; several times: in this order."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the cells, the table and the figure.")] = Path(
        "runs/calibration"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed; each cell adds its name.")] = 0,
    keep: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A calibration.json: its cells with the same settings are not simulated again.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Simulate every cell that is not there yet, then write table and figure."""
    texts = only or [""]
    cells = list(dict.fromkeys(cell.name for text in texts for cell in CELLS if text in cell.name))
    if not cells:
        raise typer.BadParameter(f"no cell's name contains {texts}.", param_hint="--only")
    named = {cell.name: cell for cell in CELLS}
    folder = out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    commit = _commit()
    if keep is not None:
        _unpack(json.loads(keep.read_text()), folder)
    done = []
    for number, name in enumerate(cells, 1):
        done.append(_cell(named[name], folder, replicates, seed, commit))
        if not as_json:
            print(f"{number} of {len(cells)}: {name}, {done[-1]['seconds'] or 0:.0f} s", flush=True)
    result = gathered(done, seed)
    (out / "calibration.json").write_text(_compact(result))
    (out / "calibration.md").write_text(markdown(result))
    draw(result["rows"], out / "calibration.png")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for name, counts in summary(result["rows"]).items():
        print(f"{name}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    print(f"Table and figure: {out / 'calibration.md'}, {out / 'calibration.png'}")


def _cell(cell: Cell, folder: Path, replicates: int, seed: int, commit: str) -> dict[str, Any]:
    """The result of a cell, from its file if it is there with the same settings."""
    path = _file(folder, cell.name)
    settings = json.loads(json.dumps({**asdict(cell), "replicates": replicates, "seed": seed}))
    if path.exists():
        there = json.loads(path.read_text())
        if there["asked"] == settings:
            return there
    start = time.perf_counter()
    rows = cell.run(replicates, named_generator(seed, f"calibration: {cell.name}"))
    result = {
        "asked": settings,
        "commit": commit,
        "seconds": round(time.perf_counter() - start, 1),
        "rows": [{"kind": cell.kind, **row.to_dict()} for row in rows],
    }
    _write(result, path)
    return result


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '-').replace(',', '').replace('.', '_')}.json"


def _write(result: dict[str, Any], path: Path) -> None:
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps(result, indent=1) + "\n")
    whole.replace(path)


def _unpack(result: dict[str, Any], folder: Path) -> None:
    """Write the cells of a result that `gathered` made, where the folder has none of their names."""
    for cell in result["cells"]:
        path = _file(folder, cell["name"])
        if not path.exists():
            rows = [row for row in result["rows"] if row["cell"] == cell["name"]]
            asked = {name: value for name, value in cell.items() if name not in ("commit", "seconds")}
            _write({"asked": asked, "commit": cell["commit"], "seconds": cell["seconds"], "rows": rows}, path)


def gathered(done: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The result of all cells as one dict, in the order of `CELLS`."""
    order = [cell.name for cell in CELLS]
    done = sorted(done, key=lambda one: order.index(one["asked"]["name"]))
    return {
        "commit": ", ".join(sorted({name for one in done for name in one["commit"].split(", ")})),
        "seed": seed,
        "seconds": round(sum(one["seconds"] or 0 for one in done)),
        "cells": [one["asked"] | {name: one[name] for name in ("commit", "seconds")} for one in done],
        "rows": [row for one in done for row in one["rows"]],
    }


def _compact(result: dict[str, Any]) -> str:
    """The result as JSON with a line for each cell and each row."""
    lists = {"cells": result["cells"], "rows": [_rounded(row) for row in result["rows"]]}
    lines = [f'"{name}": {json.dumps(result[name])}' for name in result if name not in lists]
    lines += [
        f'"{name}": [\n' + ",\n".join(map(json.dumps, values)) + "\n]" for name, values in lists.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}


def _commit() -> str:
    """The commit of this checkout, with a mark if files differ from it; "unknown" outside a checkout."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
