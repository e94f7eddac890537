"""The sections on how to reproduce the run, and on every item that was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..benchmarks import Exclusion, find_release
from ..experiments import Condition, Run
from ..interventions import AttentionEdit, describe
from ..lalm import Decoding
from .citations import citations
from .claims import SUBSETS
from .exports import methods_files
from .parts import Block, Content, Row, Section, Table
from .wording import count, named_layers, number, printable

SHOWN = 12  # items left out; a longer list is folded


def provenance_section(run: Run) -> Section:
    """The command; model, data, versions, seeds, sizes and time; the conditions; the sources."""
    with_mata = any(condition.inferred_role == "mata" for condition in run.conditions.values())
    content: list[Content] = [
        (
            "text",
            "The same command on the same machine gives the same numbers. The file manifest.json in the "
            "folder of this page records everything that decides them.",
        ),
        ("command", printable(command_of(run))),
        ("heading", "What was run"),
        ("facts", _facts(run)),
        ("table", _conditions(run.conditions)),
        ("heading", "Sources"),
        ("links", citations(run, with_mata)),
        ("heading", "Methods for a paper"),
    ]
    for each in methods_files(run):
        content.append(("file", each))
    return Section("provenance", "How to reproduce", content)


def command_of(run: Run) -> str:
    """The command that made a run, without the folder of the program: ``mata-interp study``."""
    return short_command(run.study.command if run.study else run.manifest["command"])


def short_command(command: str) -> str:
    """A command without the folder of the program."""
    program, _, arguments = command.partition(" ")
    return f"{program.rpartition('/')[2]} {arguments}".strip()


def left_out_section(run: Run) -> Section:
    """Every item that was left out, with the reason."""
    return Section("left-out", "What was left out", _left_out(run.excluded))


def _facts(run: Run) -> list[tuple[str, str]]:
    study = run.study
    parts = count(run.missing, "part")
    both = (
        f"; {count(study.truncated, 'item')} including selection clips" if study and study.truncated else ""
    )
    more = {
        "Unfinished": f"{parts} missing; run the same command again to continue" if run.missing else "",
        "Audio too long": _truncated(run.records) + both,
        "Time": _seconds(study.seconds if study else None),
    }
    return manifest_facts(run.manifest, more)


def manifest_facts(manifest: Mapping[str, Any], more: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything in a manifest that a reader needs to reproduce it, as names and texts.

    Args:
        manifest: Of a run or a sweep.
        more: Further facts, which follow; empty ones are left out.
    """
    model, data, machine = manifest["model"], manifest["data"], manifest["environment"]
    hashes = [
        (f"SHA-256 of {k.removesuffix('_sha256')}", v) for k, v in model.items() if k.endswith("_sha256")
    ]
    answered = f"{count(data['items'], 'item')} of {count(data['clips'], 'clip')}"
    batches = count(len(manifest["batches"]), "batch", "batches")
    threads = count(machine.get("threads", 0), "thread")
    facts = [
        ("Model", model.get("name")),
        ("Revision", model.get("revision")),
        ("Number format", model.get("dtype")),
        ("Attention function", model.get("attention")),
        ("Quantisation", model.get("quantisation")),
        *hashes,
        ("Benchmark", data.get("name")),
        ("SHA-256 of its file", data.get("file_sha256")),
        ("Released file", _release(data)),
        ("SHA-256 of items used", data.get("sha256")),
        ("Items answered", f"{answered}, each under {count(len(manifest['conditions']), 'condition')}"),
        ("Prompt format", manifest["prompt_format"]),
        ("Published layers", _published(manifest)),
        ("Seed", f"{manifest['seed']} (splits, random layers, other audio, permutations, bootstraps)"),
        ("Batches", f"{batches} of up to {count(manifest['batch_size'], 'item')}"),
        ("Machine", f"{machine.get('device')}, {threads}, {machine.get('platform')}"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in _versions(model, machine).items())),
        ("Commit", machine.get("commit")),
        ("Started", manifest["created"]),
        *more.items(),
    ]
    return [(name, printable(value)) for name, value in facts if value not in (None, "")]


