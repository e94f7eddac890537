"""What does the toolkit cost at the size of a real model? The true shape of Qwen2-Audio-7B, random weights.

A model of 32 layers, 4096 wide, 32 heads, with its vocabulary and its audio encoder (30 s of audio are 750
tokens), is written as sharded safetensors in bfloat16 and loaded like a download. Then check, trace, sweep,
listen and a study of a few items run on it, each in a process of its own. Time is relative to plain forward
passes in the same process, in turns; memory is the peak of the process beyond that of a forward pass. Random
weights say nothing about audio, but they cost what trained ones cost.

All 32 layers take 16 GB of disk, 17 GB of memory and about 17 s a forward pass on two CPU cores; --layers 4
runs in minutes. The costs of forward passes on a GPU are extrapolated from the number of operations, and
marked so. Stages that are done are kept: the same command continues.

\b
Examples
  python analyses/real_size.py --layers 4
  python analyses/real_size.py --layers 32 --stages trace,sweep --json
"""

from __future__ import annotations

import json
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from support.measuring import in_own_process, peak_bytes
from support.shape_of_qwen2_audio import SECONDS, build, operations

import mata_interp as mi
from mata_interp.errors import MataError, UncheckedWarning

STAGES = ("trace", "MATA", "sweep-search", "trace-text", "sweep", "listen", "check", "study")
GPU_FLOPS = 400e12  # bfloat16 operations a second that a current data-centre GPU sustains, assumed
ROUNDS = 3
RATE = 16_000  # Hz
ITEMS = 4  # of the study


