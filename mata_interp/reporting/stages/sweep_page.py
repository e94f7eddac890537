"""The page of a sweep, and that of several side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import xarray as xr

from ...errors import MataError, RunError
from ...experiments import Condition
from ...experiments.sweep_file import read_sweep
from ...interventions import describe
from ...plot import causal_map
from ...statistics import clustered_interval
from ...sweeps import change, correct, margin
from ..about import benchmark_about, model_about, short_name
from ..figures.agreement import Point, agreement
from ..figures.svg import figure_part
from ..glossary import used_terms
from ..parts import Block, Content, FigurePart, Key, KeyRow, Page, Row, Section, Table, all_text, numbered
from ..provenance import manifest_facts, short_command
from ..side_by_side.sides import distinct_paths
from ..wording import count, interval, listing, number, percent, printable
from .kinds import SWEEP

__all__ = ["sweep_page"]

SHOWN = 12  # configurations at each end of the table
MOST_POINTS = 1200  # in the figure of two sweeps
METHOD = (
    "many different edits of attention, each applied to every item alone. A sweep explores: what it suggests "
    "has to be tested on other clips."
)


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep that was read from its file.

    Attributes:
        letter: ``"A"``, ``"B"``, ...
        name: What differs between the sweeps of a comparison.
        path: The file.
        data: The log-probabilities, as `mata_interp.sweep` returned them.
    """

    letter: str
    name: str
    path: Path
    data: xr.DataArray

    @property
    def label(self) -> str:
        """``A: organism``."""
        return f"{self.letter}: {self.name}"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """As that of a run."""
        return json.loads(self.data.attrs["manifest"])

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        """Name of each configuration -> what it does."""
        return {name: Condition.from_dict(plain) for name, plain in self.manifest["conditions"].items()}

    @cached_property
    def baseline(self) -> str:
        """The configuration without an edit."""
        for name, condition in self.conditions.items():
            if not condition.interventions:
                return name
        raise RunError(
            f"{self.path} has no configuration without an edit, so there is nothing to compare with."
        )

    @cached_property
    def changes(self) -> xr.DataArray:
        """Change of the margin, nats: [item, configuration], of items with a known answer."""
        margins = margin(self.data).isel(item=(self.data["answer"] >= 0).values)
        moved = margins - margins.sel(configuration=self.baseline, drop=True)
        names = [name for name in moved["configuration"].values.tolist() if name != self.baseline]
        return moved.sel(configuration=names).transpose("item", "configuration")

    @cached_property
    def rows(self) -> dict[str, tuple[float, float, float]]:
        """Name of each configuration -> mean change with its interval over clips."""
        values = clustered_interval(self.changes.values, self.changes["cluster"].values)
        names = self.changes["configuration"].values.tolist()
        return dict(zip(names, zip(*(part.tolist() for part in values), strict=True), strict=True))

    def accuracy(self, configuration: str) -> float:
        """Fraction of right answers."""
        return float(correct(self.data).sel(configuration=configuration).mean())


def sweep_page(paths: Sequence[Path]) -> Page:
    """The page of the sweeps at these paths: folders of ``mata-interp sweep``, or their ``sweep.nc``.

    Raises:
        RunError: One cannot be read, or is given twice.
    """
    files = [_file(path) for path in (paths if len(paths) == 1 else distinct_paths(paths))]
    swept = [read_sweep(file) for file in files]
    models = [short_name(json.loads(each.attrs["manifest"])["model"].get("name")) for each in swept]
    names = models if len(set(models)) == len(models) else [_name(file) for file in files]
    sweeps = [
        Sweep(letter, printable(name, 40), file, data)
        for letter, name, file, data in zip(ascii_uppercase, names, files, swept, strict=False)
    ]
    page = _one(sweeps[0]) if len(sweeps) == 1 else _several(sweeps)
    page = replace(page, sections=numbered(page.sections))
    return replace(page, glossary=used_terms(all_text(page)))


def _file(path: Path) -> Path:
    return path / SWEEP if path.is_dir() else path


def _name(file: Path) -> str:
    return file.resolve().parent.name if file.name == SWEEP else file.stem


