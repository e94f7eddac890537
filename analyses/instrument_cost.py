"""What do the instruments cost? Time and memory relative to a plain forward pass, and a sweep relative to a
loop.

Measured on a Qwen2-Audio of 12 layers with random weights and a prompt with 30 s of audio; nothing is
downloaded. All tasks take turns in one process, so that they can be compared; peak memory is measured in
separate processes. About ten minutes on a CPU; leave the machine idle for figures to report. An interrupted
run starts again.

\b
Examples
  python analyses/instrument_cost.py
  python analyses/instrument_cost.py --json
  python analyses/instrument_cost.py --quick       one second of audio and one round, to try it
  python analyses/instrument_cost.py --counts      kernels, copies and waits on an accelerator, counted
  python analyses/instrument_cost.py --estimates   only operations of a token, and attribution patching
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from support.attribution_patching import (
    as_published,
    compare,
    compare_patches,
    estimated_heads,
    flops_of_heads,
)
from support.cost_figure import draw
from support.counting import count_all
from support.measuring import in_own_process, interleaved, peak_bytes, quartiles
from support.medium import ask, medium_lalm
from support.operations import token_operations
from support.rivals import RIVALS, rival
from tqdm import tqdm

import mata_interp as mi
from mata_interp.errors import RunError, UncheckedWarning
from mata_interp.fusion.criteria import CRITERIA
from mata_interp.fusion.item_context import Decision, ItemContext
from mata_interp.fusion.recommend import DECIDING
from mata_interp.sweeps import by_alpha

LAYERS = range(4, 9)  # of 12: 36 to 71 % of the depth, as the published layers 10 to 20 of 28
NEW_TOKENS = 33
COUNTS = (1, 10, 100, 1000)  # configurations of a sweep

TARGETS = {  # largest acceptable cost ratio
    "trace": 1.03,
    "trace, all queries": 1.6,
    "MATA, forward": 1.03,
    "MATA, generate": 1.05,
    "MATA, attached": 1.05,
    "layer criteria, last query": 1.5,
    "sweep, 234 windows x alphas": 1.10,
    "sweep, 96 knockouts": 1.15,
    "sweep, 1000": 2.0,
}
MEMORY_TARGETS = {"trace": 1.05, "layer criteria, window": 1.5}
TRANSFORMERS = "transformers, generate"  # baseline of generation
PER_TOKEN = (
    TRANSFORMERS,
    "generate",
    "MATA, generate",
    "MATA, generate, all layers",
    "MATA, attached",
    "MATA, attached, all layers",
)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figure, the table and the JSON.")] = Path(
        "runs/instrument-cost"
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Number of times that each task is timed.")] = 9,
    quick: Annotated[bool, typer.Option("--quick", help="A small trial; not for figures to report.")] = False,
    busy: Annotated[
        bool, typer.Option("--busy", help="Measure CPU time, which other processes affect less.")
    ] = False,
    counts: Annotated[
        bool,
        typer.Option(
            "--counts",
            help="Instead: count kernels, copies to an accelerator and waits for it, on the pretend "
            "accelerator of the tests. It needs a C++ compiler and no accelerator.",
        ),
    ] = False,
    estimates: Annotated[
        bool,
        typer.Option(
            "--estimates",
            help="Instead: operations of a generated token, and attribution patching against the exact map "
            "of heads. Nothing is timed, so that other processes do not matter.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    peak_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, print, draw."""
    warnings.filterwarnings("ignore", category=UncheckedWarning)  # the model has random weights
    if counts:
        print_counts(as_json)
        return
    seconds = 1.0 if quick else 30.0
    if peak_of is not None:
        print(json.dumps(peak(peak_of, seconds)))
        return
    untimed = {"operations": operations_of_a_token(seconds), "heads": heads_by_attribution(quick)}
    if estimates:
        print(json.dumps(untimed, indent=1)) if as_json else show_untimed(untimed)
        return
    out.mkdir(parents=True, exist_ok=True)
    rounds = 1 if quick else rounds
    table, width = costs(seconds, rounds, quick, time.process_time if busy else time.perf_counter)
    table = table.merge(memory(quick), on="name", how="left")
    reached = table[table["target"].notna()].set_index("name")
    memory_ratio: Any = table.set_index("name")["memory_ratio"].dropna()
    result = {
        "tokens": width,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "quick": quick,
        "clock": "processor" if busy else "wall",
        "versions": {"torch": torch.__version__, "mata_interp": mi.__version__},
        "targets_reached": {str(n): bool(ok) for n, ok in (reached["ratio"] <= reached["target"]).items()},
        "memory_targets_reached": {
            name: bool(memory_ratio[name] <= target)
            for name, target in MEMORY_TARGETS.items()
            if name in memory_ratio
        },
        "rows": json.loads(table.to_json(orient="records")),
        **untimed,
    }
    table.to_csv(out / "instrument_cost.csv", index=False)
    (out / "instrument_cost.json").write_text(json.dumps(result, indent=1))
    draw(table, width, out / "instrument_cost.png")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    show(table, width)
    show_untimed(untimed)
    print(f"\nFigure, table and JSON: {out}")


