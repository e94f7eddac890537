"""mi.report: a run folder as one page for people who would rather look than read tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .. import __version__
from ..experiments import Run, load_run
from ..experiments.effects import MATA
from ..experiments.files import write_whole
from .accuracy import accuracy_tables
from .attention import attention_section
from .changes import changes_section
from .choice import choice_section
from .claims import claims_section
from .comparisons import Comparisons, mean, subset_label, where
from .controls import controls_section
from .parts import Key, Page, Section, numbered
from .provenance import provenance_section
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
    "Which rule is MATA's? Every reading of the papers (arXiv 2509.18816; Interspeech 2026, 1212) raises the "
    "scores of the audio keys for the last token before the softmax, but sources differ: "
    "A(1\u00a0+\u00a0\u03b1), A\u00a0+\u00a0\u03b1|A| or A\u00a0+\u00a0\u03b1, and no official code is "
    "known. They part ways where scores are negative."
)


def report(run_folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run folder: one self-contained HTML file that loads nothing from anywhere.

    A folder of `study` gives the whole story; one of `run` alone gives what was answered and what was run.

    Args:
        run_folder: as written by `study` or `run`.
        out: where to; ``report.html`` in the folder if not given.

    Returns:
        the path of the page.

    Raises:
        RunError: it is no run folder, or the page cannot be written.
    """
    run = load_run(run_folder)
    path = Path(out) if out is not None else Path(run_folder) / "report.html"
    html = render("report.jinja", page=build_page(run), version=__version__)
    write_whole(path, lambda file: file.write(html.encode("utf-8", errors="replace")))
    return path


def build_page(run: Run) -> Page:
    """The page of ``run`` as data."""
    model, data = run.manifest["model"], run.manifest["data"]
    name = printable(model.get("name")).rstrip("/").rpartition("/")[2]  # the folder's or the hub's own name
    benchmark = printable(data["name"], 80)
    effects = [] if run.effects is None else run.effects.to_dict("records")
    comparisons = Comparisons(effects, run.manifest["conditions"])
    window = _window(run)
    sham = run.study["selection"].get("sham") if run.study else None
    sections: list[Section] = []
    if run.trace is not None:
        sections.append(attention_section(run.trace, window))
    if comparisons.primary:
        sections += [
            changes_section(run.records, comparisons),
            controls_section(run.records, comparisons, sham),
        ]
    elif tables := accuracy_tables(run.records, comparisons):
        sections.append(Section("accuracy", "What was answered", tables))
    sections += filter(None, (reliance_section(run, comparisons), claims_section(run, comparisons)))
    if run.study is not None:
        sections.append(choice_section(run.study))
    sections.append(provenance_section(run))
    return Page(
        kicker=f"MATA on {benchmark}: {count(data['items'], 'item')}, {count(data['clips'], 'clip')}",
        title=f"Does {name} listen?",
        answer=_answer(run.study["answer"]) if run.study else [_plain_answer(run)],
        keys=_keys(run.records, comparisons),
        notes=[CAVEAT + _dose(run)] if window else [],
        sections=numbered(sections),
    )


def _window(run: Run) -> tuple[int, ...]:
    """The layers that the condition "mata" edits; none, if there is no such condition."""
    edits = run.manifest["conditions"].get(MATA, {}).get("interventions", [])
    return tuple(sorted({layer for edit in edits for layer in edit["layers"]}))


def _answer(text: str) -> list[str]:
    """The paragraphs of a study's answer."""
    return [printable(paragraph).replace(" %", "\u202f%") for paragraph in text.split("\n\n")]


def _plain_answer(run: Run) -> str:
    names = [printable(name) for name in run.manifest["conditions"]]
    items = count(len(set(run.records["item"])), "item")
    return (
        f"{items} answered under {count(len(names), 'condition')}: {listing(names)}. This folder holds no "
        "study: nothing was chosen on other clips and no comparison was fixed beforehand, so nothing is "
        "tested here."
    )


def _keys(records: pd.DataFrame, comparisons: Comparisons) -> list[Key]:
    e = comparisons.primary
    if e is None:
        return []
    treated = where(records, {"condition": MATA, **e["subset"]})
    before, after = (mean(treated, f"dose_mass_{when}") for when in ("before", "after"))
    p_holm = f", {p_value(e['p_holm'])} after Holm's correction" if known(e["p_holm"]) else ""
    rates = f"{number(100 * e['before'], 1)} \u2192 {percent(e['after'])}"
    limits = f"95 % interval {interval(e['low'], e['high'])}"
    counts, of = f"{e['fixed']:.0f} / {e['broken']:.0f}", f"of {e['n']:.0f}; p {p_value(e['p'])}{p_holm}"
    keys = [
        Key("Accuracy, without \u2192 with MATA", rates, subset_label(e["subset"])),
        Key("Change, percentage points", points(e["difference"]), limits),
        Key("Answers fixed / broken", counts, of),
    ]
    if known(before):
        masses = f"{number(100 * before, 1)} \u2192 {percent(after)}"
        keys.append(Key("Attention on audio, edited layers", masses, "of the answering tokens, these items"))
    return keys


def _dose(run: Run) -> str:
    """The dose and the fraction of negative scores, which decide how far the readings differ here."""
    edits = run.manifest["conditions"].get(MATA, {}).get("interventions", [])
    treated = where(run.records, {"condition": MATA})
    if not edits or treated.empty:
        return ""
    edit = edits[0]
    negative, boost, kl = (mean(treated, f"dose_{dose}") for dose in ("negative", "boost", "kl"))
    return (
        f" Here the rule is {printable(edit['rule'])} with \u03b1 {edit['alpha']:g} in "
        f"{named_layers(edit['layers'])}; {percent(negative, 0)} of the audio scores it met were negative, "
        f"and it moved audio scores by {number(boost, 2, sign=True)} nats on average (KL {number(kl, 3)} "
        "nats)."
    )
