"""What every run measured, side by side on the same scales: accuracy, effects, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...experiments.chance import chance_of
from ...statistics import Effect, clustered_interval, paired_effect, proportion
from ...tracing import audio_share
from ..comparisons import CAPTIONS, subset_label, where
from ..figures import forest
from ..figures.levels import Level, LevelGroup, levels
from ..figures.shares import Share, shares
from ..figures.svg import figure_part
from ..parts import Block, Content, Row, Section, Table
from ..wording import count, interval, known, listing, number, points, printable
from .sides import Side

__all__ = ["attention_section", "effect_of", "effects_section", "levels_section", "subsets_of"]


def subsets_of(sides: Sequence[Side]) -> list[dict[str, str]]:
    """All items, then those of each caption that all runs have, where there are several."""
    present = [
        caption
        for caption in CAPTIONS
        if all(caption in set(side.items["caption_condition"]) for side in sides)
    ]
    several = any(side.items["caption_condition"].nunique() > 1 for side in sides)
    return [{}, *({"caption_condition": caption} for caption in present if several)]


def effect_of(side: Side, condition: str, subset: Mapping[str, str], score: str = "correct") -> Effect | None:
    """The change that a condition makes to a run's baseline; None without a baseline or common items."""
    if side.baseline is None:
        return None
    before, after = side.values(side.baseline, score), side.values(condition, score)
    items = where(side.items, subset)
    ids = [id for id in items.index if id in before.index and id in after.index]
    if not ids:
        return None
    names = (side.baseline, condition)
    chosen_on = {clip for name in names for clip in side.run.chosen_on.get(name, ())}
    kind: Any = "binary" if score == "correct" else "margin"
    clusters = items.loc[ids, "cluster"].tolist()
    return paired_effect(before[ids], after[ids], kind, clusters, chosen_on=chosen_on)


# --------------------------------------------------------------------------------------------------- accuracy
def levels_section(sides: Sequence[Side]) -> Section:
    """Accuracy of every run without and with its main intervention."""
    groups = []
    for subset in subsets_of(sides):
        rows = [_level(side, subset) for side in sides]
        groups.append(LevelGroup(subset_label(subset).capitalize(), rows))
    figure = figure_part(
        "levels",
        lambda width: levels(groups, width),
        "Accuracy of each run",
        "Accuracy of each run, on all of its own items.",
        f"Hollow: without an intervention. Filled: under {_mains(sides)}. Grey line: chance, the mean of one "
        "over the number of options. Runs with other items are not paired here.",
    )
    return Section(
        "levels", "Accuracy side by side", [("figure", figure), ("folded", _all_conditions(sides))]
    )


def _mains(sides: Sequence[Side]) -> str:
    names = {printable(side.main, 40) for side in sides if side.main}
    if len(names) == 1:
        return names.pop()
    labels = [f"{printable(side.main, 40)} ({side.letter})" for side in sides if side.main]
    return listing(labels) if labels else "an intervention, of which these runs have none"


def _level(side: Side, subset: Mapping[str, str]) -> Level:
    items = where(side.items, subset)

    def mean(condition: str | None) -> float:
        if condition is None:
            return float("nan")
        values = side.values(condition)
        return float(values.loc[values.index.isin(items.index)].mean())

    return Level(
        printable(side.label, 40), mean(side.baseline), mean(side.main), chance_of(items), len(items)
    )


def _all_conditions(sides: Sequence[Side]) -> Table:
    blocks = []
    for side in sides:
        rows = []
        for name, part in side.scored.groupby("condition", sort=False):
            right = proportion(part["correct"].astype(bool), part["cluster"].tolist())
            limits = interval(right.low, right.high, lambda value: number(100 * value, 1))
            cells = [printable(name, 40), f"{len(part):,}", number(100 * right.value, 1), limits]
            rows.append(Row(cells, "", {"run": side.letter, "condition": printable(name)}))
        blocks.append(Block(rows, f"{side.label}; chance {number(100 * chance_of(side.items), 1)}\u202f%"))
    return Table(
        "All conditions of all runs.",
        ("Condition", "items", "accuracy, %", "95\u00a0% interval"),
        blocks,
        "Intervals over clips, of each condition alone.",
    )