# -------------------------------------------------------------------------------------------------------- one
def _one(swept: Sweep) -> Page:
    manifest = swept.manifest
    name, (benchmark, kind) = short_name(manifest["model"].get("name")), benchmark_about(manifest["data"])
    n, clips = swept.changes.sizes["item"], len(set(swept.changes["cluster"].values.tolist()))
    best = max(swept.rows, key=lambda each: swept.rows[each][0])
    worst = min(swept.rows, key=lambda each: swept.rows[each][0])
    base = float(margin(swept.data).sel(configuration=swept.baseline).mean())
    answer = (
        f"Of {count(len(swept.rows), 'edit')}, {_named(best)} raises the mean log-probability difference "
        "most, by "
        f"{_change(swept.rows[best])} nats, and {_named(worst)} lowers it most, by "
        f"{_change(swept.rows[worst])}. The "
        "largest of many changes look better than they are; only other clips give an unbiased estimate."
    )
    content: list[Content] = [*_map(swept), ("table", _table(swept))]
    provenance: list[Content] = [
        ("command", printable(short_command(manifest["command"]))),
        ("facts", manifest_facts(manifest, _checks(swept))),
    ]
    keys = [
        Key("Edits", f"{len(swept.rows):,}", f"{n:,} items of {clips:,} clips", {"key": "edits"}),
        Key(
            "Without an edit",
            percent(swept.accuracy(swept.baseline)),
            f"margin {number(base)} nats",
            {"key": "base"},
        ),
        Key("Largest gain, nats", number(swept.rows[best][0], 2, sign=True), _named(best), {"key": "gain"}),
        Key("Largest loss, nats", number(swept.rows[worst][0], 2, sign=True), _named(worst), {"key": "loss"}),
    ]
    return Page(
        kicker=f"Sweep of {name} on {benchmark}: {count(n, 'item')}, {count(clips, 'clip')}",
        title=f"Which edits of attention change the answers of {name}?",
        answer=[answer],
        rows=[KeyRow("row-sweep", "Sweep", keys)],
        about=[("Sweep", METHOD), (name, model_about(manifest["model"])), (benchmark, kind)],
        sections=[
            Section("map", "Map of the edits", content),
            Section("provenance", "How to reproduce", provenance),
            Section("left-out", "What was left out", [_left_out(manifest)]),
        ],
    )


def _named(configuration: str) -> str:
    return printable(configuration, 60)


def _nats(value: float | None) -> str:
    return number(value, 2, sign=True)


def _change(row: tuple[float, float, float]) -> str:
    return f"{_nats(row[0])} {interval(row[1], row[2], _nats)}"


def _checks(swept: Sweep) -> dict[str, str]:
    """What the sweep says about itself: an unedited configuration is checked in every sweep."""
    attrs = swept.data.attrs
    looped, canary = int(attrs.get("looped", 0)), attrs.get("canary")
    steps = "" if canary is None else f"{float(canary):.3g} steps of the number format"
    computed = "all edits of an item as rows of one pass"
    if looped:
        computed += f"; {count(looped, 'item')} with a forward pass for each edit"
    return {"Computed": computed, "Largest difference of the unedited row": steps}


def _map(swept: Sweep, limit: float | None = None, letter: str = "") -> list[Content]:
    """The map as a figure; a notice where the edits have no places on one map.

    Of several maps, ``limit`` is the end of their scale in nats, and ``letter`` tells them apart.
    """
    edits = {
        name: condition.interventions[0]
        for name, condition in swept.conditions.items()
        if len(condition.interventions) == 1
    }
    try:
        mapped = change(swept.data, edits, swept.baseline)
        floor = number(float(mapped.attrs["noise_floor"]), 2)
        figure = figure_part(
            f"map-{letter}" if letter else "map",
            lambda width: causal_map(mapped, width, limit),
            "Change of the margin by edit",
            "Change of the mean log-probability difference under each edit.",
            "Against no edit, in nats. Each place is one edit of all items. Where no edit has an effect, "
            f"all places of 95 % of maps lie below the noise floor, {floor} nats (signs of clips drawn at "
            "random).",
        )
    except (MataError, ValueError) as error:
        reason = " ".join(str(error).split())
        return [("notice", f"There is no map, only the table. {printable(reason, 300)}")]
    return [("figure", figure)]


def _table(swept: Sweep) -> Table:
    order = sorted(swept.rows, key=lambda name: -swept.rows[name][0])
    blocks = [Block([_row(swept, name) for name in order])]
    if len(order) > 2 * SHOWN:
        blocks = [
            Block([_row(swept, name) for name in order[:SHOWN]], "Largest gains"),
            Block([_row(swept, name) for name in order[-SHOWN:]], "Largest losses"),
        ]
    base = Row(
        ["no edit", "", "", percent(swept.accuracy(swept.baseline))], "sham", {"configuration": "none"}
    )
    return Table(
        "Edits by their change.",
        ("Edit", "change, nats", "95\u00a0% interval", "accuracy"),
        [*blocks, Block([base])],
        f"{count(len(order), 'edit')}. Intervals over clips, of each edit alone, without a "
        "correction for their number. sweep.nc in the folder has every option's log-probability.",
    )


def _row(swept: Sweep, name: str) -> Row:
    mean, low, high = swept.rows[name]
    cells = [_named(name), _nats(mean), interval(low, high, _nats), percent(swept.accuracy(name))]
    return Row(cells, "", {"configuration": printable(name), "change": repr(mean)})


def _left_out(manifest: Mapping[str, Any]) -> Content:
    excluded = manifest["excluded"]
    if not excluded:
        return "text", "No item was left out."
    rows = [Row([printable(row[key]) for key in ("item", "field", "reason")]) for row in excluded]
    return "folded", Table("Items left out.", ("Item", "Field", "Reason"), [Block(rows)], words=True)


