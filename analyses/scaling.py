"""How a run grows with workers: measured here for a few, and on paper for many GPUs.

Measured: one process, then Ray on this machine with 1 and 2 workers of one CPU and one thread each, on the
same items, conditions and batches; the tables must come out bit for bit alike. ``items_per_second`` is the
pace between the first quarter and the last twentieth of the parts, when all workers are at work;
``seconds`` is everything, the start of the workers and the check of the items included; ``times`` is the
pace relative to the one process of the same round. Give it a quiet machine with at least two free cores.

On paper: MMAU's 10,000 items under 100 configurations of a 7B model on 8, 64 and 512 GPUs, by counting
arithmetic and traffic of memory. Every number it starts from is a field of `Assumptions`, printed beside the
table; none of them was measured on a GPU by this project.

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
    """One row a round and way to run: ``seconds`` in all, ``items_per_second`` at full work, ``alike``."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 in Ray: the one process has 0
    torch.set_num_threads(1)
    lalm = mi.LALM.from_pretrained(model)
    chosen = mi.load_benchmark("listening").split("confirmation").sample(items)
    conditions = {"baseline": None, "mata": mi.Mata(1.0, layers=lalm.attention_layers[3:5])}
    how: dict[str, Any] = {"batch_size": batch_size, "progress": False}
    first = mi.run(lalm, chosen, conditions, **how)  # warm: no way pays for what all share
    rows = []
    for turn in range(rounds):
        for count in [0, *workers] if turn % 2 == 0 else [*workers[::-1], 0]:
            folder = out / (f"ray-{count}" if count else "one-process")
            shutil.rmtree(folder, ignore_errors=True)
            if count:
                ray.init(num_cpus=max(workers), include_dashboard=False, log_to_driver=False)
            start = time.perf_counter()
            spread: Any = mi.RayWorkers(workers=count) if count else False
            run = mi.run(lalm, chosen, conditions, folder, ray=spread, **how)
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
    """Items x conditions a second between the first quarter and the last twentieth of the parts."""
    parts = sorted((folder / "parts").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    steady = parts[len(parts) // 4 : max(len(parts) * 19 // 20, len(parts) // 4 + 2)]
    seconds = steady[-1].stat().st_mtime - steady[0].stat().st_mtime
    return sum(len(pd.read_parquet(path, columns=["item"])) for path in steady[1:]) / max(seconds, 1e-9)


def main(
    items: Annotated[int, typer.Option(help="Items of the confirmation split that are answered.")] = 160,
    workers: Annotated[str, typer.Option(help="Numbers of Ray workers, comma-separated.")] = "1,2",
    model: Annotated[str, typer.Option(help="A model's name, folder or hub id.")] = "organism",
    batch_size: Annotated[int, typer.Option(help="Items in a batch.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often each way is measured, in turns.")] = 3,
    paper: Annotated[bool, typer.Option("--paper", help="Only the model on paper; nothing is run.")] = False,
    out: Annotated[Path, typer.Option(help="Run folders and tables go there.")] = Path("runs/scaling"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure, count, print."""
    out.mkdir(parents=True, exist_ok=True)
    given = Assumptions()
    papers = {"options of several tokens": given, "letters": replace(given, option_tokens=0)}
    table = pd.concat([on_paper(one).assign(answers=name) for name, one in papers.items()], ignore_index=True)
    table.to_csv(out / "on_paper.csv", index=False)
    found = None
    if not paper:
        found = measured(model, items, [int(n) for n in workers.split(",")], out, batch_size, rounds)
        found.to_csv(out / "measured.csv", index=False)
    draw(found, papers, out / "scaling.png")
    if as_json:
        rows = [] if found is None else found.to_dict("records")
        print(json.dumps({"measured": rows, "on_paper": table.to_dict("records"), **asdict(given)}, indent=1))
        return
    if found is not None:
        medians = found.groupby("way", sort=False)[["seconds", "items_per_second", "times"]].median()
        print(f"Measured here, one thread a worker, {found['items'].iloc[0]} items")
        print(f"(medians of {rounds} rounds; all tables alike: {bool(found['alike'].all())})\n")
        print(medians.to_string(float_format="%.2f"))
    for name in papers:
        print(f"\nOn paper, {name}: {given.items:,} items x {given.configurations} configurations\n")
        frame = table[table["answers"] == name].drop(columns="answers")
        print(frame.to_string(index=False, float_format="%.2f"))
    print(f"\nThe figure: {out / 'scaling.png'}")
    print("\nAssumed: " + ", ".join(f"{name} {value:g}" for name, value in asdict(given).items()))


if __name__ == "__main__":
    typer.run(main)
