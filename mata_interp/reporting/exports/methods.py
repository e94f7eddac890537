"""A methods paragraph with its references, from the manifest of a run and the result of a study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from ...experiments import Run
from ...interventions import RULES, AttentionEdit, describe
from ...version import __version__
from ..parts import TextFile
from ..wording import count, listing, named_layers, number, printable
from .tables import latex_text

__all__ = ["methods_files", "methods_text"]

CITATION = re.compile(r"\[@([\w,@ ]+)\]")
AUDIO = {
    "own": "",
    "other": ", with another item's audio",
    "silence": ", with silence",
    "none": ", without audio",
}
OWN = """@software{{mata_interp,
  title = {{mata-interp: attention traces, interventions and causal tests for large audio-language models}},
  author = {{{{The mata-interp developers}}}},
  version = {{{version}}},
}}"""


def methods_files(run: Run) -> list[TextFile]:
    """The methods paragraph in Markdown and LaTeX, and the references that both cite."""
    text = methods_text(run)
    keys = dict.fromkeys(key for match in CITATION.finditer(text) for key in _keys(match))
    known = _references()
    return [
        TextFile("methods.md", "Methods in Markdown", text + "\n"),
        TextFile("methods.tex", "Methods in LaTeX", _latex(text) + "\n"),
        TextFile("references.bib", "References in BibTeX", "\n\n".join(known[key] for key in keys) + "\n"),
    ]


def methods_text(run: Run) -> str:
    """The paragraphs, in Markdown with citations such as ``[@holm1979]``."""
    paragraphs = [_setting(run), _interventions(run), _selection(run), _statistics(run), _software(run)]
    return "\n\n".join(" ".join(sentence for sentence in part if sentence) for part in paragraphs if part)


def _references() -> dict[str, str]:
    """Key -> BibTeX entry of everything that a run can cite."""
    file = resources.files("mata_interp.reporting.exports") / "references.bib"
    entries = [entry.strip() for entry in file.read_text("utf-8").split("\n\n") if entry.strip()]
    entries.append(OWN.format(version=__version__))
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in entries}


# ------------------------------------------------------------------------------------------------ paragraphs
def _setting(run: Run) -> list[str]:
    """Model, data and how answers are scored."""
    model, data = run.manifest["model"], run.manifest["data"]
    name, benchmark = printable(model.get("name"), 80), str(data["name"])
    about = [model[key] for key in ("dtype", "attention", "quantisation") if model.get(key)]
    kind = f"{printable(model.get('class') or 'model', 80)}{_cited_model(model)}"
    form = ", ".join([kind, *(str(value).removeprefix("torch.") for value in about)])
    revision = f", revision {printable(model['revision'], 40)}" if model.get("revision") else ""
    return [
        f"We evaluated {name}{revision} ({form}) on {printable(benchmark, 60)}"
        f"{_cited_benchmark(benchmark)}: {count(data['items'], 'item')} on {count(data['clips'], 'clip')}, "
        f"each under {count(len(run.conditions), 'condition')}.",
        f"{count(len(run.excluded), 'item')} could not be used." if run.excluded else "",
        _scoring(run),
    ]


def _cited_model(model: Mapping[str, Any]) -> str:
    text = f"{model.get('name')} {model.get('class')}".lower()
    return " [@chu2024qwen2audio]" if "qwen2audio" in text or "qwen2-audio" in text else ""


def _cited_benchmark(name: str) -> str:
    keys = {"mmau": " [@sakshi2024mmau]", "mmar": " [@ma2025mmar]"}
    return keys.get(name.lower().partition("-")[0], "")


def _scoring(run: Run) -> str:
    if any(condition.decoding for condition in run.conditions.values()):
        return "Answers were generated and matched to the options."
    return (
        "The answer is the option with the largest log-probability, summed over its tokens and "
        "teacher-forced. The log-probability difference is that of the correct option minus that of the best "
        "other option, in nats."
    )


def _interventions(run: Run) -> list[str]:
    """What each condition does."""
    edited = {name: condition for name, condition in run.conditions.items() if condition.interventions}
    if not edited:
        return []
    mata = (
        "MATA [@wang2025mata] raises the attention scores from the answering token to the audio tokens "
        "before the softmax."
    )
    edits = [edit for condition in edited.values() for edit in condition.interventions]
    of_scores = [edit for edit in edits if isinstance(edit, AttentionEdit)]
    rules = [rule for rule in dict.fromkeys(edit.rule for edit in of_scores) if rule in RULES]
    formulas = [f"rule {rule}: A becomes {RULES[rule].formula.replace('scores', 'A')}" for rule in rules]
    parts = [
        f"{printable(name, 40)}: {'; '.join(map(_edit, condition.interventions))}{AUDIO[condition.audio]}"
        for name, condition in edited.items()
    ]
    return [
        mata if any(condition.inferred_role == "mata" for condition in edited.values()) else "",
        f"Here, {listing(formulas)}." if formulas else "",
        f"Interventions: {'. '.join(parts)}.",
    ]


def _edit(edit: Any) -> str:
    """What one intervention does, with its source where it has one."""
    if not isinstance(edit, AttentionEdit):
        source = printable(getattr(edit, "source", ""), 200)
        return printable(describe(edit), 400) + (f" ({source})" if source else "")
    heads = "" if edit.heads == "all" else f", heads {edit.to_dict()['heads']}"
    return f"rule {edit.rule}, alpha {edit.alpha:g}, {named_layers(edit.layers)}{heads}, keys {edit.keys}"


def _selection(run: Run) -> list[str]:
    """How layers and strength were chosen."""
    if run.study is None:
        return []
    selection, test = run.study.selection, run.study.test
    chosen, sham = selection.chosen, selection.sham
    what = "Layers and alpha" if selection.layer_origin is None else "Alpha"
    return [
        f"{what} were chosen among {count(len(selection.grid), 'configuration')} by the mean log-probability "
        f"difference of {count(selection.grid_items, 'item')} of the "
        f"{count(selection.clips, 'selection clip')}, and tested on "
        f"{count(test.clips, 'other clip')} ({count(test.items, 'item')}); no clip is in both.",
        f"The choice was {named_layers(chosen.layers)} and alpha {chosen.alpha:g}.",
        f"The sham on text uses the same rule at alpha {sham.alpha:g}, chosen on the selection clips so that "
        f"its mean KL divergence of attention rows ({number(sham.kl, 3)} nats) is that of MATA "
        f"({number(sham.target_kl, 3)} nats).",
    ]


def _statistics(run: Run) -> list[str]:
    """Intervals, tests and corrections, as far as the run uses them."""
    if run.effects is None or run.effects.primary is None:
        return []
    effect = run.effects.primary.effect
    hypothesis = printable(run.study.hypothesis if run.study else run.effects.primary.comparison.name, 300)
    return [
        f"The primary hypothesis was fixed in advance: {hypothesis}",
        "Differences are paired by item; clips, not items, are the independent units. The interval of the "
        f"primary difference is {effect.interval_method}{_cited(effect.interval_method)} at "
        f"{100 * effect.level:g} %, and its p-value is that of {effect.p_method}"
        f"{_cited(effect.p_method)}, two-sided.",
        "P-values of all hypotheses on MATA are adjusted by Holm's method [@holm1979]; those of controls are "
        "not.",
    ]


def _cited(method: str) -> str:
    known = {"Tango": "tango1998", "McNemar": "fagerland2013"}
    return next((f" [@{key}]" for name, key in known.items() if name in method), "")


def _software(run: Run) -> list[str]:
    """Versions, machine and seed."""
    model, machine = run.manifest["model"], run.manifest["environment"]
    versions = {"Python": machine.get("python"), **model.get("versions", {})}
    cited = {"transformers": " [@wolf2020transformers]", "nnsight": " [@fiottokaufman2024nnsight]"}
    names = [f"{name} {value}{cited.get(name, '')}" for name, value in versions.items() if value]
    hashes = [value for key, value in model.items() if key.startswith("weights") and key.endswith("sha256")]
    return [
        f"We used mata-interp {machine.get('mata_interp', __version__)} [@mata_interp] with {listing(names)} "
        f"on {machine.get('device')}, seed {run.manifest['seed']}.",
        f"SHA-256 of the weights: {hashes[0]}." if hashes else "",
    ]


# ----------------------------------------------------------------------------------------------------- LaTeX
def _keys(match: re.Match[str]) -> list[str]:
    return [key.strip(" @") for key in match[1].split(",")]


def _latex(text: str) -> str:
    """Markdown with citations as LaTeX."""
    parts, end = [], 0
    for match in CITATION.finditer(text):
        before = latex_text(text[end : match.start()])
        parts.append(f"{before[:-1]}~" if before.endswith(" ") else before)
        parts.append(rf"\cite{{{','.join(_keys(match))}}}")
        end = match.end()
    return "".join([*parts, latex_text(text[end:])])
