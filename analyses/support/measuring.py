"""Interleaved timing, and peak memory of separate processes."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mata_interp.errors import RunError

__all__ = ["in_own_process", "interleaved", "peak_bytes", "quartiles"]


def interleaved(
    tasks: Mapping[str, Callable[[], object]],
    rounds: int,
    seldom: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds of every task in every round. The tasks take turns, so that a slow minute affects all of them.

    Args:
        tasks: name -> task; each is run once before timing, which also gives the estimate of the progress
            bar.
        rounds: number of measurements of each task.
        seldom: name -> number of rounds, for slow tasks that run in fewer rounds.
        clock: returns seconds.

    Returns:
        Name -> float ``[rounds]``, NaN for rounds without the task.
    """
    often = {name: (seldom or {}).get(name, rounds) for name in tasks}
    seconds = {name: np.full(rounds, np.nan) for name in tasks}

    def timed(name: str) -> float:
        begin = clock()
        tasks[name]()
        return clock() - begin

    first = {name: timed(name) for name in tqdm(tasks, "first run of each", unit="task", mininterval=2)}
    whole = sum(first[name] * often[name] for name in tasks)
    bar_format = "{desc}: {percentage:3.0f}% {bar} {elapsed}, {remaining} left"
    with tqdm(total=whole, desc="in turns", bar_format=bar_format, mininterval=2) as bar:
        for turn in range(rounds):
            bar.set_description(f"round {turn + 1} of {rounds}")
            # the order alternates, so that each task follows different ones, which leave different CPU caches
            for name in list(tasks) if turn % 2 == 0 else list(tasks)[::-1]:
                if turn < often[name]:
                    seconds[name][turn] = timed(name)
                    bar.update(first[name])
    return seconds


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, without NaN."""
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def peak_bytes() -> int:
    """Peak memory of this process so far, in bytes.

    On Linux this is VmHWM. The portable ``ru_maxrss`` includes the parent process at the time of the fork, so
    it is too large for a small child of a large parent.
    """
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(match[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def in_own_process(script: str, *arguments: str) -> dict[str, Any] | None:
    """Run a script in a process of its own; the JSON it prints, or None if it ran out of memory."""
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == -9 or "not enough memory" in done.stderr or "MemoryError" in done.stderr:
        return None
    if done.returncode:
        raise RunError(f"{Path(script).name} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
