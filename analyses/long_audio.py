"""How do time and memory grow with the length of the audio? Prompts of 500 to 16,000 tokens, up to ten
minutes of audio.

A Qwen2-Audio of 12 layers with random weights gets clips of 30 s, 25 tokens a second, in one prompt. Each
point is measured in a process of its own: the fastest of a few runs, and peak memory. Points are saved as
they are measured, so the same command continues an interrupted run (--anew starts again). The T x T matrices
of eager attention do not fit into memory where the package's memory still grows linearly with T; the memory
that eager attention would need beyond this machine's is calculated, not measured, and marked so. About half
an hour on a CPU.

\b
Examples
  python analyses/long_audio.py
  python analyses/long_audio.py --longest 160 --json
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.measuring import in_own_process, peak_bytes
from support.medium import ask, medium_lalm
from support.rivals import RIVALS, rival
from tqdm import tqdm

import mata_interp as mi
from mata_interp.errors import UncheckedWarning
from mata_interp.lalm.memory import free_bytes

mpl.use("Agg")

BAR_FORMAT = "{desc}: {percentage:3.0f}% {bar} {elapsed}, {remaining} left"
SECONDS = (20, 40, 80, 160, 320, 640)  # length of the audio; 500 to 16,000 tokens
LAYERS, HEADS = 12, 8
EAGER = RIVALS[0]
METHODS = {
    "plain forward": "#7f7f7f",
    "trace, last query": "#56b4e9",
    "trace, text queries": "#0072b2",
    "trace, every token a query": "#003554",
    "sweep of 100 configurations": "#009e73",
    EAGER: "#d55e00",
}
"""Method -> colour."""


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figure and the table.")] = Path("runs/long-audio"),
    longest: Annotated[float, typer.Option(help="Longest audio in seconds.")] = SECONDS[-1],
    busy: Annotated[
        bool, typer.Option("--busy", help="Measure CPU time, which other processes affect less.")
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Discard saved points and start again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    point: Annotated[tuple[str, float] | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure every method at every length, print, draw."""
    warnings.filterwarnings("ignore", category=UncheckedWarning)  # the model has random weights
    if point is not None:
        print(json.dumps(measure(*point, time.process_time if busy else time.perf_counter)))
        return
    out.mkdir(parents=True, exist_ok=True)
    table: Any = pd.DataFrame(points(out / "points.jsonl", longest, busy, anew))
    table.to_csv(out / "long_audio.csv", index=False)
    draw(table, out / "long_audio.png")
    if as_json:
        print(table.to_json(orient="records", indent=1))
        return
    for what, unit in (("seconds", "s"), ("gigabytes", "GB peak")):
        print(f"{unit}\n{table.pivot_table(what, 'method', 'tokens', sort=False).round(2).to_string()}\n")
    for one in table[~table["measured"]].to_dict("records"):
        print(f"{one['method']}: {one['tokens']:,} tokens would need {one['gigabytes']:.0f} GB (not run).")
    print(f"Figure and table: {out}")


def points(saved: Path, longest: float, busy: bool, anew: bool) -> list[dict[str, Any]]:
    """Measure every method at every length up to ``longest``; each point is saved once it is measured."""
    made = {"clock": "processor" if busy else "wall", "threads": torch.get_num_threads()}
    made |= {"torch": torch.__version__, "mata_interp": mi.__version__}
    if anew:
        saved.unlink(missing_ok=True)
    known = []
    for line in saved.read_text().splitlines() if saved.exists() else ():
        with suppress(json.JSONDecodeError):  # the last line may be incomplete
            known.append(json.loads(line))
    if other := next((point for point in known if point["made"] != made), None):
        raise typer.BadParameter(
            f"{saved} has {other['made']}, and this run {made}: give --anew or another --out."
        )
    done = {(point["method"], point["audio_seconds"]): point for point in known}
    required = [(method, seconds) for seconds in SECONDS if seconds <= longest for method in METHODS]
    saved.write_text("".join(json.dumps(point) + "\n" for point in known))
    bar = tqdm(total=sum(_effort(s) for _, s in required), bar_format=BAR_FORMAT, mininterval=2)
    for method, seconds in required:
        bar.set_description(f"{method}, {seconds} s")
        if (method, seconds) not in done:
            done[method, seconds] = row(method, seconds, busy) | {"made": made}
            with saved.open("a") as file:
                file.write(json.dumps(done[method, seconds]) + "\n")
        bar.update(_effort(seconds))
    bar.close()
    return [{n: x for n, x in done[point].items() if n != "made"} for point in required]


def _effort(seconds: float) -> float:
    """Relative duration of a point, for the progress bar: quadratic in the audio, and a process to start."""
    return 220**2 + seconds**2


