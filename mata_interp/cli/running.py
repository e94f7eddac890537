"""`mata-interp run`: a benchmark with and without MATA."""

from __future__ import annotations

from pathlib import Path

import mata_interp as mi

from ..reporting.comparisons import mean, where
from ..reporting.listening import middle_layers
from ..reporting.wording import percent, printable
from .opening import open_items, open_model
from .output import print_json, print_table, progress, resumable


def run_benchmark(
    model: str,
    benchmark: str,
    audio_root: Path | None,
    items: int | None,
    alpha: float,
    layers: tuple[int, ...] | None,
    rule: str,
    out: Path,
    seed: int,
    batch_size: int,
    as_json: bool,
) -> None:
    """Answer, compare, print; the arguments are those of the command."""
    data, lalm = open_items(benchmark, audio_root, items, seed), open_model(model)
    mata = mi.Mata(alpha, middle_layers(lalm.attention_layers) if layers is None else layers, rule=rule)
    with resumable():
        conditions = {"baseline": None, "mata": mata}
        done = mi.run(lalm, data, conditions, out, batch_size=batch_size, progress=progress(), seed=seed)
    scored = done.records[done.records["answer"].notna()]
    tables = {name: part.set_index("item") for name, part in scored.groupby("condition", sort=False)}
    if not tables:
        print_json({"out": out}) if as_json else print(f"No answer is known: the predictions are in {out}.")
        return
    before, after = tables["baseline"], tables["mata"].loc[tables["baseline"].index]
    pairs = (before["correct"].astype(float).to_numpy(), after["correct"].astype(float).to_numpy())
    effect = mi.paired_effect(*pairs, kind="binary", clusters=before["cluster"].tolist(), seed=seed)
    if as_json:
        accuracy = {name: mean(part, "correct") for name, part in tables.items()}
        print_json({"accuracy": accuracy, "effect": effect.to_dict(), "out": out, "excluded": done.excluded})
        return
    captions = [c for c in dict.fromkeys(before["caption_condition"]) if c]
    rows = []
    for name, part in tables.items():
        parts = [part, *(where(part, {"caption_condition": c}) for c in captions)]
        rows.append([name, str(len(part)), *(percent(mean(p, "correct")) for p in parts)])
    print_table(["condition", "items", "accuracy", *map(printable, captions)], rows)
    print(f"\n{effect}\nThe run: {out}   (mata-interp report {out} makes a page of it)")
