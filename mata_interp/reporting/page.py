"""mi.report: a run folder as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..execution.files import write_whole
from ..experiments import Condition, Effects, Run, load_run
from ..version import __version__
from .accuracy import accuracy_tables
from .attention import attention_section
from .changes import changes_section
from .choice import choice_section
from .claims import claims_section
from .comparisons import Comparisons, effect_data, mean, subset_label, where
from .controls import controls_section
from .parts import Key, Page, Section, numbered
from .procedure import procedure_section
from .provenance import provenance_section
from .registration import registration_section
from .reliance import reliance_section
from .render import render
from .wording import (
    count,
    interval,
    known,
    listing,
    named_layers,
    number,
    p_value,
    percent,
    points,
    printable,
)

CAVEAT = (
    "MATA has no official code. All interpretations of the papers (arXiv 2509.18816; Interspeech 2026, 1212) "
    "raise the scores of the audio keys for the last token before the softmax, but sources differ in the "
    "rule: A(1\u00a0+\u00a0\u03b1), A\u00a0+\u00a0\u03b1|A| or A\u00a0+\u00a0\u03b1. The rules differ where "
    "scores are negative."
)


def report(run_folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run folder: one HTML file that loads nothing from elsewhere.

    The page of a `study` has the effects, the controls and the choice of layers; that of a plain `run` has
    accuracies and provenance.

    Args:
        run_folder: A folder that `study` or `run` wrote.
        out: The file to write; None: ``report.html`` in the folder.

    Returns:
        The path of the page.

    Raises:
        RunError: It is not a run folder, or the page cannot be written.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> run = mi.run(lalm, items[:2], {"baseline": None}, out="plain-run", progress=False)
        >>> mi.report("plain-run").name
        'report.html'
    """
    run = load_run(run_folder)
    path = Path(out) if out is not None else Path(run_folder) / "report.html"
    path = path.expanduser()
    html = render("report.jinja", page=build_page(run), version=__version__)
    write_whole(path, lambda file: file.write(html.encode("utf-8", errors="replace")), resumes=False)
    return path


def build_page(run: Run) -> Page:
    """The page of ``run`` as data."""
    model, data = run.manifest["model"], run.manifest["data"]
    name = (
        printable(model.get("name")).rstrip("/").rpartition("/")[2]
    )  # without the folder or the hub's owner
    benchmark = printable(data["name"], 80)
    comparisons = Comparisons(run.effects or Effects(), run.conditions)
    mata = next((run.conditions[name] for name in comparisons.with_role("mata")), None)
    return Page(
        kicker=f"MATA on {benchmark}: {count(data['items'], 'item')}, {count(data['clips'], 'clip')}",
        title=f"Does {name} listen?",
        answer=_answer(run.study.answer) if run.study else [_plain_answer(run)],
        keys=_keys(run.records, comparisons),
        notes=[CAVEAT + _dose(run.records, comparisons, mata)] if mata else [],
        sections=numbered(_sections(run, comparisons, mata)),
    )


def _sections(run: Run, comparisons: Comparisons, mata: Condition | None) -> list[Section]:
    """The sections of the page, in order."""
    sections: list[Section | None] = []
    if run.trace is not None:
        window = sorted({layer for edit in mata.interventions for layer in edit.layers}) if mata else []
        sections.append(attention_section(run.trace, window))
    if comparisons.primary:
        sections.append(changes_section(run.records, comparisons))
        sections.append(
            controls_section(run.records, comparisons, run.study.selection if run.study else None)
        )
    elif tables := accuracy_tables(run.records, comparisons):
        sections.append(Section("accuracy", "Accuracy", tables))
    sections += [reliance_section(run, comparisons), claims_section(run, comparisons)]
    if run.study is not None:
        sections.append(choice_section(run.study))
    sections += [procedure_section(run), registration_section(run)]
    sections.append(provenance_section(run))
    return [section for section in sections if section is not None]


def _answer(text: str) -> list[str]:
    """The paragraphs of a study's answer."""
    return [printable(paragraph).replace(" %", "\u202f%") for paragraph in text.split("\n\n")]


def _plain_answer(run: Run) -> str:
    names = [printable(name) for name in run.conditions]
    items = count(len(set(run.records["item"])), "item")
    return (
        f"{items}, answered under {count(len(names), 'condition')}: {listing(names)}. This is a run, not a "
        "study: nothing was chosen on other clips and no comparison was prespecified, so nothing is tested "
        "here."
    )


def _keys(records: pd.DataFrame, comparisons: Comparisons) -> list[Key]:
    """The headline numbers of the primary comparison."""
    primary = comparisons.primary
    if primary is None:
        return []
    effect, data = primary.effect, effect_data(primary)
    p_holm = f", Holm-adjusted {p_value(primary.p_holm)}" if known(primary.p_holm) else ""
    rates = f"{number(100 * effect.before, 1)} \u2192 {percent(effect.after)}"
    limits = f"95 % interval {interval(effect.low, effect.high)}"
    counts, detail = f"{effect.fixed} / {effect.broken}", f"of {effect.n}; p {p_value(effect.p)}{p_holm}"
    items = subset_label(primary.comparison.subset)
    chance = f"; chance {percent(primary.chance)}" if known(primary.chance) else ""
    keys = [
        Key("Accuracy, without \u2192 with MATA", rates, f"{items}{chance}", {"key": "accuracy", **data}),
        Key("Change, percentage points", points(effect.difference), limits, {"key": "change", **data}),
        *_against_text(comparisons),
        Key("Answers corrected / broken", counts, detail, {"key": "counts", **data}),
    ]
    treated = where(records, {"condition": primary.comparison.after, **primary.comparison.subset})
    before, after = (mean(treated, f"dose_mass_{when}") for when in ("before", "after"))
    if known(before):
        masses = f"{number(100 * before, 1)} \u2192 {percent(after)}"
        mass = {"key": "attention", "before": repr(before), "after": repr(after)}
        keys.append(
            Key("Attention on audio, edited layers", masses, "of the answering tokens, these items", mass)
        )
    return keys


def _against_text(comparisons: Comparisons) -> list[Key]:
    """MATA against the sham on text at its dose: the difference of the two changes."""
    rows = comparisons.effects.select(
        before_role="sham_text", after_role="mata", column="correct", subset=comparisons.subset
    )
    return [
        Key(
            "Change minus that of the same rule on text",
            points(row.effect.difference),
            f"95 % interval {interval(row.effect.low, row.effect.high)}; p {p_value(row.effect.p)}",
            {"key": "against-text", **effect_data(row)},
        )
        for row in rows
    ]


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
