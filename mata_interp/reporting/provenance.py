"""The section on what was run: enough to repeat it, and everything that was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..benchmarks import find_release
from ..experiments import Run
from .claims import SUBSETS
from .parts import Block, Content, Row, Section, Table
from .wording import count, named_layers, number, printable

SHOWN = 12  # items left out that are listed openly; a longer list is folded


def provenance_section(run: Run) -> Section:
    """Model, data, conditions, versions, seeds, command, sizes, time; then what was left out."""
    content: list[Content] = [("facts", _facts(run)), ("table", _conditions(run.manifest["conditions"]))]
    content += _left_out(run.excluded)
    return Section("provenance", "What was run", content)


def _facts(run: Run) -> list[tuple[str, str]]:
    manifest, study = run.manifest, run.study or {}
    model, data, machine = manifest["model"], manifest["data"], manifest["environment"]
    hashes = [
        (f"SHA-256 of {k.removesuffix('_sha256')}", v) for k, v in model.items() if k.endswith("_sha256")
    ]
    answered = f"{count(data['items'], 'item')} of {count(data['clips'], 'clip')}"
    batches = count(len(manifest["batches"]), "batch", "batches")
    threads = count(machine.get("threads", 0), "thread")
    missing = f"{count(run.missing, 'part')} missing; the same command goes on" if run.missing else ""
    both = f"; {count(study['truncated'], 'item')} with the selection clips" if study.get("truncated") else ""
    facts = [
        ("Model", model.get("name")),
        ("Revision", model.get("revision")),
        ("Number format", model.get("dtype")),
        *hashes,
        ("Benchmark", data.get("name")),
        ("SHA-256 of its file", data.get("file_sha256")),
        ("Released file", _release(data)),
        ("SHA-256 of items used", data.get("sha256")),
        ("Items answered", f"{answered}, each under {count(len(manifest['conditions']), 'condition')}"),
        ("Unfinished", missing),
        ("Audio too long", _truncated(run.records) + both),
        ("Prompt format", manifest["prompt_format"]),
        ("Seed", f"{manifest['seed']} (splits, random layers, other audio, permutations, bootstraps)"),
        ("Batches", f"{batches} of up to {count(manifest['batch_size'], 'item')}"),
        ("Machine", f"{machine.get('device')}, {threads}, {machine.get('platform')}"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in _versions(model, machine).items())),
        ("Command", study.get("command") or manifest["command"]),
        ("Begun", manifest["created"]),
        ("Time taken", _seconds(study.get("seconds"))),
    ]
    return [(name, printable(value)) for name, value in facts if value not in (None, "")]


def _release(data: Mapping[str, Any]) -> str:
    """Which released file the data are; of a benchmark whose files may be pinned, also that they are not."""
    release = find_release(data.get("file_sha256") or "")
    if release is not None:
        which = f"{release.benchmark} {release.subset}".strip()
        return f"{which}: {release.file}, by its SHA-256"
    pinned = str(data.get("name")).lower() in SUBSETS
    return "not pinned: no released file with this SHA-256 is known here" if pinned else ""


def _versions(model: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: machine[name] for name in ("mata_interp", "python") if name in machine}
    return {**own, **model.get("versions", {})}


def _truncated(records: pd.DataFrame) -> str:
    own = records.loc[records["audio_from"] == records["item"]]
    seconds = dict(zip(own["item"], own["truncated_seconds"], strict=True))
    cut = [float(value) for value in seconds.values() if value > 0]
    if not cut:
        return "none cut"
    return (
        f"{count(len(cut), 'item')} cut at the end to what the model takes, by up to {number(max(cut), 1)} s"
    )


def _seconds(seconds: Mapping[str, float] | None) -> str:
    if not seconds:
        return ""
    parts = ", ".join(f"{step} {number(value, 0)} s" for step, value in seconds.items())
    return f"{number(sum(seconds.values()), 0)} s: {parts}"


def _conditions(conditions: Mapping[str, Any]) -> Table:
    in_words = any(condition.get("decoding") for condition in conditions.values())
    rows = []
    for name, condition in conditions.items():
        edits = "; ".join(_edit(edit) for edit in condition["interventions"]) or "none"
        answers = [_answers(condition.get("decoding"))] if in_words else []
        rows.append(Row([printable(name), condition["audio"], *answers, edits]))
    head = ("Condition", "Audio", *(["GenerationOutput"] if in_words else []), "Intervention")
    return Table("Conditions.", head, [Block(rows)], words=True)


def _answers(decoding: Mapping[str, Any] | None) -> str:
    """``in words, greedy, up to 64 tokens``."""
    if not decoding:
        return "options compared"
    drawn = f"temperature {decoding['temperature']:g}, top p {decoding['top_p']:g}, seed {decoding['seed']}"
    if decoding["top_k"]:
        drawn += f", top k {decoding['top_k']}"
    how = drawn if decoding["temperature"] else "greedy"
    return f"in words, {how}, up to {count(decoding['max_new_tokens'], 'token')}"


def _edit(edit: Mapping[str, Any]) -> str:
    heads = "all heads" if edit.get("heads") == "all" else f"heads {edit.get('heads')}"
    return printable(
        f"rule {edit.get('rule')}, alpha {edit.get('alpha'):g}, {named_layers(edit.get('layers', ()))}, "
        f"{heads}, keys {edit.get('keys')}, phase {edit.get('phase')}"
    )


def _left_out(excluded: Sequence[Mapping[str, str]]) -> list[Content]:
    if not excluded:
        return [("text", "No item was left out.")]
    fields = ", ".join(f"{field} {n}" for field, n in Counter(row["field"] for row in excluded).most_common())
    table = Table(
        "Items left out.",
        ("Item", "Field", "Reason"),
        [Block([Row([printable(row[k]) for k in ("item", "field", "reason")]) for row in excluded])],
        f"{count(len(excluded), 'item')} could not be used, by field: {printable(fields)}. The others are "
        "unaffected.",
        words=True,
    )
    return [("table" if len(excluded) <= SHOWN else "folded", table)]
