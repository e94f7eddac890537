"""How a run grows with workers: measured here for a few, and on paper for many GPUs.

Measured: one process, then Ray on this machine with 1 and 2 workers of one CPU and one thread each, on the
same items, conditions and batches; the tables must come out bit for bit alike. ``items_per_second`` is the
pace between the first quarter and the last twentieth of the parts, when all workers are at work;
``seconds`` is everything, the start of the workers and the check of the items included. Give it a quiet
machine with at least two free cores.

On paper: MMAU's 10,000 items under 100 configurations of a 7B model on 8, 64 and 512 GPUs, by counting
arithmetic and traffic of memory. Every number it starts from is a field of `Assumptions`, printed beside the
table; none of them was measured on a GPU by this project.

    python analyses/scaling.py
    python analyses/scaling.py --paper
    python analyses/scaling.py --items 240 --workers 1,2 --json
"""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer

import mata_interp as mi

GPUS = (8, 64, 512)


@dataclass(frozen=True)
class Assumptions:
    """Qwen2-Audio-7B in bfloat16 on GPUs of the A100 class, on the longest clips there are (30 s).

    Attributes:
        items, configurations: what is asked.
        prompt_tokens: 750 of audio (25 a second), the others words.
        option_tokens: of all options of an item together; 0 where the first token decides (letters).
        decoder, encoder: parameters that a decoder token, or an encoder frame, passes through.
        encoder_frames: of 30 s.
        shared: part of the layers that configurations share in a sweep, edits being in the middle ones.
        flops: of one GPU at its peak, per second.
        reading, rows: part of the peak that a prefill, and rows of single tokens in large blocks, reach.
        bandwidth: bytes of weights a second that a pass over few tokens reads, 70 % of the peak.
        batch: items in a batch.
        load: seconds until a worker holds the model; all load at once.
        check: seconds that the process that starts the run spends on each item before any GPU works.
        part: seconds it takes to receive and write one part.
    """

    items: int = 10_000
    configurations: int = 100
    prompt_tokens: int = 870
    option_tokens: int = 20
    options: int = 4
    decoder: float = 7.7e9
    encoder: float = 0.64e9
    encoder_frames: int = 1500
    shared: float = 0.3
    flops: float = 312e12
    reading: float = 0.4
    rows: float = 0.3
    bandwidth: float = 1.4e12
    batch: int = 16
    load: float = 120.0
    check: float = 0.03
    part: float = 0.005

    def seconds_an_item(self) -> dict[str, float]:
        """Of one GPU, for all configurations of one item, by method.

        - ``loop``: a whole forward for each configuration, options included.
        - ``run``: what `mi.run` does: the prompt read once, then for each configuration the last token and
          the options. These are passes over few tokens, so that reading the weights costs more than
          arithmetic; a batch shares it.
        - ``sweep``: what `mi.sweep` does: the same rows, all configurations at once, and only in the layers
          that they do not share.
        """
        prefill = 2 * self.decoder * self.prompt_tokens + 2 * self.encoder * self.encoder_frames
        read = prefill / (self.flops * self.reading)
        row_flops = 2 * self.decoder * (1 + self.option_tokens)
        rows = row_flops / (self.flops * self.rows)
        passes = 1 + (self.options if self.option_tokens else 0)
        weights = passes * 2 * self.decoder / self.bandwidth / self.batch
        return {
            "loop": self.configurations * (read + max(rows, weights)),
            "run": read + self.configurations * max(rows, weights),
            "sweep": read + (1 - self.shared) * self.configurations * rows,
        }

    def parts(self, method: str) -> int:
        """Files written: one a batch and condition; a sweep's results are one array a batch."""
        batches = math.ceil(self.items / self.batch)
        return batches if method == "sweep" else batches * self.configurations


def on_paper(given: Assumptions, gpus: tuple[int, ...] = GPUS) -> pd.DataFrame:
    """One row a method and number of GPUs: GPU hours, hours by the clock, and what holds it up.

    A batch is not divided, so the last round may leave GPUs idle; the process that started the run looks at
    every item first and writes every part, which overlaps with the answering.
    """
    rows = []
    for method, seconds in given.seconds_an_item().items():
        batches = math.ceil(given.items / given.batch)
        for count in gpus:
            answering = math.ceil(batches / count) * given.batch * seconds
            writing, checking = given.parts(method) * given.part, given.check * given.items
            stages = {answering: "answering", writing: "writing", checking: "checking"}
            whole = checking + given.load + max(answering, writing)
            rows.append(
                {
                    "method": method,
                    "gpus": count,
                    "gpu_hours": given.items * seconds / 3600,
                    "hours": whole / 3600,
                    "busy": given.items * seconds / (count * whole),
                    "longest": stages[max(stages)],
                }
            )
    return pd.DataFrame(rows)


