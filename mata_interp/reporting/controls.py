"""The section on controls: interventions that should not help, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..experiments.effects import BASELINE, MATA, MATA_ON_TEXT, MATA_OTHER, RANDOM_LAYERS, SILENT
from .comparisons import CAPTIONS, Comparisons, mean, subset_label, where
from .parts import Block, Content, Row, Section, Table
from .wording import NONE, interval, known, number, percent, points


def controls_section(
    records: pd.DataFrame, comparisons: Comparisons, sham: Mapping[str, float] | None
) -> Section:
    """What each control shows, and the accuracy and the dose under every condition.

    ``sham`` says how the alpha on text was matched: mean row KL reached and wanted, ``kl`` and ``target_kl``.
    """
    content: list[Content] = [("text", sentence) for sentence in _findings(records, comparisons, sham)]
    content.append(("table", accuracy_table(records, comparisons)))
    dose = dose_table(records, comparisons)
    if dose.blocks[0].rows:
        content.append(("table", dose))
    return Section("controls", "Controls: would anything have helped?", content)


def _findings(records: pd.DataFrame, comparisons: Comparisons, sham: Mapping[str, float] | None) -> list[str]:
    place = subset_label(comparisons.subset)
    shams = {e["after_condition"]: e for e in comparisons.shams()}
    against = {
        e["before_condition"]: e
        for e in comparisons.find(family="sham", after_condition=MATA, subset=comparisons.subset)
    }
    found = []
    if e := shams.get(MATA_ON_TEXT):
        found.append(
            f"Is it attention to audio, or any push? The same rule on the text tokens{_matched(sham)} "
            f"changed accuracy by {_change(e)} points ({place}).{_beats(against.get(MATA_ON_TEXT))}"
        )
    if random := [e for name, e in shams.items() if name.startswith(RANDOM_LAYERS)]:
        changes = sorted(e["difference"] for e in random)
        own = comparisons.primary["difference"] if comparisons.primary else None
        beaten = sum(1 for change in changes if known(own) and change >= own)  # type: ignore[operator]
        found.append(
            f"Is it these layers? In {len(random)} random draws of as many layers MATA changed accuracy by "
            f"{points(changes[0])} to {points(changes[-1])} points, in the chosen ones by {points(own)}; "
            f"{beaten or 'none'} of the draws did as well or better."
        )
    if e := shams.get(MATA_OTHER):
        found.append(
            f"Is it this sound? With another item's audio MATA changed accuracy by {_change(e)} points, "
            "measured against the same wrong audio without MATA. More attention to the wrong sound should "
            "not help."
        )
    silent, heard = (
        mean(where(records, {**comparisons.subset, "condition": name}), "correct")
        for name in (SILENT, BASELINE)
    )
    if known(silent) and heard:
        found.append(
            f"How far does the text alone go? With the audio left out {percent(silent)} of these answers are "
            f"right, with it {percent(heard)}: a text-prior rate of {number(silent / heard)}."
        )
    return found


def _matched(sham: Mapping[str, float] | None) -> str:
    if not sham:
        return ""
    reached, wanted = number(sham["kl"], 3), number(sham["target_kl"], 3)
    return (
        ", its alpha set on the selection clips so that it moves attention as far as MATA (mean row KL "
        f"{reached} against {wanted} nats),"
    )


def _change(e: Mapping[str, Any]) -> str:
    return f"{points(e['difference'])} {interval(e['low'], e['high'])}"


def _beats(e: Mapping[str, Any] | None) -> str:
    return f" MATA against this control: {_change(e)} points." if e else ""


def accuracy_table(records: pd.DataFrame, comparisons: Comparisons) -> Table:
    """Accuracy under each condition: by summed log-probability, and in brackets per token."""
    scored = records.dropna(subset=["correct"])
    captions = [c for c in CAPTIONS if c in set(scored["caption_condition"])]
    rows = []
    for name, part in scored.groupby("condition", sort=False):
        cells = [_both(part), *(_both(where(part, {"caption_condition": c})) for c in captions)]
        label = comparisons.label(str(name))
        rows.append(Row([label, f"{len(part):,}", *cells], "" if name in (BASELINE, MATA) else "sham"))
    return Table(
        "Accuracy under every condition, %.",
        ("Condition", "items", "all items", *(CAPTIONS[c] for c in captions)),
        [Block(rows)],
        "Answers chosen by summed log-probability; in brackets by log-probability per token.",
    )


def _both(part: pd.DataFrame) -> str:
    if part.empty:
        return NONE
    plain, normalised = (number(100 * mean(part, c), 1) for c in ("correct", "correct_normalised"))
    return f"{plain} ({normalised})"


def dose_table(records: pd.DataFrame, comparisons: Comparisons) -> Table:
    """How hard each intervention pushed, mean over items."""
    rows = []
    for name, part in records.groupby("condition", sort=False):
        names = ("mass_before", "mass_after", "kl", "boost", "negative")
        before, after, kl, boost, negative = (mean(part, f"dose_{dose}") for dose in names)
        if known(kl):
            cells = [percent(before), percent(after), number(kl, 3), number(boost, 2, sign=True)]
            cells.append(percent(negative, 0))
            rows.append(Row([comparisons.label(str(name)), *cells], "" if name == MATA else "sham"))
    return Table(
        "Dose: how hard each intervention pushed.",
        ("Condition", "mass before", "mass after", "KL, nats", "boost, nats", "scores < 0"),
        [Block(rows)],
        "Mass: attention of the edited rows on the keys the rule acts on, mean over edited layers and "
        "heads. KL: of the edited row from the untouched one. Boost: mean change of those keys' scores. "
        "Scores < 0: fraction of those keys' scores that are negative, where the readings of the paper's "
        "rule part ways.",
    )
