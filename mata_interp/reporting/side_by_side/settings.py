"""What two or more runs have in common and what not: items, settings, versions, scoring."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...experiments.identity import run_digest
from ...interventions import describe
from ..parts import Block, Content, Row, Section, Table
from ..wording import count, listing, named_layers, printable
from .joining import Overlap, overlap
from .sides import Side, Slot

__all__ = ["not_shared_sentences", "notices", "runs_section"]

NOTHING = "\u2014"
SCORING = ("Answers", "Prompt format", "Prompt wording", "Open thought")
"""Settings that decide how an answer is asked for and judged."""


def runs_section(sides: Sequence[Side], common: Sequence[Slot]) -> Section:
    """The runs beside each other: what differs, which items and conditions they share, what is the same."""
    facts = {name: values for name, values in _facts(sides) if any(values)}
    different = _differing(facts)
    same = {name: values for name, values in facts.items() if name not in different}
    content: list[Content] = [("table", _side_table("What differs.", sides, different))]
    content.append(("table", _items_table(sides)))
    content.append(("table", _conditions_table(sides, common)))
    if same:
        rows = [Row([name, values[0] or NOTHING], "", {"same": name}) for name, values in same.items()]
        content.append(
            ("folded", Table("What is the same.", ("Setting", "All runs"), [Block(rows)], words=True))
        )
    return Section("runs", "What is compared", content)


def _differing(facts: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {name: values for name, values in facts.items() if len(set(values)) > 1}


def not_shared_sentences(sides: Sequence[Side]) -> list[str]:
    """Which items the runs share, in a sentence for each run but the first."""
    first = sides[0]
    return [_shared_words(first, other, overlap(first, other)) for other in sides[1:]]


def _shared_words(first: Side, other: Side, joined: Overlap) -> str:
    total = len(first.digests)
    text = (
        f"{first.letter} and {other.letter} share {count(len(joined.shared), 'item')} (of {total:,} and "
        f"{len(other.digests):,}), joined by the hash of words, labels and sound."
    )
    changed = set(joined.words) | set(joined.sounds)
    if changed:
        number = count(len(changed), "item has", "items have")
        text += f" {number} the same id but other words or sound: not joined."
    return text


# ---------------------------------------------------------------------------------------------------- notices
def notices(sides: Sequence[Side]) -> Iterator[str]:
    """What limits the comparison, most important first."""
    different = _differing(dict(_facts(sides)))
    if not all(side.digests for side in sides):
        without = [side.label for side in sides if not side.digests]
        yield f"Items are not joined: {listing(without)} has no hashes of its items."
    elif not any(overlap(sides[0], other).shared for other in sides[1:]):
        yield (
            "The runs share no item, so nothing is paired: differences between them include those between "
            "their items."
        )
    if scoring := [name for name in SCORING if name in different]:
        names = listing([name.lower() for name in scoring])
        yield f"Answers are asked for or judged in different ways ({names}), which accuracy depends on."
    for side in sides:
        if side.run.missing:
            parts = count(side.run.missing, "part")
            yield f"{side.label} is not finished: {parts} missing. Only answered items are compared."
    yield from _copies(sides)


def _copies(sides: Sequence[Side]) -> Iterator[str]:
    """Runs in different folders that are one and the same."""
    by_digest: dict[str, list[Side]] = {}
    for side in sides:
        by_digest.setdefault(run_digest(side.run.manifest), []).append(side)
    for members in by_digest.values():
        if len(members) > 1:
            names = listing([side.label for side in members])
            yield (
                f"{names} have the same model, items, conditions and settings: they differ at most by "
                "rounding."
            )


# ----------------------------------------------------------------------------------------------------- tables
def _side_table(title: str, sides: Sequence[Side], facts: Mapping[str, Sequence[str]]) -> Table:
    rows = [
        Row([name, *(value or NOTHING for value in values)], "", {"differs": name})
        for name, values in facts.items()
    ]
    return Table(
        title, ("Setting", *(printable(side.label, 60) for side in sides)), [Block(rows)], words=True
    )


def _items_table(sides: Sequence[Side]) -> Table:
    first = sides[0]
    rows = [_items_row(first, None)]
    rows += [_items_row(side, overlap(first, side)) for side in sides[1:]]
    return Table(
        "Items of each run, joined with those of A.",
        ("Run", "items", "clips", "shared with A", "other words or labels", "other sound", "not in A",
         "only in A", "left out"),
        [Block(rows)],
        "An item is shared if id, words, labels and decoded sound are equal, by their hashes. Items with the "
        "same id but another hash are not joined. Left out: could not be used in that run.",
    )  # fmt: skip


def _items_row(side: Side, joined: Overlap | None) -> Row:
    data = side.run.manifest["data"]
    numbers: list[int | None] = [None] * 5
    if joined is not None:
        numbers = [
            len(joined.shared), len(joined.words), len(joined.sounds), joined.only_here, joined.only_there,
        ]  # fmt: skip
    cells = [data["items"], data["clips"], *numbers, len(side.run.excluded)]
    texts = [NOTHING if value is None else f"{value:,}" for value in cells]
    shared = {"shared": str(numbers[0])} if joined is not None else {}
    return Row([printable(side.label, 60), *texts], "", {"run": side.letter, **shared})


def _conditions_table(sides: Sequence[Side], common: Sequence[Slot]) -> Table:
    rows = [
        Row(
            [slot.title, *(_condition(side, slot.names.get(side.letter)) for side in sides)],
            "",
            {"slot": slot.kind},
        )
        for slot in common
    ]
    matched = {(letter, name) for slot in common for letter, name in slot.names.items()}
    alone = [
        Row(
            ["", *(_condition(side, name) if side is owner else "" for side in sides)],
            "sham",
            {"unmatched": printable(name), "run": owner.letter},
        )
        for owner in sides
        for name in owner.run.conditions
        if (owner.letter, name) not in matched
    ]
    blocks = [Block(rows, "Corresponding"), Block(alone, "Only in one run, not compared between runs")]
    return Table(
        "Conditions of the runs.",
        ("", *(printable(side.label, 60) for side in sides)),
        [block for block in blocks if block.rows],
        "Baselines correspond, and the interventions that the runs are about; others where their names are "
        "equal.",
        words=True,
    )


def _condition(side: Side, name: str | None) -> str:
    if name is None:
        return NOTHING
    condition = side.run.conditions[name]
    edits = "; ".join(describe(part) for part in condition.interventions)
    audio = "" if condition.audio == "own" else f"audio: {condition.audio}"
    about = "; ".join(part for part in (edits, audio) if part)
    return printable(f"{name}: {about}" if about else name, 240)


# ------------------------------------------------------------------------------------------------------ facts
def _facts(sides: Sequence[Side]) -> Iterator[tuple[str, list[str]]]:
    """Every setting with its value in each run, as text."""
    rows = [dict(_facts_of(side)) for side in sides]
    for name in dict.fromkeys(name for row in rows for name in row):
        yield name, [printable(row.get(name, ""), 200) for row in rows]


def _facts_of(side: Side) -> Iterator[tuple[str, str]]:
    manifest = side.run.manifest
    model, data, machine = manifest["model"], manifest["data"], manifest["environment"]
    yield "Folder", str(side.run.path or "")
    yield "Model", _text(model.get("name"))
    for key, value in model.items():
        if key.endswith("_sha256"):
            yield f"SHA-256 of {key.removesuffix('_sha256')}", _text(value)
    yield "Revision", _text(model.get("revision"))
    yield "Number format", _text(model.get("dtype"))
    yield "Attention function", _text(model.get("attention"))
    yield "Quantisation", _text(model.get("quantisation"))
    yield "Benchmark", _text(data.get("name"))
    yield "SHA-256 of its file", _text(data.get("file_sha256"))
    yield "SHA-256 of items used", _text(data.get("sha256"))
    yield "Answers", _answers(side)
    yield "Prompt format", _text(manifest.get("prompt_format"))
    yield "Prompt wording", _text(manifest.get("prompt_wording"))
    yield "Chat template", _text(manifest.get("chat_template"))
    yield "Open thought", _text(manifest.get("thinking"))
    yield "Published layers", _layers(manifest)
    yield "Seed", _text(manifest.get("seed"))
    yield "Batch size", _text(manifest.get("batch_size"))
    for name, value in {**model.get("versions", {}), **machine}.items():
        yield ("mata-interp" if name == "mata_interp" else str(name).capitalize()), _text(value)
    yield "Started", _text(manifest.get("created"))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)


def _answers(side: Side) -> str:
    """How answers are obtained: by comparison of the options, or generated."""
    kinds = {
        "options compared"
        if condition.decoding is None
        else f"generated, {_text(condition.decoding.to_dict())}"
        for condition in side.run.conditions.values()
    }
    return "; ".join(sorted(kinds))


def _layers(manifest: Mapping[str, Any]) -> str:
    published = manifest.get("published_layers")
    return named_layers(published["layers"]) if published else ""