def configurations(count: int) -> dict[str, mi.AttentionEdit]:
    """``count`` different configurations, spread over all windows; 234 are 78 windows x 3 alphas."""
    windows = [tuple(range(i, j)) for i in range(12) for j in range(i + 1, 13)]
    alphas = [round(0.1 * (k + 1), 1) for k in range(-(-count // len(windows)))]
    every = list(by_alpha(windows, alphas).items())
    return dict(every[i * len(every) // count] for i in range(count))


def tasks(lalm: mi.LALM, seconds: float) -> dict[str, Callable[[], object]]:
    """Name -> task, on the model with SDPA attention."""
    prompt = ask(lalm, seconds)
    # as long, with text after two tokens of audio: every token is a query
    words = ask(lalm, 0.08, prompt.width - 5)
    assert words.width == prompt.width
    mata, everywhere = mi.Mata(0.1, LAYERS), mi.Mata(0.1, range(12))
    features = prompt.inputs["input_features"]
    other = replace(prompt, inputs={**prompt.inputs, "input_features": features.flip(-1)})

    def plain(longer: int = 0) -> Callable[[], object]:
        longer_prompt = ask(lalm, seconds, 48 + longer)
        return lambda: lalm.model(**longer_prompt.inputs, use_cache=False)

    def sweep(configured: dict[str, mi.AttentionEdit]) -> Callable[[], object]:
        return lambda: mi.sweep(lalm, prompt, configured, progress=False)

    def generate(tokens: int, intervention: mi.AttentionEdit | None = None) -> Callable[[], object]:
        return lambda: lalm.generate(prompt, intervention, max_new_tokens=tokens)

    def generate_with_transformers(
        tokens: int, intervention: mi.AttentionEdit | None = None
    ) -> Callable[[], object]:
        def run() -> None:
            with mi.attach(lalm.model, intervention) if intervention else nullcontext():
                lalm.model.generate(**prompt.inputs, max_new_tokens=tokens, do_sample=False)

        return run

    def criteria(names: list[str]) -> Callable[[], object]:
        """Measure layer criteria on one item, prefill included; windows come from all items later."""

        def measure() -> None:
            last_token_only = not any(CRITERIA[name].runs_suffix for name in names)
            decision = Decision(right=5, wrong=7)
            context = ItemContext(lalm, prompt, decision, other, last_token_only=last_token_only)
            for name in names:
                CRITERIA[name].measure(context)

        return measure

    # restoration at the last token needs a prefill of the other audio, and is measured with all criteria
    at_last = [
        n for n, c in CRITERIA.items() if c.reads == "out at the last token" and "restoration" not in n
    ]

    return {
        "plain": plain(),
        "trace": lambda: mi.trace(lalm, prompt, progress=False),
        "trace, text queries": lambda: mi.trace(lalm, prompt, "text", progress=False),
        "trace, all queries": lambda: mi.trace(lalm, words, "text", progress=False),
        "MATA, forward": lambda: lalm.logits(prompt, mata),
        "MATA, forward, all layers": lambda: lalm.logits(prompt, everywhere),
        f"{TRANSFORMERS} 1": generate_with_transformers(1),
        TRANSFORMERS: generate_with_transformers(NEW_TOKENS),
        "generate 1": generate(1),
        "generate": generate(NEW_TOKENS),
        "MATA, generate 1": generate(1, mata),
        "MATA, generate": generate(NEW_TOKENS, mata),
        "MATA, generate, all layers 1": generate(1, everywhere),
        "MATA, generate, all layers": generate(NEW_TOKENS, everywhere),
        "MATA, attached 1": generate_with_transformers(1, mata),
        "MATA, attached": generate_with_transformers(NEW_TOKENS, mata),
        "MATA, attached, all layers 1": generate_with_transformers(1, everywhere),
        "MATA, attached, all layers": generate_with_transformers(NEW_TOKENS, everywhere),
        "layer criteria, window": criteria(list(DECIDING)),
        "layer criteria, last query": criteria(at_last),
        "layer criteria, all": criteria(list(CRITERIA)),
        **{f"sweep, {count}": sweep(configurations(count)) for count in COUNTS},
        "sweep, 234 windows x alphas": sweep(configurations(234)),
        "sweep, 96 knockouts": sweep(mi.head_configs(lalm)),
        **{f"floor, {count}": plain(count) for count in (*COUNTS, 96, 234)},
        "attribution patching, 96 heads": lambda: estimated_heads(
            ItemContext(lalm, prompt, Decision(right=5, wrong=7), last_token_only=True, keep_states=False)
        ),
        "attribution patching, as published": lambda: as_published(
            lalm, prompt, other, Decision(right=5, wrong=7)
        ),
        "loop, 1": lambda: lalm.logits(prompt, mata),
        "loop, 10": lambda: [lalm.logits(prompt, one) for one in configurations(10).values()],
    }


def costs(seconds: float, rounds: int, quick: bool, clock: Callable[[], float]) -> tuple[Any, int]:
    """Seconds of each task and its ratio to a baseline in the same round; number of tokens of the prompt."""
    lalm = medium_lalm()
    every = {**tasks(lalm, seconds), **{name: rival(name, seconds) for name in RIVALS}}
    seldom = {"loop, 10": min(rounds, 3), "transformer-lens, all": min(rounds, 4)}
    seldom["layer criteria, all"] = min(rounds, 3)
    if quick:
        every = {name: task for name, task in every.items() if not name.endswith("1000")}
    with torch.no_grad():
        times = interleaved(every, rounds, seldom, clock)
    rows = []
    for name, seconds_of_task in times.items():
        if name.removesuffix(" 1") in PER_TOKEN and name.endswith(" 1"):
            continue
        base = times["plain"]
        if name in PER_TOKEN:  # per token: without the first token, whose cost includes the prefill
            seconds_of_task = (seconds_of_task - times[f"{name} 1"]) / (NEW_TOKENS - 1)
            base = (times[TRANSFORMERS] - times[f"{TRANSFORMERS} 1"]) / (NEW_TOKENS - 1)
        rows.append(_row(name, seconds_of_task, base))
    for count in COUNTS[2:]:  # linear in their number; measuring them would take minutes
        rows.append(_row(f"loop, {count}", times["loop, 10"] * count / 10, times["plain"], extrapolated=True))
    return pd.DataFrame(rows), ask(lalm, seconds).width


def operations_of_a_token(seconds: float) -> list[dict[str, Any]]:
    """Operations of a token with MATA in 5 of 12 layers and in all, on the medium model."""
    lalm = medium_lalm()
    edits = {"MATA in 5 of 12 layers": mi.Mata(0.1, LAYERS), "MATA in all layers": mi.Mata(0.1, range(12))}
    return token_operations(lalm, ask(lalm, seconds), edits)


def heads_by_attribution(quick: bool) -> dict[str, Any]:
    """Attribution patching against the exact maps of heads: agreement on the organism, cost at 801 tokens."""
    lalm, medium = mi.LALM.from_pretrained("organism"), medium_lalm()
    items = mi.load_benchmark("listening").filter(condition="conflict").split("selection")
    some = items.sample(6 if quick else 48)
    prompt = ask(medium, 1.0 if quick else 30.0)
    return {
        "knockout": compare(lalm, some),
        "patch": compare_patches(lalm, some),
        "flops": flops_of_heads(medium, prompt),
    }


def _row(name: str, seconds: Any, base: Any, extrapolated: bool = False) -> dict[str, Any]:
    low, middle, high = quartiles(seconds)
    ratio_low, ratio, ratio_high = quartiles(seconds / base)
    return {
        "name": name,
        "seconds": middle,
        "seconds_low": low,
        "seconds_high": high,
        "ratio": ratio,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "of": "a generated token" if name in PER_TOKEN else "a plain forward",
        "target": TARGETS.get(name),
        "extrapolated": extrapolated,
    }


MEMORY = (
    "plain",
    "trace",
    "trace, text queries",
    "trace, all queries",
    "MATA, forward",
    "layer criteria, window",
    "layer criteria, last query",
    "layer criteria, all",
    "sweep, 96 knockouts",
    "sweep, 234 windows x alphas",
    "sweep, 1000",
    *RIVALS,
)


@torch.no_grad()
def peak(name: str, seconds: float) -> dict[str, int]:
    """Peak memory of this process in bytes, before and after running one task three times."""
    task = rival(name, seconds) if name in RIVALS else tasks(medium_lalm(), seconds)[name]
    before = peak_bytes()
    for _ in range(3):
        task()
    return {"before": before, "after": peak_bytes()}


def memory(quick: bool) -> Any:
    """Peak memory of a process that runs one task, and its ratio to one that runs plain forward passes."""
    names = ("plain", "trace") if quick else MEMORY
    options = ["--quick"] if quick else []
    peaks_by_task = {
        name: in_own_process(__file__, "--peak-of", name, *options)
        for name in tqdm(names, "peak memory", unit="process")
    }
    table: Any = pd.DataFrame(
        [{"name": name, "peak_bytes": peaks and peaks["after"]} for name, peaks in peaks_by_task.items()]
    )
    return table.assign(memory_ratio=table["peak_bytes"] / table["peak_bytes"].iloc[0])


def print_counts(as_json: bool) -> None:
    """Print what the instruments ask of an accelerator."""
    try:
        rows = count_all()
    except RunError as error:
        raise typer.BadParameter(str(error), param_hint="--counts") from error
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'':52}{'kernels':>9}{'copies to it':>14}{'waits':>7}   target reached")
    for row in rows:
        numbers = f"{row['kernels']:9.5g}{row['copies_to_device']:14.5g}{row['synchronisations']:7.5g}"
        verdict = {None: "", True: "yes", False: "no"}[row["reached"]]
        print(f"{row['name']:52}{numbers}   {verdict}")


def show_untimed(untimed: dict[str, Any]) -> None:
    """Print what was counted and compared."""
    print("\noperations of a generated token, views not counted")
    for row in untimed["operations"]:
        print(f"  {row['name']:36}{row['operations']:8.1f}{row['ratio']:9.3f}")
    heads = untimed["heads"]
    print("\nfloating-point operations, relative to a plain forward pass")
    for name, ratio in heads["flops"].items():
        print(f"  {name:52}{ratio:8.3f}")
    print("\nrank correlation of attribution patching with the exact map of heads (organism)")
    for name in ("knockout", "patch"):
        row = heads[name]
        print(
            f"  {name:10}{row['rho']:6.3f} (95 % interval {row['low']:.3f} to {row['high']:.3f}) over "
            f"{row['items']} items of {row['clips']} clips, {row['left_out']} left out; median of items "
            f"{row['rho_of_items']:.3f}"
        )


def show(table: Any, width: int) -> None:
    """Print the table."""
    print(f"T = {width} tokens, {torch.get_num_threads()} thread(s); times are medians with quartiles\n")
    print(f"{'':34}{'seconds':>9}{'ratio':>9}   {'quartiles':<17}{'target':>7}  {'peak memory':>12}")
    for row in table.to_dict("records"):
        spread = f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}"
        target = "" if pd.isna(row["target"]) else f"{row['target']:.2f}"
        verdict = "" if not target else (" yes" if row["ratio"] <= row["target"] else "  no")
        bytes_ = "" if pd.isna(row["peak_bytes"]) else f"{row['peak_bytes'] / 1e6:,.0f} MB"
        name = row["name"] + (" (extrapolated)" if row["extrapolated"] else "")
        numbers = f"{row['seconds']:9.4f}{row['ratio']:9.3f}   {spread:<17}{target:>7}{verdict:4}"
        print(f"{name:34}{numbers}{bytes_:>10}")
    print("\nratio: to a plain forward pass in the same round; of generation, to a token generated by")
    print("transformers alone.")
    print(
        "floor, C: a plain forward pass of T + C tokens.  loop, C: C forward passes, each with another edit."
    )


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
