"""The page of a run or a study, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from ..experiments import Condition, Effects, Run
from .about import about, short_name
from .accuracy import accuracy_tables
from .attention import attention_section
from .changes import changes_section
from .choice import choice_section
from .claims import claims_section
from .comparisons import Comparisons, mean, subset_label, where
from .controls import controls_section, dose_table
from .glossary import used_terms
from .item_view import items_section
from .layers import layers_section
from .methods import methods_section
from .no_harm import no_harm_section
from .parts import Content, Page, Section, all_text, numbered
from .procedure import procedure_section
from .provenance import left_out_section, provenance_section
from .registration import registration_section
from .reliance import reliance_section
from .run_comparisons import run_sections
from .summary import summary_rows
from .tasks import tasks_section
from .wording import count, listing, named_layers, number, percent, printable

CAVEAT = (
    "MATA has no official code. All interpretations of the papers (arXiv 2509.18816; Interspeech 2026, 1212) "
    "raise the scores of the audio keys for the last token before the softmax, but sources differ in the "
    "rule: A(1\u00a0+\u00a0\u03b1), A\u00a0+\u00a0\u03b1|A| or A\u00a0+\u00a0\u03b1. The rules differ where "
    "scores are negative."
)


def build_page(run: Run) -> Page:
    """The page of ``run`` as data."""
    model, data = run.manifest["model"], run.manifest["data"]
    benchmark = printable(data["name"], 80)
    comparisons = Comparisons(run.effects or Effects(), run.conditions)
    mata = next((run.conditions[name] for name in comparisons.with_role("mata")), None)
    sections = numbered(list(_sections(run, comparisons, mata)))
    answer, *numbers = _answer(run.study.answer) if run.study else [_plain_answer(run)]
    page = Page(
        kicker=f"MATA on {benchmark}: {count(data['items'], 'item')}, {count(data['clips'], 'clip')}",
        title=f"Does {short_name(model.get('name'))} listen?",
        answer=[answer],
        rows=summary_rows(run.records, comparisons),
        about=about(run, mata is not None),
        numbers=numbers,
        notes=[CAVEAT + _dose(run.records, comparisons, mata)] if mata else [],
        sections=sections,
    )
    return replace(page, glossary=used_terms(all_text(page)))


def _sections(run: Run, comparisons: Comparisons, mata: Condition | None) -> Iterator[Section]:
    """The sections of the page, in order: evidence, attention, choices, details, how to reproduce."""
    sections: list[Section | None] = [
        items_section(run),
        *(_study_evidence(run, comparisons) if comparisons.primary else run_sections(run, comparisons)),
        methods_section(run),
        _attention(run, mata),
        layers_section(run.path, run.study.selection if run.study else None),
        None if run.study is None else choice_section(run.study, run.effects),
        procedure_section(run),
        registration_section(run),
        _details(run, comparisons),
        reliance_section(run, comparisons),
        claims_section(run, comparisons),
        provenance_section(run),
        left_out_section(run),
    ]
    return (section for section in sections if section is not None and section.content)


def _study_evidence(run: Run, comparisons: Comparisons) -> list[Section | None]:
    assert comparisons.primary is not None
    pair = comparisons.primary.comparison
    items = subset_label(pair.subset)
    chosen_on = {clip for name in (pair.before, pair.after) for clip in run.chosen_on.get(name, ())}
    return [
        changes_section(run.records, comparisons),
        tasks_section(run.records, pair.before, pair.after, pair.subset, items, chosen_on),
        no_harm_section(comparisons),
        controls_section(run.records, comparisons, run.study.selection if run.study else None),
    ]


def _attention(run: Run, mata: Condition | None) -> Section | None:
    if run.trace is None:
        return None
    window = sorted({layer for edit in mata.interventions for layer in edit.layers}) if mata else []
    return attention_section(run.trace, window)


def _details(run: Run, comparisons: Comparisons) -> Section | None:
    """Accuracy under every condition; with the doses, where no section on controls has them."""
    content: list[Content] = list(accuracy_tables(run.records, comparisons))
    dose = dose_table(run.records, comparisons)
    if comparisons.primary is None and dose.blocks[0].rows:
        content.append(("table", dose))
    return Section("accuracy", "All conditions", content) if content else None


def _answer(text: str) -> list[str]:
    """The paragraphs of a study's answer."""
    return [printable(paragraph).replace(" %", "\u202f%") for paragraph in text.split("\n\n")]


def _plain_answer(run: Run) -> str:
    names = [printable(name) for name in run.conditions]
    items = count(len(set(run.records["item"])), "item")
    summary = f"{items}, answered under {count(len(names), 'condition')}: {listing(names)}."
    if len(names) == 1:
        return summary
    return (
        f"{summary} This is a run, not a study: nothing was chosen on other clips and no comparison was "
        "prespecified, so the comparisons explore."
    )


def _dose(records: pd.DataFrame, comparisons: Comparisons, mata: Condition | None) -> str:
    """The dose and the fraction of negative scores, which decide how much the rules differ here."""
    name = next(iter(comparisons.with_role("mata")), "")
    treated = where(records, {"condition": name})
    if mata is None or treated.empty:
        return ""
    edit = mata.interventions[0]
    negative, boost, kl = (mean(treated, f"dose_{dose}") for dose in ("negative", "boost", "kl"))
    return (
        f" Here the rule is {printable(edit.rule)} with \u03b1 {edit.alpha:g} in "
        f"{named_layers(edit.layers)}; {percent(negative, 0)} of the audio scores were negative, and the "
        f"rule changed audio scores by {number(boost, 2, sign=True)} nats on average (KL {number(kl, 3)} "
        "nats)."
    )
