"""The page that puts two or more runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ...statistics import Effect
from ..about import about
from ..comparisons import subset_label
from ..exports import methods_files
from ..glossary import used_terms
from ..parts import Content, Key, KeyRow, Page, Section, all_text, numbered
from ..provenance import command_of
from ..wording import count, interval, known, listing, number, percent, points, printable
from .effects import attention_section, effect_of, effects_section, levels_section
from .item_differences import items_section
from .joining import Contrast, contrasts
from .settings import not_shared_sentences, notices, runs_section
from .shared import contrast_words, shared_section
from .sides import Side, common_subset, read_sides, slots

__all__ = ["build_comparison", "comparison_page"]


def comparison_page(folders: Sequence[str | Path]) -> Page:
    """The page of the runs in these folders, as data.

    Raises:
        RunError: A folder is given twice, or is no run folder.
    """
    return build_comparison(read_sides(folders))


def build_comparison(sides: Sequence[Side]) -> Page:
    """The page of these runs, as data."""
    common = slots(sides)
    accuracy, margin = (contrasts(sides, common, measure) for measure in ("accuracy", "margin"))
    sections: list[Section | None] = [
        levels_section(sides),
        effects_section(sides),
        shared_section(sides, accuracy, margin),
        items_section(sides, common),
        attention_section(sides),
        runs_section(sides, common),
        _provenance(sides),
    ]
    subset = common_subset(sides)
    names = listing([side.label for side in sides])
    page = Page(
        kicker=f"Comparison of {count(len(sides), 'run')}: {names}",
        title=_title(sides),
        answer=list(_answer(sides, accuracy, subset)),
        rows=list(_key_rows(sides, accuracy, subset)),
        about=_about(sides),
        notes=list(notices(sides)),
        sections=numbered([section for section in sections if section is not None]),
    )
    return replace(page, glossary=used_terms(all_text(page)))


def _title(sides: Sequence[Side]) -> str:
    names = list(dict.fromkeys(side.name for side in sides))
    return f"{listing(names)}, side by side" if len(names) <= 3 else f"{len(sides)} runs side by side"


# ----------------------------------------------------------------------------------------------------- answer
def _answer(sides: Sequence[Side], accuracy: Sequence[Contrast], subset: dict[str, str]) -> Iterator[str]:
    """What each run measured, whether the runs differ on the same items, and what they share."""
    effects = [(side, effect) for side in sides if (effect := _main_effect(side, subset)) is not None]
    if effects:
        parts = [
            f"{side.letter} {_arrow(effect)} ({points(effect.difference)} points "
            f"{interval(effect.low, effect.high)})"
            for side, effect in effects
        ]
        items = subset_label(subset)
        named = dict.fromkeys(printable(side.main, 40) for side, _ in effects)
        what = f"Accuracy without and with {listing(list(named))}"
        yield f"{what} ({items}): {'; '.join(parts)}."
    for other in sides[1:]:
        rows = [row for row in accuracy if row.second == other.letter and dict(row.subset) == subset]
        rows = rows or [row for row in accuracy if row.second == other.letter and not row.subset]
        changes = [row for row in rows if row.of_change]
        if chosen := (changes or rows)[:1]:
            yield contrast_words(chosen[0], sides)
    yield " ".join(not_shared_sentences(sides))


def _main_effect(side: Side, subset: dict[str, str]) -> Effect | None:
    return None if side.main is None else effect_of(side, side.main, subset)


def _arrow(effect: Effect) -> str:
    return f"{number(100 * effect.before, 1)} \u2192 {percent(effect.after)}"


def _key_rows(
    sides: Sequence[Side], accuracy: Sequence[Contrast], subset: dict[str, str]
) -> Iterator[KeyRow]:
    keys = []
    for side in sides:
        effect = _main_effect(side, subset)
        if effect is not None:
            label = f"{side.letter}: {printable(side.main, 40)}"
            detail = f"{points(effect.difference)} points {interval(effect.low, effect.high)}"
            data = {"run": side.letter, "difference": repr(effect.difference)}
            keys.append(Key(label, _arrow(effect), f"{detail}; {count(effect.n, 'item')}", data))
    if keys:
        yield KeyRow("row-runs", f"Accuracy, without \u2192 with ({subset_label(subset)})", keys)
    paired = [
        Key(
            f"{row.second} \u2212 {row.first}: {row.title}",
            points(row.effect.difference),
            _detail(row),
            {"runs": row.first + row.second, "difference": repr(row.effect.difference)},
        )
        for row in accuracy
        if dict(row.subset) == subset and known(row.effect.difference)
    ]
    if paired:
        yield KeyRow(
            "row-shared", f"Differences on shared items, points ({subset_label(subset)})", paired[:8]
        )


def _detail(row: Contrast) -> str:
    """Interval, where there is one, and number of items."""
    ends = f"{interval(row.effect.low, row.effect.high)}; " if known(row.effect.low) else ""
    return f"{ends}{count(row.effect.n, 'item')}"


def _about(sides: Sequence[Side]) -> list[tuple[str, str]]:
    """What methods, models and benchmarks are, once each."""
    rows: dict[str, str] = {}
    for side in sides:
        with_mata = any(role == "mata" for role in side.run.roles.values())
        rows |= dict(about(side.run, with_mata, counted=False))
    return list(rows.items())


def _provenance(sides: Sequence[Side]) -> Section:
    """The command of every run, and that of this page."""
    folders = " ".join(str(side.run.path) for side in sides)
    content: list[Content] = [("text", "This page is made from the folders alone; no model is needed.")]
    content.append(("command", f"mata-interp report {printable(folders)}"))
    for side in sides:
        content.append(("heading", f"{side.label}, in {printable(side.run.path)}"))
        content.append(("command", printable(command_of(side.run))))
        for each in methods_files(side.run):
            content.append(("file", replace(each, name=f"{side.letter}-{each.name}")))
    return Section("provenance", "How to reproduce", content)