# ---------------------------------------------------------------------------------------------------- several
def _several(sweeps: Sequence[Sweep]) -> Page:
    first = sweeps[0]
    content: list[Content] = []
    answers = []
    for other in sweeps[1:]:
        names = [name for name in first.rows if name in other.rows and _same(first, other, name)]
        items = _shared(first, other)
        answers.append(
            f"{first.letter} and {other.letter} have {count(len(names), 'edit')} in common (of "
            f"{len(first.rows):,} and {len(other.rows):,}) and {count(len(items), 'item')} (of "
            f"{first.changes.sizes['item']:,} and {other.changes.sizes['item']:,}), joined by the hash "
            "of words, labels "
            "and sound."
        )
        if names:
            content.append(("figure", _figure(first, other, names[:MOST_POINTS])))
        if names and items:
            content.append(("table", _differences(first, other, names, items)))
        elif names:
            content.append(("notice", f"{first.letter} and {other.letter} share no item: nothing is paired."))
        else:
            content.append(
                ("notice", f"{first.letter} and {other.letter} share no edit: nothing is compared.")
            )
    keys = [
        Key(each.label, number(max(row[0] for row in each.rows.values()), 2, sign=True),
            f"largest gain of {count(len(each.rows), 'edit')}, nats; without an edit "
            f"{percent(each.accuracy(each.baseline))}", {"run": each.letter})
        for each in sweeps
    ]  # fmt: skip
    limit = max(abs(row[0]) for each in sweeps for row in each.rows.values()) or None
    maps: list[Any] = []
    for each in sweeps:
        maps += [("heading", each.label), *_map(each, limit, each.letter)]
    files = " ".join(str(each.path) for each in sweeps)
    provenance: list[Any] = [("command", f"mata-interp report {printable(files)}")]
    for each in sweeps:
        provenance += [
            ("heading", each.label),
            ("command", printable(short_command(each.manifest["command"]))),
        ]
        provenance.append(("facts", manifest_facts(each.manifest, _checks(each))))
    return Page(
        kicker=f"Sweeps of {listing([each.label for each in sweeps])}",
        title="Sweeps side by side",
        answer=answers,
        rows=[KeyRow("row-sweeps", "Sweeps", keys)],
        about=[("Sweep", METHOD)],
        sections=[
            Section("shared", "The same edits", content),
            Section("maps", "Maps", maps),
            Section("provenance", "How to reproduce", provenance),
        ],
    )


def _same(first: Sweep, other: Sweep, name: str) -> bool:
    """Whether an edit of both is the same, and not only its name."""
    pair = [[describe(part) for part in each.conditions[name].interventions] for each in (first, other)]
    return pair[0] == pair[1]


def _shared(first: Sweep, other: Sweep) -> list[str]:
    """Ids of the items that both have, with the same words, labels and sound."""
    there, here = (each.manifest["data"].get("digests", {}) for each in (first, other))
    known_items = set(first.changes["item"].values.tolist()) & set(other.changes["item"].values.tolist())
    return [id for id in there if there[id] == here.get(id) and id in known_items]


def _figure(first: Sweep, other: Sweep, names: Sequence[str]) -> FigurePart:
    points = [Point(_named(name), first.rows[name], other.rows[name]) for name in names]
    key = f"agreement-{other.letter}"
    return figure_part(
        key,
        lambda width: agreement(points, first.label, other.label, width),
        "Change under the same edits",
        f"Change of the log-probability difference under the same edits in {first.letter} and "
        f"{other.letter}.",
        "One dot is one edit; on the diagonal both change alike. On all items of each sweep.",
    )


def _differences(first: Sweep, other: Sweep, names: Sequence[str], items: Sequence[str]) -> Table:
    """The edits whose changes differ most on the items of both."""
    moved = [each.changes.sel(item=items, configuration=names) for each in (first, other)]
    apart = moved[1].values - moved[0].values
    mean, low, high = clustered_interval(apart, moved[0]["cluster"].values)
    order: list[int] = np.argsort(-np.abs(np.nan_to_num(mean)))[: 2 * SHOWN].tolist()
    rows = [
        Row(
            [_named(names[n]), *(_nats(float(part.values[:, n].mean())) for part in moved),
             _nats(float(mean[n])), interval(float(low[n]), float(high[n]), _nats)],
            "", {"configuration": printable(names[n]), "difference": repr(float(mean[n]))},
        )
        for n in order
    ]  # fmt: skip
    return Table(
        f"Edits that {first.letter} and {other.letter} answer to most differently.",
        (
            "Edit",
            first.letter,
            other.letter,
            f"{other.letter} \u2212 {first.letter}, nats",
            "95\u00a0% interval",
        ),
        [Block(rows)],
        f"Paired on {count(len(items), 'shared item')}; intervals over clips, of each edit "
        f"alone, without a correction for the choice among {count(len(names), 'edit')}.",
    )
