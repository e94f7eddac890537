"""One measurement on every batch of items or prompts: here or on Ray, kept in memory or part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from ..benchmarks import Item
from ..benchmarks.audio import joint_sha256
from ..errors import ItemError
from ..lalm import Prompt
from ..lalm.description import template_sha256
from ..lalm.reasoning import thinking_settings
from ..progress import progress_bar
from .files import plain
from .parts import PART, MeasuredBatch, MemoryParts
from .ray_backend import Cluster, RayWorkers, open_cluster
from .units import Unit, absolute, compute_here

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["Measure", "batch_identity", "item_digest", "measure_batches"]


class Measure(Protocol):
    """What is measured on each batch. It is pickled for workers on other machines."""

    def __call__(self, lalm: LALM, batch: Any) -> MeasuredBatch:
        """Measure one batch."""
        ...


def measure_batches(
    lalm: LALM,
    measure: Measure,
    batches: Sequence[Any],
    *,
    label: str,
    progress: bool,
    parts: MemoryParts | None = None,
    ray: RayWorkers | Cluster | str | bool | None = None,
    on_part: Callable[[MeasuredBatch], object] | None = None,
) -> list[MeasuredBatch]:
    """Measure every batch; those whose parts are there are not measured again.

    Args:
        lalm: The model.
        measure: What is measured.
        batches: The batches, each a prompt or a list of items, or of tuples that begin with an item or a
            prompt.
        label: Name of the stage, for progress.
        progress: Report progress.
        parts: Where the parts go; None: they are kept in memory.
        ray: As in `open_cluster`.
        on_part: Called with each part as soon as it is there.

    Returns:
        The parts, in the order of the batches.
    """
    store = parts if parts is not None else MemoryParts()
    units = [Unit(n, n, tuple(_names(batch))) for n, batch in enumerate(batches)]
    remaining = []
    for unit in units:
        if store.missing(unit):
            remaining.append(unit)
        elif on_part:
            on_part(store.read(unit))
    before = sum(len(unit.items) for unit in units) - sum(len(unit.items) for unit in remaining)

    def done(unit: Unit) -> None:
        bar.update(len(unit.items))
        if on_part:
            on_part(store.read(unit))

    work = _BatchWork(measure, dict(enumerate(batches)))
    total = sum(len(unit.items) for unit in units)
    with progress_bar(label, total, show=progress, initial=before) as bar, store.claims() as claims:
        if remaining:
            with open_cluster(lalm, ray) as cluster:
                compute = compute_here if cluster is None else cluster.compute
                compute(lalm, work, remaining, store, claims, done)
        claims.remove()
    return [store.read(unit) for unit in units]


@dataclass(frozen=True)
class _BatchWork:
    """A measurement and the batches by number."""

    measure: Measure
    batches: Mapping[int, Any]

    def compute(self, lalm: LALM, unit: Unit) -> dict[str, MeasuredBatch]:
        return {PART: self.measure(lalm, self.batches[unit.batch])}

    def only(self, units: Iterable[Unit]) -> _BatchWork:
        return _BatchWork(self.measure, {unit.batch: self.batches[unit.batch] for unit in units})

    def with_absolute_paths(self) -> _BatchWork:
        return _BatchWork(self.measure, {n: absolute(batch) for n, batch in self.batches.items()})


def _names(batch: Any) -> list[str]:
    """Ids of the items of a batch."""
    if isinstance(batch, Prompt):
        return [item.id for item in batch.items]
    if isinstance(batch, Item):
        return [batch.id]
    return [name for entry in batch for name in _names(entry[0] if isinstance(entry, tuple) else entry)]


def batch_identity(
    lalm: LALM, stage: str, batches: Sequence[Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides what is measured: model, settings, and the content of every batch.

    Args:
        lalm: The model; its name and revision may differ, the rest of its fingerprint may not.
        stage: Name of the stage.
        batches: As in `measure_batches`; the audio of items is decoded.
        settings: Settings of the stage, as plain data.
    """
    model = {k: v for k, v in lalm.fingerprint().items() if k not in ("name", "revision")}
    rate = None if lalm.processor is None else lalm.sampling_rate
    return plain(
        {
            "version": 1,
            "stage": stage,
            "model": model,
            "chat_template": template_sha256(lalm.processor),
            **({"thinking": thinking_settings(lalm)} if _open_thought(lalm, batches) else {}),
            "settings": settings,
            "batches": [_batch_digests(batch, rate) for batch in batches],
        }
    )


def _open_thought(lalm: LALM, batches: Sequence[Any]) -> bool:
    """Whether some prompt ends in an open thought."""
    if isinstance(batches, Prompt):
        return batches.thought is not None
    if isinstance(batches, Item):
        return lalm.opens_thought
    if not isinstance(batches, list | tuple):
        return False
    return any(_open_thought(lalm, entry) for entry in batches)


def _batch_digests(batch: Any, rate: int | None) -> list[list[str]]:
    """Of each entry of a batch, its id and a digest of its content."""
    if isinstance(batch, Prompt):
        return [["prompt", _prompt_digest(batch)]]
    return [[_names([entry])[0], _digest(entry, rate)] for entry in batch]


def _digest(entry: Any, rate: int | None) -> str:
    if isinstance(entry, tuple):
        return hashlib.sha256("".join(_digest(part, rate) for part in entry).encode()).hexdigest()
    if isinstance(entry, Prompt):
        return _prompt_digest(entry)
    if not isinstance(entry, Item):
        return repr(entry)
    try:
        audio = joint_sha256(entry.load_clips(rate)) if entry.clips else ""
        return item_digest(entry, audio)
    except ItemError as error:  # it will be left out, for this reason
        return item_digest(entry, str(error))


def item_digest(item: Item, audio_sha256: str) -> str:
    """Two digests joined by a dash: of an item's texts and labels, and of its decoded audio."""
    texts: list[Any] = [item.id, item.question, item.caption, list(item.choices), item.answer]
    try:
        labels = [item.cluster, item.domain, item.kind, item.condition]
    except ItemError:  # its audio cannot be decoded
        labels = [item.source, item.domain, item.kind, item.condition]
    return f"{hashlib.sha256(json.dumps([*texts, *labels]).encode()).hexdigest()}-{audio_sha256}"


def _prompt_digest(prompt: Prompt) -> str:
    """SHA-256 of a prompt's inputs and groups."""
    digest = hashlib.sha256()
    for name, value in sorted([*prompt.inputs.items(), *prompt.groups.items()]):
        values = np.asarray(value.detach().cpu().float()) if isinstance(value, Tensor) else value
        content = values.tobytes() if isinstance(values, np.ndarray) else repr(values).encode()
        digest.update(name.encode() + content)
    return digest.hexdigest()