def main(
    layers: Annotated[int, typer.Option(min=1, help="Decoder layers; the real model has 32.")] = 4,
    stages: Annotated[str, typer.Option(help="Which measurements, separated by commas.")] = ",".join(STAGES),
    out: Annotated[Path, typer.Option(help="Folder of the model and of the results.")] = Path(
        "runs/real-size"
    ),
    anew: Annotated[bool, typer.Option("--anew", help="Repeat measurements that are done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    stage: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Build the model, run the stages, print."""
    warnings.filterwarnings("ignore", category=UncheckedWarning)  # the check is one of the stages
    folder = out / f"{layers}-layers"
    if stage is not None:
        print(json.dumps(measured(folder, stage)))
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model" / "config.json").exists():
        build(folder / "model", layers)
    path = folder / "real_size.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not anew else {}
    result |= {"layers": layers, "threads": torch.get_num_threads()}
    result |= {"versions": {"torch": torch.__version__, "mata_interp": mi.__version__}}
    done = result.setdefault("stages", {})
    for name in (part.strip() for part in stages.split(",")):
        if name not in STAGES:
            raise typer.BadParameter(f"{name!r} is no stage: choose from {', '.join(STAGES)}.")
        if name not in done:
            done[name] = in_own_process(
                __file__, "--layers", str(layers), "--out", str(out), "--stage", name
            ) or {"error": "out of memory"}
            done[name]["commit"] = commit()
            path.write_text(json.dumps(result, indent=1) + "\n")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    print(table(result))
    print(f"\nThe result: {path}")


def clip(seconds: float = SECONDS) -> tuple[np.ndarray, int]:
    """A shipped clip, repeated to the length of a window of audio."""
    samples = mi.load_benchmark("listening")[0].load_audio(RATE).samples
    return np.resize(samples, round(seconds * RATE)), RATE


def question(number: int = 0, **fields: Any) -> mi.Item:
    """An item with 30 s of audio; each number is another clip."""
    samples, rate = clip()
    return mi.Item(
        audio=(np.roll(samples, 997 * number), rate),
        question="What is heard in the recording?",
        choices=["a dog", "a bell", "a piano", "a voice"],
        answer="a bell",
        id=f"item {number}",
        **fields,
    )


def measured(folder: Path, stage: str) -> dict[str, Any]:
    """Seconds of a stage, of a plain forward pass in this process, and peak memory beyond the model."""
    lalm = mi.LALM.from_pretrained(folder / "model")
    lalm.audio_alignment(lalm.prompt(question())).require(lalm.name)
    prompt = lalm.prompt(question())
    lalm.fingerprint()  # reads every weight, also rows of the embedding that no forward pass needs
    lalm.logits(prompt)
    after_plain = peak_bytes()
    task, rounds = tasks(lalm, prompt, folder)[stage], ROUNDS if stage in REPEATED else 1
    plain, times = [], []
    try:
        facts: dict[str, Any] = {}
        for _ in range(rounds):  # in turns, so that other work on the machine slows both
            plain.append(seconds_of(lambda: lalm.logits(prompt)))
            times.append(seconds_of(task, facts))
    except (MataError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {
        "tokens": prompt.width,
        "parameters": sum(weight.numel() for weight in lalm.model.parameters()),
        "forward_seconds": float(np.median(plain)),
        "seconds": float(np.median(times)),
        "ratio": float(np.median(np.divide(times, plain))),
        "ratios": np.divide(times, plain).tolist(),
        "peak_bytes": peak_bytes(),
        "peak_of_plain_forward": after_plain,
        "forward_seconds_on_a_gpu_extrapolated": operations(lalm, prompt.width) / GPU_FLOPS,
        **facts,
    }


REPEATED = ("trace", "trace-text", "MATA", "sweep", "sweep-search")


def seconds_of(task: Callable[[], Any], facts: dict[str, Any] | None = None) -> float:
    begin = time.perf_counter()
    result = task()
    if facts is not None and isinstance(result, dict):
        facts.update(result)
    return time.perf_counter() - begin


def tasks(lalm: mi.LALM, prompt: mi.Prompt, folder: Path) -> dict[str, Callable[[], Any]]:
    """Name -> the work; it returns what is worth recording besides its cost, or anything else."""
    published = mi.published_layers(lalm)
    everywhere = mi.Mata(0.1, lalm.attention_layers)

    def sweep(every: int = 1) -> dict[str, Any]:
        """The grid of a study; or a sixth of it, about as many as a coarse-to-fine search tries."""
        grid = mi.window_configs(lalm, widths=range(1, lalm.num_layers // 2 + 1))
        configurations = dict(list(grid.items())[::every])
        swept = mi.sweep(lalm, prompt, configurations, progress=False)
        return {
            "configurations": len(configurations),
            "canary_steps": swept.attrs["canary"],
            "looped": swept.attrs["looped"],
        }

    def check() -> dict[str, Any]:
        report = mi.check(lalm)
        return {
            "checks": {
                result.name: {
                    "verdict": result.verdict,
                    "measured": result.measured,
                    "difference": result.difference,
                    "bound": result.bound,
                }
                for result in report.results
            }
        }

    def listen() -> dict[str, Any]:
        item = question()
        result = mi.listen(lalm, clip(), item.question, item.choices, layers=published)
        result.save(folder / "listen.html")
        return {"page_bytes": (folder / "listen.html").stat().st_size}

    def study() -> dict[str, Any]:
        half = ITEMS // 2
        items = mi.load_benchmark("listening").filter(condition="conflict")  # one item of each clip
        chosen = [*items.split("selection").sample(half), *items.split("confirmation").sample(half)]
        run = mi.study(lalm, chosen, folder / "study", layers=published, batch_size=1, progress=False)
        return {"items": len(chosen), "records": len(run.records)}

    return {
        "trace": lambda: mi.trace(lalm, prompt, progress=False),
        "trace-text": lambda: mi.trace(lalm, prompt, "text", progress=False),
        "MATA": lambda: lalm.logits(prompt, everywhere),
        "sweep": sweep,
        "sweep-search": lambda: sweep(every=6),
        "check": check,
        "listen": listen,
        "study": study,
    }


def table(result: dict[str, Any]) -> str:
    """The stages as a table."""
    rows = []
    for name, stage in result["stages"].items():
        if "error" in stage:
            rows.append({"stage": name, "note": stage["error"][:60]})
            continue
        extra = stage["peak_bytes"] - stage["peak_of_plain_forward"]
        rows.append(
            {
                "stage": name,
                "seconds": round(stage["seconds"], 1),
                "forwards": round(stage["ratio"], 2),
                "memory beyond a forward, MB": round(extra / 1e6),
                "note": "",
            }
        )
    first = next((stage for stage in result["stages"].values() if "error" not in stage), None)
    head = f"{result['layers']} layers"
    if first:
        head += (
            f", {first['parameters'] / 1e9:.1f} billion parameters, {first['tokens']} tokens: a forward pass "
            f"takes {first['forward_seconds']:.1f} s here (extrapolated to a GPU that sustains "
            f"{GPU_FLOPS / 1e12:.0f} TFLOP/s: {first['forward_seconds_on_a_gpu_extrapolated']:.3f} s)"
        )
    return f"{head}\n\n{pd.DataFrame(rows).to_string(index=False)}"


def commit() -> str:
    """The commit of this checkout; empty outside of one."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip()


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