def row(method: str, seconds: float, busy: bool) -> dict[str, object]:
    """One method at one length; the memory that it would need, if there is not enough."""
    clips = -(-seconds // 30)
    tokens = int(1 + 25 * seconds + 2 * clips + 48)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    base: dict[str, object] = {
        "method": method,
        "audio_seconds": seconds,
        "tokens": tokens,
        "machine_gigabytes": machine,
    }
    # float32 weights of all layers are returned, and the scores of one layer exist at the same time
    needed = 4 * HEADS * tokens**2 * (LAYERS + 2)
    fits = method != EAGER or needed < 0.8 * free_bytes(torch.device("cpu"))
    measurement = (
        in_own_process(__file__, "--point", method, str(seconds), *["--busy"] * busy) if fits else None
    )
    if measurement is None:
        return base | {"seconds": None, "gigabytes": needed / 1e9, "measured": False}
    assert measurement["tokens"] == tokens
    return base | {
        "seconds": measurement["seconds"],
        "gigabytes": measurement["peak_bytes"] / 1e9,
        "measured": True,
    }


@torch.inference_mode()
def measure(method: str, seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """Measure in this process: seconds of the fastest of a few runs, and peak memory."""
    lalm = medium_lalm()
    prompt = ask(lalm, seconds)
    if method == EAGER:
        del lalm
        task = rival(EAGER, seconds)
    else:
        task = tasks(lalm, prompt)[method]
    times = []
    while not times or (sum(times) < 3 and len(times) < 5):
        begin = clock()
        task()
        times.append(clock() - begin)
    return {"tokens": prompt.width, "seconds": min(times), "peak_bytes": peak_bytes()}


def tasks(lalm: mi.LALM, prompt: mi.Prompt) -> dict[str, Callable[[], object]]:
    """Name -> task, on the model with SDPA attention."""
    some = dict(list(mi.window_configs(lalm, alphas=(0.3, 1.0)).items())[:100])
    words = ask(lalm, 0.08, prompt.width - 5)  # two tokens of audio, all others text
    return {
        "plain forward": lambda: lalm.model(**prompt.inputs, use_cache=False),
        "trace, last query": lambda: mi.trace(lalm, prompt, progress=False),
        "trace, text queries": lambda: mi.trace(lalm, prompt, "text", progress=False),
        "trace, every token a query": lambda: mi.trace(lalm, words, "text", progress=False),
        "sweep of 100 configurations": lambda: mi.sweep(lalm, prompt, some, progress=False),
    }


def draw(table: Any, path: Path) -> None:
    """Memory and time against the length of the prompt."""
    sns.set_theme(style="ticks", context="paper", font="DejaVu Sans")
    figure = Figure(figsize=(7.4, 3.3), layout="constrained")
    memory, seconds = figure.subplots(1, 2)
    memory.set_title("a   Peak memory, GB", loc="left", fontsize=9)
    seconds.set_title("b   Time, s", loc="left", fontsize=9)
    for axes, what in ((memory, "gigabytes"), (seconds, "seconds")):
        axes.set(xscale="log", yscale="log", xlabel="tokens in the prompt, 25 a second of audio")
        _lines(axes, table, what)
        ticks = sorted(table["tokens"].unique())
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30, ha="right")
        axes.tick_params(labelsize=7.5)
        axes.xaxis.label.set_size(8)
        axes.minorticks_off()
        sns.despine(ax=axes)
    if "machine_gigabytes" in table and (~table["measured"]).any():
        size = table["machine_gigabytes"].iloc[0]
        memory.axhline(size, color="0.5", linewidth=0.7, linestyle=":")
        place = {"xy": (table["tokens"].min(), size), "xytext": (0, 3), "textcoords": "offset points"}
        memory.annotate(f"this machine's memory, {size:.0f} GB", **place, fontsize=7, color="0.35")
    figure.legend(
        *seconds.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=7.5
    )
    figure.savefig(path, dpi=200)


def _lines(axes: Axes, table: Any, what: str) -> None:
    for method, colour in METHODS.items():
        rows = table[table["method"] == method]
        measured = rows[rows["measured"]]
        axes.plot(measured["tokens"], measured[what], "o-", color=colour, markersize=3.5, label=method)
        beyond = rows[~rows["measured"]]
        if what == "gigabytes" and len(beyond):
            joined = pd.concat([measured.tail(1), beyond])
            axes.plot(joined["tokens"], joined[what], "--", color=colour, linewidth=1)
            axes.plot(
                beyond["tokens"], beyond[what], "o", color=colour, markersize=4, markerfacecolor="white"
            )
            place = {"xy": (beyond["tokens"].iloc[-1], beyond[what].iloc[-1]), "textcoords": "offset points"}
            axes.annotate(
                "not run: calculated", **place, xytext=(-7, 0), ha="right", fontsize=7, color=colour
            )
    low, high = axes.get_ylim()
    ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000) if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
