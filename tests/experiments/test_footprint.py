"""Memory while ten thousand items are answered: what the sounds' cache may hold, and then no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ITEMS = 10_000
ALLOWED = 48  # MiB of growth over the last four fifths of the items

RUN = """
import json, resource, sys
from pathlib import Path
import numpy as np
import soundfile
import torch
from mata_interp.benchmarks import Item
from mata_interp.experiments import Condition, run
from mata_interp.experiments.answering import Work
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM, Decoding
from tests.tiny import tiny_qwen2_audio

folder, count = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
rng = np.random.default_rng(0)
items = []
for n in range(count):
    soundfile.write(folder / f"{n}.wav", rng.normal(0, 0.1, 14_000).astype(np.float32), 16_000)
    items.append(Item(audio=f"{n}.wav", audio_root=folder, question=f"What is it, number {n}?",
                      choices=("a dog", "a bell"), answer="a dog", id=f"item {n}"))

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

seen, answer = [], Work.compute
def watched(self, lalm, unit):
    if unit.batch % 25 == 0 and unit.audio == "own":
        seen.append((unit.batch * 16, resident()))
    return answer(self, lalm, unit)
Work.compute = watched

mata = Mata(0.5, [1, 2])
conditions = {"baseline": None, "mata": mata, "words": Condition(mata, decoding=Decoding(2))}
done = run(LALM(*tiny_qwen2_audio(seed=0)), items, conditions, folder / "run", progress=False)
print(json.dumps({"seen": seen, "end": resident(), "rows": len(done.records)}))
"""


@pytest.mark.acceptance
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_is_flat_over_ten_thousand_items(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), str(ITEMS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["rows"] == 3 * ITEMS
    print(
        "resident MiB at item:",
        {at: round(size) for at, size in result["seen"]},
        "end:",
        round(result["end"]),
    )
    begun = max(size for at, size in result["seen"] if at <= ITEMS / 5)
    assert max(size for _, size in result["seen"]) < begun + ALLOWED
