"""mi.run: every item answered under every condition, into a run folder that survives being killed."""

from __future__ import annotations

import platform
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..benchmarks import Item
from .conditions import AudioKind, Condition, Edit, named_conditions
from .folder import RunFolder
from .notices import warn
from .partners import audio_partners
from .planning import plan_batches
from .records import answer_records
from .results import Run, load_run
from .vetting import Vetted, vet

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["run", "run_vetted"]

PROMPT_FORMAT = "options"


def run(
    lalm: LALM,
    items: Item | Sequence[Item],
    conditions: Mapping[str, Edit | Condition],
    out: str | Path | None = None,
    *,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
) -> Run:
    """Answer ``items`` under every condition by the options' log-probabilities.

    Items that cannot be used are left out, counted and named in the manifest; the others go on. A run that was
    stopped, however rudely, loses at most the batch in hand: the same call again goes on from there, and its
    tables are bit for bit those of a run that was never stopped (same machine, same number of threads).

    Args:
        conditions: name -> None, an intervention, a tuple of them, or a `Condition`, e.g.
            ``{"baseline": None, "mata": Mata(0.1, [3, 4]), "other audio": Condition(audio="other")}``.
        out: the run folder; None keeps the run in memory.
        batch_size: items in a batch.
        seed: of the choice whose audio ``audio="other"`` hears.

    Returns:
        the `Run`; ``run.records`` has one row per item and condition.

    Warns:
        RunWarning: items were left out; a part file was damaged and is computed again; an intervention meets
            the clips that it was chosen on.

    Raises:
        RunError: ``out`` cannot be written, or holds a run of another model, other data or other conditions.
        InterventionError: a condition names a layer or head that the model does not have.
    """
    named = _bound(lalm, conditions)
    return run_vetted(
        lalm,
        vet(lalm, items, progress=progress),
        named,
        out,
        batch_size=batch_size,
        progress=progress,
        seed=seed,
    )


def run_vetted(
    lalm: LALM,
    vetted: Vetted,
    conditions: Mapping[str, Edit | Condition],
    out: str | Path | None,
    *,
    batch_size: int,
    progress: bool,
    seed: int,
    label: str = "answering",
) -> Run:
    """`run` on items that have been looked at already; ``label`` names the progress bar."""
    named = _bound(lalm, conditions)
    _warn_of_reuse(vetted, named)
    if out is None:
        with tempfile.TemporaryDirectory(prefix="mata-interp-") as place:
            kept = run_vetted(
                lalm, vetted, named, place, batch_size=batch_size, progress=progress, seed=seed, label=label
            )
        return replace(kept, path=None)
    partners = audio_partners(vetted.items, seed) if any(c.audio == "other" for c in named.values()) else {}
    manifest = _manifest(lalm, vetted, named, partners, batch_size, seed)
    folder = RunFolder.start(out, manifest)
    _warn_of_other_threads(folder.manifest, manifest)
    _answer(lalm, folder, vetted, named, partners, progress, label)
    return load_run(folder.path)


def _bound(lalm: LALM, conditions: Mapping[str, Edit | Condition]) -> dict[str, Condition]:
    """The conditions by name, their layers and heads checked before anything is computed or written."""
    named = named_conditions(conditions)
    for condition in named.values():
        for part in condition.interventions:
            part.bind(lalm.anatomy)
    return named


