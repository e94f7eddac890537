"""The headline numbers of a page in two rows: the effect with its harms, and the controls."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ..experiments import ComparisonResult
from .comparisons import Comparisons, effect_data, mean, subset_label, where
from .parts import Key, KeyRow
from .wording import interval, known, number, p_value, percent, points

__all__ = ["summary_rows"]


def summary_rows(records: pd.DataFrame, comparisons: Comparisons) -> list[KeyRow]:
    """Both rows of a study; nothing for a run without a primary comparison."""
    primary = comparisons.primary
    if primary is None:
        return []
    effect = [*_effect_keys(primary), *_harm_keys(comparisons), *_attention_keys(records, primary)]
    controls = [*_against_text(comparisons), *_sham_keys(comparisons), *_audio_keys(comparisons)]
    items = subset_label(comparisons.subset)
    rows = [KeyRow("row-effect", f"Effect ({items})", effect)]
    return [*rows, KeyRow("row-controls", "Controls (same items)", controls)] if controls else rows


def _effect_keys(primary: ComparisonResult) -> Iterator[Key]:
    effect, data = primary.effect, effect_data(primary)
    chance = f"chance {percent(primary.chance)}" if known(primary.chance) else ""
    rates = f"{number(100 * effect.before, 1)} \u2192 {percent(effect.after)}"
    p_holm = f", Holm-adjusted {p_value(primary.p_holm)}" if known(primary.p_holm) else ""
    yield Key("Accuracy, without \u2192 with MATA", rates, chance, {"key": "accuracy", **data})
    yield Key(
        "Change, percentage points", points(effect.difference), _interval(primary), {"key": "change", **data}
    )
    counts, detail = f"{effect.fixed} / {effect.broken}", f"of {effect.n:,}; p {p_value(effect.p)}{p_holm}"
    yield Key("Answers corrected / broken", counts, detail, {"key": "counts", **data})


def _harm_keys(comparisons: Comparisons) -> Iterator[Key]:
    """Every significant hypothesis on which MATA hurts."""
    for row in comparisons.effects.select(family="mata"):
        if row.verdict != "hurts" or not row.p_holm < 0.05:
            continue
        binary = row.comparison.kind == "binary"
        value = points(row.effect.difference) if binary else number(row.effect.difference, 2, sign=True)
        unit = "accuracy, points" if binary else "margin, nats"
        items = subset_label(row.comparison.subset)
        yield Key(
            f"Harm: {unit}", value, f"{items}; {_interval(row)}", {"key": "harm", **effect_data(row)}, "harm"
        )


def _attention_keys(records: pd.DataFrame, primary: ComparisonResult) -> Iterator[Key]:
    treated = where(records, {"condition": primary.comparison.after, **primary.comparison.subset})
    before, after = (mean(treated, f"dose_mass_{when}") for when in ("before", "after"))
    if known(before):
        masses = f"{number(100 * before, 1)} \u2192 {percent(after)}"
        data = {"key": "attention", "before": repr(before), "after": repr(after)}
        yield Key("Attention on audio, edited layers", masses, "of the answering tokens", data)


def _against_text(comparisons: Comparisons) -> Iterator[Key]:
    """MATA against the sham on text at its dose: the difference of the two changes."""
    for row in comparisons.effects.select(
        before_role="sham_text", after_role="mata", column="correct", subset=comparisons.subset
    ):
        detail = f"{_interval(row)}; p {p_value(row.effect.p)}"
        yield Key(
            "MATA's change minus the sham's on text", points(row.effect.difference), detail,
            {"key": "against-text", **effect_data(row)},
        )  # fmt: skip


def _sham_keys(comparisons: Comparisons) -> Iterator[Key]:
    shams = comparisons.shams()
    for row in shams:
        if row.comparison.after_role == "sham_text":
            data = {"key": "sham-text", **effect_data(row)}
            yield Key("Same rule on text, points", points(row.effect.difference), _interval(row), data)
    draws = sorted(
        (row for row in shams if row.comparison.after_role == "sham_random_layers"),
        key=lambda row: row.effect.difference,
    )
    if draws:
        against = comparisons.effects.select(
            before_role="sham_random_layers", after_role="mata", column="correct", subset=comparisons.subset
        )
        better = sum(row.verdict == "helps" for row in against)
        ends = " to ".join(dict.fromkeys(points(row.effect.difference) for row in (draws[0], draws[-1])))
        detail = f"MATA is detectably better than {better} of {len(draws)} draws"
        yield Key("Random layers, points", ends, detail, {"key": "random-layers", "better": str(better)})
    for row in shams:
        if row.comparison.after_role == "mata_other_audio":
            data = {"key": "other-audio", **effect_data(row)}
            yield Key("MATA with another clip's audio", points(row.effect.difference), _interval(row), data)


def _audio_keys(comparisons: Comparisons) -> Iterator[Key]:
    for row in comparisons.effects.select(family="descriptive", column="correct", subset=comparisons.subset):
        if row.comparison.after_role == "no_audio":
            detail = f"instead of {percent(row.effect.before)}; {_interval(row)}"
            data = {"key": "no-audio", **effect_data(row)}
            yield Key("Accuracy without audio", percent(row.effect.after), detail, data)


def _interval(row: ComparisonResult) -> str:
    form = points if row.comparison.kind == "binary" else (lambda value: number(value, 2, sign=True))
    return f"95 % interval {interval(row.effect.low, row.effect.high, form)}"