def measured(model: str, items: int, workers: list[int], out: Path, batch_size: int) -> pd.DataFrame:
    """One row a way to run: seconds in all, items x conditions a second at full work, and whether alike."""
    import ray

    torch.set_num_threads(1)
    lalm = mi.LALM.from_pretrained(model)
    chosen = mi.load_benchmark("listening").split("confirmation").head(items)
    conditions = {"baseline": None, "mata": mi.Mata(1.0, layers=lalm.attention_layers[3:5])}
    rows, first = [], None
    for count in [0, *workers]:
        folder = out / (f"ray-{count}" if count else "one-process")
        shutil.rmtree(folder, ignore_errors=True)
        if count:
            ray.init(num_cpus=max(workers), include_dashboard=False, log_to_driver=False)
        start = time.perf_counter()
        spread: Any = mi.RayWorkers(workers=count) if count else False
        run = mi.run(lalm, chosen, conditions, folder, batch_size=batch_size, ray=spread)
        seconds = time.perf_counter() - start
        if count:
            ray.shutdown()
        first = run.records if first is None else first
        rows.append(
            {
                "workers": f"{count} on Ray" if count else "one process",
                "items": len(chosen),
                "seconds": seconds,
                "items_per_second": pace(folder),
                "alike": run.records.equals(first),
            }
        )
    table = pd.DataFrame(rows)
    table["times"] = table["items_per_second"] / table["items_per_second"].iloc[0]
    return table


def pace(folder: Path) -> float:
    """Items a second and condition between the first quarter and the last twentieth of the parts."""
    parts = sorted((folder / "parts").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    steady = parts[len(parts) // 4 : max(len(parts) * 19 // 20, len(parts) // 4 + 2)]
    seconds = steady[-1].stat().st_mtime - steady[0].stat().st_mtime
    return sum(len(pd.read_parquet(path, columns=["item"])) for path in steady[1:]) / max(seconds, 1e-9)


def main(
    items: Annotated[int, typer.Option(help="Items of the confirmation split that are answered.")] = 240,
    workers: Annotated[str, typer.Option(help="Numbers of Ray workers, comma-separated.")] = "1,2",
    model: Annotated[str, typer.Option(help="A model's name, folder or hub id.")] = "organism",
    batch_size: Annotated[int, typer.Option(help="Items in a batch.")] = 4,
    paper: Annotated[bool, typer.Option("--paper", help="Only the model on paper; nothing is run.")] = False,
    out: Annotated[Path, typer.Option(help="Run folders and tables go there.")] = Path("runs/scaling"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure, count, print."""
    out.mkdir(parents=True, exist_ok=True)
    given = Assumptions()
    letters = Assumptions(option_tokens=0)
    papers = {"options of several tokens": on_paper(given), "letters": on_paper(letters)}
    table = pd.concat([frame.assign(answers=name) for name, frame in papers.items()], ignore_index=True)
    table.to_csv(out / "on_paper.csv", index=False)
    found = None
    if not paper:
        found = measured(model, items, [int(n) for n in workers.split(",")], out, batch_size)
        found.to_csv(out / "measured.csv", index=False)
    if as_json:
        rows = [] if found is None else found.to_dict("records")
        print(json.dumps({"measured": rows, "on_paper": table.to_dict("records"), **asdict(given)}, indent=1))
        return
    if found is not None:
        print("Measured here, one thread a worker\n")
        print(found.to_string(index=False, float_format="%.2f"))
    for name, frame in papers.items():
        print(f"\nOn paper, {name}: {given.items:,} items x {given.configurations} configurations\n")
        print(frame.to_string(index=False, float_format="%.2f"))
    print("\nAssumed: " + ", ".join(f"{name} {value:g}" for name, value in asdict(given).items()))


if __name__ == "__main__":
    typer.run(main)