def _published(manifest: Mapping[str, Any]) -> str:
    """The layers that the papers edit, and the convention by which they were found; empty in old runs."""
    published = manifest.get("published_layers")
    if not published:
        return ""
    return f"{named_layers(published['layers'])} ({published['convention']})"


def _release(data: Mapping[str, Any]) -> str:
    """The released file that the data are; for a known benchmark, also that they are none."""
    release = find_release(data.get("file_sha256") or "")
    if release is not None:
        which = f"{release.benchmark} {release.subset}".strip()
        return f"{which}: {release.file}, by its SHA-256"
    pinned = str(data.get("name")).lower() in SUBSETS
    return "not a known release of this benchmark" if pinned else ""


def _versions(model: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    package = {name: machine[name] for name in ("mata_interp", "python") if name in machine}
    return {**package, **model.get("versions", {})}


def _truncated(records: pd.DataFrame) -> str:
    with_own_audio = records.loc[records["audio_from"] == records["item"]].drop_duplicates("item")
    cut = [float(value) for value in with_own_audio["truncated_seconds"] if value > 0]
    if not cut:
        return "none truncated"
    return f"{count(len(cut), 'item')} truncated to the model's maximum, by up to {number(max(cut), 1)} s"


def _seconds(seconds: Mapping[str, float] | None) -> str:
    if not seconds:
        return ""
    parts = ", ".join(f"{step} {number(value, 0)} s" for step, value in seconds.items())
    return f"{number(sum(seconds.values()), 0)} s: {parts}"


def _conditions(conditions: Mapping[str, Condition]) -> Table:
    generates = any(condition.decoding for condition in conditions.values())
    rows = []
    for name, condition in conditions.items():
        edits = "; ".join(_edit(edit) for edit in condition.interventions) or "none"
        answers = [_answers(condition.decoding)] if generates else []
        data = {"condition": printable(name), "role": condition.inferred_role}
        rows.append(Row([printable(name), condition.audio, *answers, edits], "", data))
    head = ("Condition", "Audio", *(["Answers"] if generates else []), "Intervention")
    return Table("Conditions.", head, [Block(rows)], words=True)


def _answers(decoding: Decoding | None) -> str:
    """``generated, greedy, up to 64 tokens``."""
    if decoding is None:
        return "options compared"
    sampling = f"temperature {decoding.temperature:g}, top p {decoding.top_p:g}, seed {decoding.seed}"
    if decoding.top_k:
        sampling += f", top k {decoding.top_k}"
    method = sampling if decoding.temperature else "greedy"
    return f"generated, {method}, up to {count(decoding.max_new_tokens, 'token')}"


def _edit(edit: Any) -> str:
    if not isinstance(edit, AttentionEdit):
        return printable(describe(edit), 400)
    heads = "all heads" if edit.heads == "all" else f"heads {edit.to_dict()['heads']}"
    return printable(
        f"rule {edit.rule}, alpha {edit.alpha:g}, {named_layers(edit.layers)}, {heads}, keys {edit.keys}, "
        f"phase {edit.phase}"
    )


def _left_out(excluded: Sequence[Exclusion]) -> list[Content]:
    if not excluded:
        return [("text", "No item was left out.")]
    by_field = Counter(row.field for row in excluded).most_common()
    fields = ", ".join(f"{field} {n}" for field, n in by_field)
    rows = [
        Row(
            [printable(row.item), printable(row.field), printable(row.reason)],
            "",
            {"item": printable(row.item)},
        )
        for row in excluded
    ]
    table = Table(
        "Items left out.",
        ("Item", "Field", "Reason"),
        [Block(rows)],
        f"{count(len(excluded), 'item')} could not be used, by field: {printable(fields)}. The other items "
        "are unaffected.",
        words=True,
    )
    return [("table" if len(excluded) <= SHOWN else "folded", table)]