# ---------------------------------------------------------------------------------------------------- effects
def effects_section(sides: Sequence[Side]) -> Section | None:
    """The change that each intervention makes in its run; None where no run has a baseline and an edit."""
    groups: list[tuple[str, list[tuple[Side, str, Effect]]]] = []
    for subset in subsets_of(sides):
        members = [
            (side, name, effect)
            for side in sides
            for name in side.treated
            if (effect := effect_of(side, name, subset)) is not None
        ]
        if members:
            groups.append((subset_label(subset).capitalize(), members))
    if not groups:
        return None
    drawn = [
        forest.Section(
            title,
            [
                forest.effect_row(_row_label(side, name), effect, _look(side, name))
                for side, name, effect in rows
            ],
        )
        for title, rows in groups
    ]
    figure = figure_part(
        "forest",
        lambda width: forest.forest(drawn, width),
        "Changes in accuracy with 95 % intervals",
        "Change in accuracy in each run, with 95 % intervals.",
        "Each row compares a condition with the baseline of its run, on that run's items. Hollow circles: "
        "shams, which should not help. Intervals are of each row alone; two rows whose intervals overlap can "
        "still differ, which only a paired comparison shows.",
    )
    return Section("effect", "Effects side by side", [("figure", figure), ("folded", _table(groups))])


def _row_label(side: Side, name: str) -> str:
    return f"{side.letter}: {printable(name, 24)}"


def _look(side: Side, name: str) -> str:
    return "sham" if side.run.roles[name] == "sham_text" else "mata"


def _table(groups: Sequence[tuple[str, Sequence[tuple[Side, str, Effect]]]]) -> Table:
    blocks = [Block([_row(*member) for member in members], title) for title, members in groups]
    return Table(
        "Effects of every run.",
        ("Run and condition", "n", "clips", "before, %", "after, %",
         "change, points [95\u00a0%\u00a0interval]", "corrected", "broken"),
        blocks,
        "P-values and corrections are on the page of each run.",
    )  # fmt: skip


def _row(side: Side, name: str, effect: Effect) -> Row:
    cells = [
        f"{side.label}: {printable(name, 40)}",
        f"{effect.n:,}",
        f"{effect.n_clusters or effect.n:,}",
        number(100 * effect.before, 1),
        number(100 * effect.after, 1),
        f"{points(effect.difference)} {interval(effect.low, effect.high)}",
        str(effect.fixed),
        str(effect.broken),
    ]
    data = {"run": side.letter, "condition": printable(name), "difference": repr(effect.difference)}
    return Row(cells, _look(side, name).replace("mata", ""), data)


# -------------------------------------------------------------------------------------------------- attention
def attention_section(sides: Sequence[Side]) -> Section | None:
    """The audio share of attention by layer of every run with a trace; None where there is none."""
    runs = [share for side in sides if (share := _share(side)) is not None]
    if not runs:
        return None
    without = [side.label for side in sides if side.run.trace is None]
    missing = f" No attention is recorded in {listing(without)}." if without else ""
    by_depth = len({tuple(run.layers) for run in runs}) > 1
    scale = " The models differ in their layers, so the figure is over depth." if by_depth else ""
    figure = figure_part(
        "shares",
        lambda width: shares(runs, width),
        "Audio share by layer of each run",
        "Audio share of the answering token's attention by layer.",
        "Mean over heads and items, without intervention, with bootstrap 95 % intervals over clips of each "
        f"layer alone; {_samples(sides)}.{scale}{missing} Attention is not contribution.",
    )
    content: list[Content] = [("figure", figure), ("folded", _shares_table(runs))]
    return Section("attention", "Attention to audio side by side", content)


def _share(side: Side) -> Share | None:
    if side.run.trace is None:
        return None
    share = audio_share(side.run.trace, sink=False).mean("head", skipna=True).transpose("item", "layer")
    mean, low, high = clustered_interval(share.values, side.run.trace["cluster"].values, bounds=(0, 1))
    layers = [int(layer) for layer in share["layer"].values]
    return Share(printable(side.label, 40), layers, mean, low, high)


def _samples(sides: Sequence[Side]) -> str:
    return "; ".join(
        f"{side.letter} {count(side.run.trace.sizes['item'], 'item')}"
        for side in sides
        if side.run.trace is not None
    )


def _shares_table(runs: Sequence[Share]) -> Table:
    table: dict[int, dict[str, str]] = {}
    for run in runs:
        for n, layer in enumerate(run.layers):
            limits = interval(float(run.low[n]), float(run.high[n]), lambda value: number(100 * value, 1))
            value = float(run.mean[n])
            text = f"{number(100 * value, 1)} {limits}" if known(value) else ""
            table.setdefault(layer, {})[run.label] = text
    frame = pd.DataFrame.from_dict(table, orient="index").sort_index().replace(np.nan, "")
    rows = [
        Row([str(layer), *map(str, cells)]) for layer, cells in zip(frame.index, frame.values, strict=True)
    ]
    return Table("Audio share by layer, %.", ("Layer", *frame.columns), [Block(rows)])
