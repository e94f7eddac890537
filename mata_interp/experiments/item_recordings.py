"""Recordings of items for the item view: attention over time, audio, texts. Any numpy reads them.

``items.npz`` in a run folder is an archive of arrays without pickle:

- ``mean`` float16 [items, conditions, layers, bins]: attention of the last prompt token to each time bin,
  mean over heads, NaN where an item has fewer bins;
- ``edges`` float32 [items, bins + 1]: edges of the bins in seconds, NaN after an item's last;
- ``layers`` int [layers]: index in the decoder;
- for some items n: ``n.heads`` float16 [conditions, layers, heads, bins], ``n.audio`` (an Ogg file as bytes),
  ``n.peaks`` int8 [2, P] and ``n.spectrogram`` uint8 [bands, frames];
- ``notes``: JSON as bytes, with the schema version, the conditions and a few words on every item.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..execution.files import plain, write_whole

__all__ = ["RECORDINGS", "SCHEMA_VERSION", "ItemRecording", "ItemRecordings", "load_recordings"]

RECORDINGS = "items.npz"
SCHEMA_VERSION = 1

_DETAILS = ("heads", "audio", "peaks", "spectrogram")


@dataclass(frozen=True, eq=False)
class ItemRecording:
    """What was recorded of one item.

    Attributes:
        item: Id of the item.
        question, caption: Its texts.
        edges: Edges of the time bins in seconds, [bins + 1]; empty where attention was not recorded.
        mean: Attention to each bin, mean over heads: [conditions, layers, bins].
        heads: The same by head: [conditions, layers, heads, bins]; None if not recorded.
        audio: The audio that the model received, as an Ogg file; None if not recorded.
        peaks: Outline of the waveform, int8 [2, P], as `waveform_peaks` makes it.
        spectrogram: Mel bands from low to high, uint8 [bands, frames], as `mel_spectrogram` makes it.
        top_hz: Upper edge of the spectrogram, in Hz.
        clip_starts: Where each clip begins, in seconds.
        truncated_seconds: Seconds cut off because the model takes no more.
        problem: What could not be recorded, and why; "" if nothing failed.
    """

    item: str
    question: str = ""
    caption: str = ""
    edges: np.ndarray = field(default_factory=lambda: np.empty(0))
    mean: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    heads: np.ndarray | None = None
    audio: bytes | None = None
    peaks: np.ndarray | None = None
    spectrogram: np.ndarray | None = None
    top_hz: float = 0.0
    clip_starts: tuple[float, ...] = (0.0,)
    truncated_seconds: float = 0.0
    problem: str = ""

    @property
    def seconds(self) -> float:
        """Duration of the audio that the model received; 0 where it was not recorded."""
        return float(self.edges[-1]) if len(self.edges) else 0.0

    def notes(self) -> dict[str, Any]:
        """What is not an array."""
        names = ("item", "question", "caption", "top_hz", "clip_starts", "truncated_seconds", "problem")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False, repr=False)
class ItemRecordings:
    """The recordings of a run.

    Attributes:
        conditions: Names of the recorded conditions: the baseline, MATA, and the sham if there is one.
        layers: Index in the decoder of each recorded layer.
        items: Item id -> recording.
        seed: Seed of the draw of items with heads and audio.
    """

    conditions: tuple[str, ...]
    layers: tuple[int, ...]
    items: Mapping[str, ItemRecording]
    seed: int = 0

    def __repr__(self) -> str:
        return f"<ItemRecordings: {len(self.items)} items, {len(self.detailed)} with heads or audio>"

    @property
    def detailed(self) -> tuple[str, ...]:
        """Ids of the items whose heads or audio were recorded."""
        return tuple(id for id, one in self.items.items() if one.heads is not None or one.peaks is not None)

    @property
    def failed(self) -> Mapping[str, str]:
        """Item id -> what could not be recorded."""
        return {id: one.problem for id, one in self.items.items() if one.problem}

    def updated(self, more: Iterable[ItemRecording]) -> ItemRecordings:
        """The same with some items recorded again or added."""
        return replace(self, items={**self.items, **{one.item: one for one in more}})

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and notes as they stand in the file."""
        items = list(self.items.values())
        bins = max((one.mean.shape[-1] for one in items), default=0)
        mean = np.full((len(items), len(self.conditions), len(self.layers), bins), np.nan, np.float16)
        edges = np.full((len(items), bins + 1), np.nan, np.float32)
        arrays: dict[str, np.ndarray] = {"mean": mean, "edges": edges, "layers": np.array(self.layers, int)}
        for number, one in enumerate(items):
            if len(one.edges):
                mean[number, ..., : one.mean.shape[-1]] = one.mean
                edges[number, : len(one.edges)] = one.edges
            for name in _DETAILS:
                if (value := getattr(one, name)) is not None:
                    arrays[f"{number}.{name}"] = _as_array(name, value)
        notes = {
            "version": SCHEMA_VERSION,
            "conditions": list(self.conditions),
            "seed": self.seed,
            "items": [one.notes() for one in items],
        }
        return arrays, plain(notes)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> ItemRecordings:
        """What `to_arrays` returned."""
        mean, edges = arrays["mean"], arrays["edges"]
        items: dict[str, ItemRecording] = {}
        for number, about in enumerate(notes["items"]):
            own_edges = edges[number].astype(np.float64)
            own_edges = own_edges[~np.isnan(own_edges)]
            details: dict[str, Any] = {
                name: arrays[key] for name in _DETAILS if (key := f"{number}.{name}") in arrays
            }
            if "audio" in details:
                details["audio"] = details["audio"].tobytes()
            items[about["item"]] = ItemRecording(
                **{**about, "clip_starts": tuple(about["clip_starts"])},
                edges=own_edges,
                mean=mean[number, ..., : max(len(own_edges) - 1, 0)],
                **details,
            )
        layers = tuple(int(layer) for layer in arrays["layers"])
        return cls(tuple(notes["conditions"]), layers, items, int(notes["seed"]))

    def save(self, path: Path, identity: Mapping[str, Any] | None = None) -> None:
        """Write the file, whole or not at all.

        Args:
            path: The file.
            identity: What decides its content, which `load_recordings` does not need.
        """
        arrays, notes = self.to_arrays()
        text = json.dumps({**notes, "identity": plain(identity or {})}, allow_nan=False)
        arrays["notes"] = np.frombuffer(text.encode(), np.uint8)
        write_whole(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def _as_array(name: str, value: Any) -> np.ndarray:
    if name == "audio":
        return np.frombuffer(value, np.uint8)
    return value.astype(np.float16) if name == "heads" else value


def load_recordings(path: str | Path) -> ItemRecordings:
    """Read ``items.npz`` of a run folder.

    Args:
        path: The file.

    Raises:
        RunError: The file is damaged or has another schema version.
    """
    arrays, notes = read_archive(Path(path))
    return ItemRecordings.from_arrays(arrays, notes)


def read_archive(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and notes of the file.

    Raises:
        RunError: The file is damaged or has another schema version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        notes = json.loads(arrays.pop("notes").tobytes())
        version = notes["version"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:80]
        raise RunError(
            f"cannot read {path}: {reason}. Delete it, and run the same command again to record the items."
        ) from error
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema version {version}, and this mata_interp reads version {SCHEMA_VERSION}. "
            "Delete it, and run the study again to record the items."
        )
    return arrays, notes


def joined(parts: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]) -> ItemRecordings:
    """The recordings of several batches, in order; all have the same conditions and layers."""
    read = [ItemRecordings.from_arrays(arrays, notes) for arrays, notes in parts]
    items = {id: one for some in read for id, one in some.items.items()}
    return replace(read[0], items=items)
