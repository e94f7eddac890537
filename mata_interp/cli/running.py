"""`mata-interp run`: a benchmark with and without MATA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import mata_interp as mi

from ..errors import unknown_name
from ..reporting.comparisons import mean, where
from ..reporting.wording import percent, printable
from .fusing import layers_wanted
from .opening import Source, open_model
from .options import AUTO, HERE
from .output import print_json, print_table, progress, resumable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class How:
    """The options of the command that say how the benchmark is answered."""

    alpha: float
    layers: Any
    rule: str
    phase: str
    prompt: str
    words: bool
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    batch_size: int
    ray: str | None
    workers: int | None
    gpus: float | None

    def decoding(self) -> Any:
        if not self.words:
            return None
        return mi.Decoding(self.max_new_tokens, self.temperature, top_p=self.top_p, seed=self.seed)

    def cluster(self) -> Any:
        if self.ray is None:
            return False
        address = None if self.ray == HERE else self.ray
        return mi.RayWorkers(address=address, workers=self.workers, gpus=self.gpus)


def run_benchmark(
    model: str,
    source: Source,
    items: int | None,
    how: How,
    out: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Answer, compare, print; or, with ``dry_run``, say what would be done."""
    from ..lalm import PROMPT_FORMATS

    if how.prompt not in PROMPT_FORMATS:
        raise typer.BadParameter(unknown_name("prompt format", how.prompt, PROMPT_FORMATS))
    data, lalm = source.open(), open_model(model)
    layers = layers_wanted(how.layers, lalm, lambda: data, how.seed)
    if how.layers == AUTO:  # what layers were chosen on is no test of them
        data = data.split("confirmation", seed=how.seed)
    data = data.sample(items, seed=how.seed) if items else data
    layers = mi.published_layers(lalm) if layers is None else layers
    mata = mi.Mata(how.alpha, layers, rule=how.rule, phase=how.phase)
    settings: dict[str, Any] = {
        "decoding": how.decoding(),
        "prompt_format": how.prompt,
        "batch_size": how.batch_size,
        "progress": progress(),
        "seed": how.seed,
    }
    conditions = {"baseline": None, "mata": mata}
    if dry_run:
        told = mi.forecast(lalm, data, conditions, out, **settings)
        print_json({**told.to_dict(), "out": out}) if as_json else print(f"{told}\nThe run folder: {out}")
        return
    with resumable():
        done = mi.run(lalm, data, conditions, out, ray=how.cluster(), **settings)
    _tell(done, out, how, as_json)


def _tell(done: Any, out: Path, how: How, as_json: bool) -> None:
    scored = done.records[done.records["answer"].notna()]
    tables = {name: part.set_index("item") for name, part in scored.groupby("condition", sort=False)}
    if not tables:
        print_json({"out": out}) if as_json else print(f"No answer is known: the predictions are in {out}.")
        return
    before, after = tables["baseline"], tables["mata"].loc[tables["baseline"].index]
    pairs = (before["correct"].astype(float).to_numpy(), after["correct"].astype(float).to_numpy())
    effect = mi.paired_effect(*pairs, kind="binary", clusters=before["cluster"].tolist(), seed=how.seed)
    columns = {"accuracy": "correct", "official": "official"}
    figures = {
        name: {condition: mean(part, column) for condition, part in tables.items()}
        for name, column in columns.items()
    }
    if how.words:
        figures["unparsed"] = {name: 1 - mean(part, "parsed") for name, part in tables.items()}
        figures["cut"] = {name: 1 - mean(part, "stopped") for name, part in tables.items()}
    if as_json:
        print_json({**figures, "effect": effect.to_dict(), "out": out, "excluded": done.excluded})
        return
    _print_accuracies(tables, figures)
    print(f"\n{effect}\nThe run: {out}   (mata-interp report {out} makes a page of it)")


def _print_accuracies(tables: dict[Any, pd.DataFrame], figures: dict[str, dict[Any, float]]) -> None:
    """One line a condition: all figures over all items, then accuracy by what the caption does."""
    first = next(iter(tables.values()))
    captions = [c for c in dict.fromkeys(first["caption_condition"]) if c]
    rows = []
    for name, part in tables.items():
        parts = [where(part, {"caption_condition": c}) for c in captions]
        whole = [percent(figure[name]) for figure in figures.values()]
        rows.append([name, str(len(part)), *whole, *(percent(mean(p, "correct")) for p in parts)])
    print_table(["condition", "items", *figures, *map(printable, captions)], rows)
