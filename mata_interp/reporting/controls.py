"""The section on controls: interventions that should not help, and what they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from ..experiments import ComparisonResult, text_prior_of
from ..experiments.chance import chance_of
from ..experiments.conditions import DOSE_MATCHED, Role
from ..experiments.study_result import Selection, ShamMatch
from ..experiments.verdicts import control_words, random_layers_words, sham_words
from .accuracy import rate
from .comparisons import Comparisons, mean, subset_label, where
from .parts import Block, Content, Row, Section, Table
from .wording import interval, known, listing, number, percent, points, printable

DOSES = ("mass_before", "mass_after", "kl", "boost", "negative")


def controls_section(records: pd.DataFrame, comparisons: Comparisons, selection: Selection | None) -> Section:
    """What each control shows, one short paragraph each, and the dose of every intervention.

    Args:
        records: Records of the run.
        comparisons: The study's effects.
        selection: What the study chose: the doses of the controls and the layers of the random draws.
    """
    content: list[Content] = []
    for question, sentences in _findings(records, comparisons, selection):
        content.append(("heading", question))
        for sentence in filter(None, sentences):
            content.append(("text", sentence))
    if selection is not None and (words := dose_words(comparisons)):
        content.append(("heading", "Which controls have MATA's dose?"))
        content.append(("text", words))
    dose = dose_table(records, comparisons)
    if dose.blocks[0].rows:
        content.append(("table", dose))
    return Section("controls", "Controls", content)


def _findings(
    records: pd.DataFrame, comparisons: Comparisons, selection: Selection | None
) -> Iterator[tuple[str, list[str]]]:
    """The question of each control, and its answer in paragraphs."""
    shams = comparisons.shams()
    against = {
        row.comparison.before: row
        for row in comparisons.effects.select(
            family="sham", after_role="mata", column="correct", subset=comparisons.subset
        )
    }
    for row in shams:
        if row.comparison.after_role == "sham_text":
            mata = against.get(row.comparison.after)
            sentences = _on_text(row, mata, selection.sham if selection else None, comparisons)
            if mata is not None and comparisons.primary is not None:
                sentences.append(sham_words(comparisons.primary, row, mata))
            yield "Does attention to audio matter, or does any change of attention help?", sentences
    random = [row for row in shams if row.comparison.after_role == "sham_random_layers"]
    if random and comparisons.primary is not None:
        yield "Do these layers matter?", _in_random_layers(random, comparisons.primary, selection)
    for row in shams:
        if row.comparison.after_role == "mata_other_audio":
            yield (
                "Does the audio have to match the question?",
                [
                    f"With another item's audio, MATA changed accuracy by {_change(row)} points relative to "
                    "the same "
                    f"wrong audio without MATA. {control_words(row)}".strip()
                ],
            )
    if text := list(_text_alone(records, comparisons)):
        yield "How far does the text alone go?", text


def _on_text(
    row: ComparisonResult, mata: ComparisonResult | None, sham: ShamMatch | None, comparisons: Comparisons
) -> list[str]:
    items = subset_label(comparisons.subset)
    sentences = [f"The same rule on text tokens changed accuracy by {_change(row)} points ({items})."]
    if mata is not None:
        sentences[0] += f" MATA relative to this control: {_change(mata)} points."
    if sham is not None:
        reached, target = number(sham.kl, 3), number(sham.target_kl, 3)
        sentences.append(
            "Its alpha was chosen on the selection clips to change attention as much as MATA: mean row KL "
            f"{reached} against {target} nats."
        )
    return sentences


def _in_random_layers(
    random: list[ComparisonResult], primary: ComparisonResult, selection: Selection | None
) -> list[str]:
    changes = sorted(row.effect.difference for row in random)
    effect = primary.effect.difference
    matches = selection.random_layers if selection else ()
    at_dose = ", each at the alpha whose mean row KL is nearest to MATA's," if matches else ""
    as_good = sum(change >= effect for change in changes)
    return [
        f"In {len(random)} random draws of as many layers{at_dose} MATA changed accuracy by "
        f"{points(changes[0])} to {points(changes[-1])} points, in its own layers by {points(effect)}. "
        f"{as_good or 'None'} of the draws did as well or better.",
        " ".join(random_layers_words(random, matches)),
    ]


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
                    f"Without audio {percent(without)} of these answers are correct{chance}, with it "
                    f"{percent(with_audio)}: a text-prior rate of {rate(prior, 1, 2)}."
                )


def _change(row: ComparisonResult) -> str:
    return f"{points(row.effect.difference)} {interval(row.effect.low, row.effect.high)}"


CONTROLS: Mapping[Role, str] = {
    "sham_text": "the same rule on text tokens",
    "sham_random_layers": "MATA in random layers",
    "sham_random_heads": "MATA in random heads",
    "sham_random_signs": "MATA with random signs",
    "other_audio": "another item's audio",
    "silence": "silence",
    "reversed_audio": "reversed audio",
    "no_audio": "no audio",
}


def dose_words(comparisons: Comparisons) -> str:
    """Which of the study's controls change attention as much as MATA, and why the others cannot."""
    present: list[Role] = [role for role in CONTROLS if comparisons.with_role(role)]
    matched = [CONTROLS[role] for role in present if role in DOSE_MATCHED]
    others = [CONTROLS[role] for role in present if role not in DOSE_MATCHED]
    sentences = []
    if matched:
        sentences.append(
            f"Dose-matched, with the alpha whose mean row KL on the selection clips is nearest to MATA's: "
            f"{listing(matched)}."
        )
    if others:
        sentences.append(
            f"Not dose-matched: {listing(others)}. They change the input, which has no strength to match; "
            "where MATA edits such an input, it is compared with the same input without MATA."
        )
    return " ".join(sentences)


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