def _manifest(
    lalm: LALM,
    vetted: Vetted,
    conditions: Mapping[str, Condition],
    partners: Mapping[str, Item],
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    batches = plan_batches(vetted.items, vetted.lengths, batch_size)
    return {
        "version": 1,
        "model": lalm.fingerprint(),
        "data": {
            "name": vetted.name,
            "file_sha256": vetted.file_sha256,
            "items": len(vetted.items),
            "clips": len(vetted.clusters),
            "sha256": vetted.sha256,
        },
        "prompt_format": PROMPT_FORMAT,
        "seed": seed,
        "batch_size": batch_size,
        "conditions": {name: condition.to_dict() for name, condition in conditions.items()},
        "excluded": list(vetted.excluded),
        "batches": [
            {
                "items": [item.id for item in batch],
                "padded_width": max(vetted.lengths[item.id] for item in batch),  # with the items' own audio
            }
            for batch in batches
        ],
        "audio_from": {item: partner.id for item, partner in sorted(partners.items())},
        "environment": {
            "threads": torch.get_num_threads(),
            "device": str(lalm.device),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "command": shlex.join(sys.argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _answer(
    lalm: LALM,
    folder: RunFolder,
    vetted: Vetted,
    conditions: Mapping[str, Condition],
    partners: Mapping[str, Item],
    progress: bool,
    label: str,
) -> None:
    """Compute and write the parts that are not there yet, batch by batch; a batch's prompt serves all conditions."""
    parts, damaged = folder.read_parts()
    if damaged:
        warn(f"{folder.path}: {len(damaged)} damaged part(s) are computed again: {', '.join(damaged[:3])}.")
    items = {item.id: item for item in vetted.items}
    by_audio: dict[AudioKind, list[str]] = {}
    for name, condition in conditions.items():
        by_audio.setdefault(condition.audio, []).append(name)
    batches = folder.manifest["batches"]
    with tqdm(
        total=len(batches) * len(conditions),
        initial=len(parts),
        desc=label,
        unit="batch",
        disable=not progress,
    ) as bar:
        for index, planned in enumerate(batches):
            batch = [items[item] for item in planned["items"]]
            for audio, names in by_audio.items():
                missing = [name for name in names if (name, index) not in parts]
                if not missing:
                    continue
                prompt, common = _ask(lalm, batch, audio, partners)
                for name in missing:
                    scores = lalm.score(
                        prompt, [item.choices for item in batch], conditions[name].intervention
                    )
                    rows = [{**row, "condition": name, "batch": index} for row in common]
                    table = answer_records(batch, scores.logprob, scores.tokens, scores.dose, rows)
                    folder.write_part(name, index, table)
                    bar.update()


def _ask(
    lalm: LALM, batch: Sequence[Item], audio: AudioKind, partners: Mapping[str, Item]
) -> tuple[Prompt, list[dict[str, Any]]]:
    """The prompt of a batch with this audio, and the columns of its records that tell about it."""
    heard: list[Item] = list(batch)
    if audio == "other":
        heard = [item.with_audio(partners[item.id]) for item in batch]
    elif audio == "silence":
        heard = [item.with_audio(_silence(item, lalm.sampling_rate)) for item in batch]
    prompt = lalm.prompt(heard, audio=None if audio == "none" else "own", format=PROMPT_FORMAT)
    sources = {"own": lambda item: item.id, "other": lambda item: partners[item.id].id}.get(
        audio, lambda item: None
    )
    audio_tokens = prompt.groups["audio"].sum(1).tolist()
    prompt_tokens = prompt.inputs["attention_mask"].sum(1).tolist()
    return prompt, [
        {
            "audio_from": sources(item),
            "audio_seconds": float(prompt.audio_seconds[row]),
            "truncated_seconds": float(prompt.truncated_seconds[row]),
            "prompt_tokens": int(prompt_tokens[row]),
            "audio_tokens": int(audio_tokens[row]),
            "padded_width": prompt.width,
        }
        for row, item in enumerate(batch)
    ]


def _silence(item: Item, rate: int) -> tuple[np.ndarray, int]:
    return np.zeros_like(item.load_audio(rate).samples), rate


def _warn_of_reuse(vetted: Vetted, conditions: Mapping[str, Condition]) -> None:
    """Nothing is chosen and tested on the same clips without the reader being told."""
    for name, condition in conditions.items():
        for part in condition.interventions:
            if met := vetted.clusters & set(part.chosen_on):
                warn(
                    f"condition {name!r} was chosen on {len(met)} of the {len(vetted.clusters)} clips it now meets: "
                    "its effect on them is exploratory. Test it on items.split('confirmation')."
                )


def _warn_of_other_threads(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    old, new = there.get("environment", {}), here["environment"]
    for field in ("threads", "device"):
        if old.get(field) != new[field]:
            warn(
                f"this run began with {field} {old.get(field)} and goes on with {new[field]}: "
                "its rows may differ from those of an unbroken run in the last digits."
            )
