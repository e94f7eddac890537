"""Run public paths on the pretend accelerator and compare them with the CPU; a program of its own.

    python -m tests.second_device.run RESULTS.json [--model organism] [--placement NAME ...] [--path NAME ...]

RESULTS.json holds, for each placement and path, the largest difference of each result from the CPU's,
relative to its largest number (at least 1), or what went wrong; and under "facts", what went wrong with the
accelerator itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mata_interp as mi
from mata_interp.lalm import LALM
from tests.second_device import accelerator
from tests.second_device.facts import FACTS
from tests.second_device.paths import PATHS, Result
from tests.second_device.placements import PLACEMENTS
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio


def load(model: str) -> LALM:
    """The model on the CPU."""
    if model == "tiny":
        return LALM(*tiny_qwen2_audio(seed=0), name="tiny")
    lalm = LALM.from_pretrained(model)
    lalm.model.to("cpu")
    return lalm


def load_items(model: str, folder: Path) -> list[mi.Item]:
    """Items of different length, from several clips."""
    if model == "tiny":
        return [
            item
            for item in make_items(folder, clips=4, splits=("selection",))
            if item.condition != "congruent"
        ][:4]
    return list(mi.load_benchmark("listening").split("selection")[:4])


def differences(result: Result, expected: Result) -> tuple[dict[str, float], list[str]]:
    """The largest relative difference of each array, and the names of all that has to be equal and is not."""
    apart: dict[str, float] = {}
    unequal = sorted(result.keys() ^ expected.keys())
    for name in result.keys() & expected.keys():
        a, b = result[name], expected[name]
        if not isinstance(b, np.ndarray):
            unequal += [] if a == b else [f"{name}: {a} != {b}"]
        elif a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            unequal.append(f"{name}: {a.shape} != {b.shape}, or other places are missing")
        elif b.size:
            size = max(1.0, np.nanmax(np.abs(np.where(np.isfinite(b), b, 0))))
            moved = np.where(np.isfinite(b), a - np.where(np.isfinite(b), b, 0), 0)
            apart[name] = float(np.abs(moved).max() / size)
    return apart, unequal


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--placement", nargs="*", default=list(PLACEMENTS))
    parser.add_argument("--path", nargs="*", default=list(PATHS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        accelerator.install()
        items = load_items(arguments.model, Path(folder))
        lalm = load(arguments.model)
        expected = {name: PATHS[name](lalm, items) for name in arguments.path}
        results: dict[str, dict[str, Any]] = {"facts": {name: problem(fact) for name, fact in FACTS.items()}}
        for placement in arguments.placement:
            lalm = load(arguments.model)
            PLACEMENTS[placement](lalm, Path(tempfile.mkdtemp(dir=folder)))
            results[placement] = {name: measure(lalm, items, name, expected[name]) for name in arguments.path}
            arguments.results.write_text(json.dumps(results, indent=1))


def problem(fact: Callable[[], None]) -> str:
    """Why a fact does not hold; "" if it does."""
    try:
        fact()
    except Exception:
        return traceback.format_exc()
    return ""


def measure(lalm: LALM, items: list[mi.Item], name: str, expected: Result) -> dict[str, Any]:
    """How far a path is from what it gives on the CPU, and the kernels that it launched."""
    try:
        with accelerator.counting() as counts:
            result = PATHS[name](lalm, items)
    except Exception:
        return {"error": traceback.format_exc()}
    apart, unequal = differences(result, expected)
    return {"differences": apart, "unequal": unequal, "kernels": counts.kernels}


if __name__ == "__main__":
    main()
