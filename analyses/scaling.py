"""How does a run scale with workers? Measured on this machine for a few, and estimated for many GPUs.

Measured: one process, then Ray with 1 and 2 workers of one CPU and one thread each, on the same items,
conditions and batches; the tables must be identical. `items_per_second` is the throughput between the
first quarter and the last twentieth of the parts, when all workers are busy; `seconds` is the total,
including the start of the workers and the validation of items; `times` is the throughput relative to the
one process of the same round. Run it on an idle machine with at least two cores. About five minutes.

Estimated (--paper: nothing else): 10,000 items of MMAU with 100 configurations of a 7B model on 8, 64 and 512
GPUs, from counts of arithmetic operations and memory traffic. All assumptions are fields of `Assumptions` and
printed beside the table; none of them was measured on a GPU by this project.

\b
Examples
  python analyses/scaling.py
  python analyses/scaling.py --paper
  python analyses/scaling.py --items 240 --workers 1,2,4 --json
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from support.scaling_figure import draw
from support.scaling_paper import Assumptions, on_paper

import mata_interp as mi


def measured(
    model: str, items: int, workers: list[int], out: Path, batch_size: int, rounds: int
) -> pd.DataFrame:
    """One row for each round and number of workers: total ``seconds``, ``items_per_second``, ``alike``."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default is 15; the single process has 0
    torch.set_num_threads(1)
    lalm = mi.LALM.from_pretrained(model)
    chosen = mi.load_benchmark("listening").split("confirmation").sample(items)
    conditions = {"baseline": None, "mata": mi.Mata(1.0, layers=lalm.attention_layers[3:5])}
    options: dict[str, Any] = {"batch_size": batch_size, "progress": False}
    first = mi.run(lalm, chosen, conditions, **options)  # warm up
    rows = []
    for turn in range(rounds):
        for count in [0, *workers] if turn % 2 == 0 else [*workers[::-1], 0]:
            folder = out / (f"ray-{count}" if count else "one-process")
            shutil.rmtree(folder, ignore_errors=True)
            if count:
                ray.init(num_cpus=max(workers), include_dashboard=False, log_to_driver=False)
            start = time.perf_counter()
            workers_option: Any = mi.RayWorkers(workers=count) if count else False
            run = mi.run(lalm, chosen, conditions, folder, ray=workers_option, **options)
            seconds = time.perf_counter() - start
            if count:
                ray.shutdown()
            rows.append(
                {
                    "round": turn,
                    "workers": count,
                    "way": f"{count} on Ray" if count else "one process",
                    "items": len(chosen),
                    "seconds": seconds,
                    "items_per_second": pace(folder),
                    "alike": run.records.equals(first.records),
                }
            )
    table = pd.DataFrame(rows)
    alone: Any = table[table["workers"] == 0].set_index("round")["items_per_second"]
    return table.assign(times=table["items_per_second"] / table["round"].map(alone))


def pace(folder: Path) -> float:
    """Items x conditions per second, between the first quarter and the last twentieth of the parts."""
    parts = sorted((folder / "parts").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    steady = parts[len(parts) // 4 : max(len(parts) * 19 // 20, len(parts) // 4 + 2)]
    seconds = steady[-1].stat().st_mtime - steady[0].stat().st_mtime
    return sum(len(pd.read_parquet(path, columns=["item"])) for path in steady[1:]) / max(seconds, 1e-9)


def main(
    items: Annotated[int, typer.Option(help="Largest number of items, from the confirmation split.")] = 160,
    workers: Annotated[str, typer.Option(help="Numbers of Ray workers, separated by commas.")] = "1,2",
    model: Annotated[str, typer.Option(help="Name, folder or hub id of the model.")] = "organism",
    batch_size: Annotated[int, typer.Option(help="Items in a batch.")] = 4,
    rounds: Annotated[int, typer.Option(help="Number of measurements of each, in turns.")] = 3,
    paper: Annotated[bool, typer.Option("--paper", help="Only the estimate; nothing is run.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the runs, the tables and the figure.")] = Path(
        "runs/scaling"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure, estimate, print, draw."""
    out.mkdir(parents=True, exist_ok=True)
    assumptions = Assumptions()
    papers = {"options of several tokens": assumptions, "letters": replace(assumptions, option_tokens=0)}
    table = pd.concat([on_paper(one).assign(answers=name) for name, one in papers.items()], ignore_index=True)
    table.to_csv(out / "on_paper.csv", index=False)
    measurements = None
    if not paper:
        measurements = measured(model, items, [int(n) for n in workers.split(",")], out, batch_size, rounds)
        measurements.to_csv(out / "measured.csv", index=False)
    draw(measurements, papers, out / "scaling.png")
    if as_json:
        rows = [] if measurements is None else measurements.to_dict("records")
        print(
            json.dumps(
                {"measured": rows, "on_paper": table.to_dict("records"), **asdict(assumptions)}, indent=1
            )
        )
        return
    if measurements is not None:
        medians = measurements.groupby("way", sort=False)[["seconds", "items_per_second", "times"]].median()
        print(f"Measured on this machine, one thread per worker, {measurements['items'].iloc[0]} items")
        print(f"(medians of {rounds} rounds; all tables identical: {bool(measurements['alike'].all())})\n")
        print(medians.to_string(float_format="%.2f"))
    for name in papers:
        print(
            f"\nEstimated, {name}: {assumptions.items:,} items, {assumptions.configurations} configurations\n"
        )
        frame = table[table["answers"] == name].drop(columns="answers")
        print(frame.to_string(index=False, float_format="%.2f"))
    print(f"\nFigure: {out / 'scaling.png'}")
    print("\nAssumptions: " + ", ".join(f"{name} {value:g}" for name, value in asdict(assumptions).items()))


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
