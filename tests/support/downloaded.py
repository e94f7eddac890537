"""Records of the real benchmarks, read where they lie, and scenes from the bank in place of their sounds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mata_interp.benchmarks.loading import SHIPPED
from mata_interp.organism.bank import RATE, load_bank
from mata_interp.organism.scenes import SCENES, Mixer
from tests.benchmarks.conftest import downloaded_file

FILES = {"mmau": "mmau-test-mini.json", "mmar": "MMAR-meta.jsonl"}
SPECIAL = "<|audio_bos|><|AUDIO|><|im_end|></s>"  # words of a question, never tokens of the prompt


def real_records(benchmark: str, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """``n`` records of the released file, those that are odd in any way first.

    Odd are a list as category, repeated or empty choices, a number of choices that few records have, and text
    beyond ASCII. No released record holds special tokens, so the last one is given some. The test is skipped
    where there is no file.
    """
    text = downloaded_file(FILES[benchmark]).read_text("utf-8")
    whole = json.loads(text) if benchmark == "mmau" else [json.loads(line) for line in text.splitlines()]
    order = [whole[i] for i in np.random.default_rng(seed).permutation(len(whole))]
    taken: dict[str, dict[str, Any]] = {}
    for quirk in QUIRKS.values():
        records_of_quirk = [record for record in order if quirk(record)][:2]
        taken |= {record["id"]: record for record in records_of_quirk}
    records = list((taken | {record["id"]: record for record in order}).values())[:n]
    records[-1] = {**records[-1], "question": f"{records[-1]['question']} {SPECIAL}"}
    return records


def _choices(record: dict[str, Any]) -> list[str]:
    return [choice.strip() for choice in record["choices"]]


QUIRKS = {
    "a list as category": lambda record: isinstance(record["category"], list),
    "a repeated choice": lambda record: len(set(_choices(record))) < len(record["choices"]),
    "an empty choice": lambda record: "" in _choices(record),
    "text beyond ASCII": lambda record: not "".join([record["question"], *record["choices"]]).isascii(),
    **{f"{n} choices": lambda record, n=n: len(record["choices"]) == n for n in (2, 3, 4, 5, 6, 8)},
}


def own_records(benchmark: str, n: int) -> list[dict[str, Any]]:
    """``n`` records of the benchmark that ships, in this one's columns: questions the organism can answer."""
    whole = json.loads(SHIPPED["listening"].read_text("utf-8"))
    plain = [record for record in whole if record["condition"] == "neutral"][:n]
    columns = ("id", "audio_id", "question", "choices", "answer", "task", "sub-category")
    names = {"audio_id": "audio_path", "task": "modality"} if benchmark == "mmar" else {}
    return [
        {**{names.get(c, c): record[c] for c in columns}, "category": "Perception", "difficulty": "easy"}
        for record in plain
    ]


def write_with_scenes(folder: Path, benchmark: str, records: list[dict[str, Any]]) -> Path:
    """The records in the benchmark's own format; under ``audio/`` a scene, or their own clip, for each."""
    rng = np.random.default_rng(7)
    mixer = Mixer(load_bank(), "confirmation", rng)
    for record in records:
        name = record["audio_id" if benchmark == "mmau" else "audio_path"]
        path = folder / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (shipped := SHIPPED["listening"].parent / name).exists():
            shutil.copy(shipped, path)
            continue
        soundfile.write(path, mixer.scene(str(rng.choice(list(SCENES)))).samples, RATE)
    file = folder / FILES[benchmark]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    file.write_text(json.dumps(records) if benchmark == "mmau" else "\n".join(lines), encoding="utf-8")
    return file
