"""The section on controls: interventions that should not help, and what they show."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ..experiments import ComparisonResult, text_prior_of
from ..experiments.chance import chance_of
from ..experiments.study_result import Selection, ShamMatch
from ..experiments.verdicts import control_words, random_layers_words, sham_words
from .accuracy import accuracy_tables, rate
from .comparisons import Comparisons, mean, subset_label, where
from .parts import Block, Content, Row, Section, Table
from .wording import interval, known, number, percent, points, printable

DOSES = ("mass_before", "mass_after", "kl", "boost", "negative")


def controls_section(records: pd.DataFrame, comparisons: Comparisons, selection: Selection | None) -> Section:
    """What each control shows, and the accuracy and the dose under every condition.

    Args:
        records: Records of the run.
        comparisons: The study's effects.
        selection: What the study chose: the doses of the controls and the layers of the random draws.
    """
    content: list[Content] = [("text", sentence) for sentence in _findings(records, comparisons, selection)]
    content += accuracy_tables(records, comparisons)
    dose = dose_table(records, comparisons)
    if dose.blocks[0].rows:
        content.append(("table", dose))
    return Section("controls", "Controls", content)


def _findings(records: pd.DataFrame, comparisons: Comparisons, selection: Selection | None) -> Iterator[str]:
    shams = comparisons.shams()
    against = {
        row.comparison.before: row
        for row in comparisons.effects.select(
            family="sham", after_role="mata", column="correct", subset=comparisons.subset
        )
    }
    for row in shams:
        if row.comparison.after_role == "sham_text":
            items, mata = subset_label(comparisons.subset), against.get(row.comparison.after)
            yield _on_text(row, mata, selection.sham if selection else None, items)
            if mata is not None and comparisons.primary is not None:
                yield sham_words(comparisons.primary, row, mata)
    random = [row for row in shams if row.comparison.after_role == "sham_random_layers"]
    if random and comparisons.primary is not None:
        yield _in_random_layers(random, comparisons.primary, selection)
    for row in shams:
        if row.comparison.after_role == "mata_other_audio":
            yield (
                "Does the audio have to match the question? With another item's audio, MATA changed accuracy "
                f"by {_change(row)} points relative to the same wrong audio without MATA. More attention to "
                f"the wrong audio should not help. {control_words(row)}"
            ).strip()
    yield from _text_alone(records, comparisons)


def _on_text(row: ComparisonResult, mata: ComparisonResult | None, sham: ShamMatch | None, items: str) -> str:
    matched = ""
    if sham is not None:
        reached, target = number(sham.kl, 3), number(sham.target_kl, 3)
        matched = (
            ", with an alpha chosen on the selection clips to change attention as much as MATA (mean row KL "
            f"{reached} against {target} nats),"
        )
    against = f" MATA relative to this control: {_change(mata)} points." if mata else ""
    return (
        "Does attention to audio matter, or does any change of attention help? The same rule on text tokens"
        f"{matched} changed accuracy by {_change(row)} points ({items}).{against}"
    )


def _in_random_layers(
    random: list[ComparisonResult], primary: ComparisonResult, selection: Selection | None
) -> str:
    changes = sorted(row.effect.difference for row in random)
    own = primary.effect.difference
    matches = selection.random_layers if selection else ()
    at_dose = ", each at the alpha whose mean row KL is nearest to MATA's," if matches else ""
    follows = " ".join(random_layers_words(random, matches))
    as_good = sum(change >= own for change in changes)
    return (
        f"Do these layers matter? In {len(random)} random draws of as many layers{at_dose} MATA changed "
        "accuracy by "
        f"{points(changes[0])} to {points(changes[-1])} points, in its own layers by {points(own)}; "
        f"{as_good or 'none'} of the draws did as well or better. {follows}"
    ).strip()


def _text_alone(records: pd.DataFrame, comparisons: Comparisons) -> Iterator[str]:
    """Accuracy without audio, and the text-prior rate."""
    for silent in comparisons.with_role("no_audio"):
        for baseline in comparisons.with_role("baseline"):
            without, with_audio = (
                mean(where(records, {**comparisons.subset, "condition": name}), "correct")
                for name in (silent, baseline)
            )
            if known(without) and known(with_audio) and with_audio:
                part = where(records, comparisons.subset)
                prior, level = text_prior_of(part, silent, baseline), chance_of(part)
                chance = f" (chance {percent(level)})" if known(level) else ""
                yield (
                    f"How far does the text alone go? Without audio {percent(without)} of these answers are "
                    f"correct{chance}, with it {percent(with_audio)}: a text-prior rate of "
                    f"{rate(prior, 1, 2)}."
                )


def _change(row: ComparisonResult) -> str:
    return f"{points(row.effect.difference)} {interval(row.effect.low, row.effect.high)}"


def dose_table(records: pd.DataFrame, comparisons: Comparisons) -> Table:
    """How much each intervention changed attention, mean over items."""
    rows = []
    for name, part in records.groupby("condition", sort=False):
        before, after, kl, boost, negative = (mean(part, f"dose_{dose}") for dose in DOSES)
        if known(kl):
            cells = [percent(before), percent(after), number(kl, 3), number(boost, 2, sign=True)]
            cells.append(percent(negative, 0))
            look = "" if comparisons.role(str(name)) == "mata" else "sham"
            rows.append(Row([comparisons.label(str(name)), *cells], look, {"condition": printable(name)}))
    return Table(
        "Dose: how much each intervention changed attention.",
        ("Condition", "mass before", "mass after", "KL, nats", "boost, nats", "scores < 0"),
        [Block(rows)],
        "Mass: attention of the edited rows on the keys that the rule changes, mean over edited layers and "
        "heads. KL: divergence of the edited row from the unedited one. Boost: mean change of those keys' "
        "scores. Scores < 0: fraction of those keys' scores that are negative, where the interpretations of "
        "the paper's rule differ.",
    )
