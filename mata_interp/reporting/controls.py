"""The section on controls: interventions that should not help, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..experiments import text_prior_of
from ..experiments.effects import BASELINE, MATA, MATA_ON_TEXT, MATA_OTHER, RANDOM_LAYERS, SILENT
from .accuracy import accuracy_tables, rate
from .comparisons import Comparisons, mean, subset_label, where
from .parts import Block, Content, Row, Section, Table
from .wording import interval, known, number, percent, points


def controls_section(
    records: pd.DataFrame, comparisons: Comparisons, sham: Mapping[str, float] | None
) -> Section:
    """What each control shows, and the accuracy and the dose under every condition.

    ``sham`` says how the alpha on text was matched: mean row KL reached and wanted, ``kl`` and ``target_kl``.
    """
    content: list[Content] = [("text", sentence) for sentence in _findings(records, comparisons, sham)]
    content += accuracy_tables(records, comparisons)
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
    if known(silent) and known(heard) and heard:
        prior = text_prior_of(where(records, comparisons.subset), SILENT, BASELINE)
        found.append(
            f"How far does the text alone go? With the audio left out {percent(silent)} of these answers are "
            f"right, with it {percent(heard)}: a text-prior rate of {rate(prior, 1, 2)}."
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
