"""Identity of a run: the fields of the manifest that determine its tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..execution.comparison import first_difference, short
from ..execution.files import plain

__all__ = ["IDENTITY", "difference", "identity", "run_digest"]

IDENTITY = (
    "version",
    "model",
    "chat_template",
    "generation",
    "thinking",
    "data",
    "prompt_format",
    "prompt_wording",
    "seed",
    "batch_size",
    "conditions",
    "excluded",
    "batches",
    "audio_from",
)
"""Fields of the manifest that determine the tables; the others describe how they were made."""

_OPTIONAL = ("chat_template", "thinking")  # fields that are no part of the digest of a manifest without them

_NAMED = 3  # items named in a message


def run_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all that determines the tables; each part carries that of its run."""
    return hashlib.sha256(json.dumps(identity(manifest), sort_keys=True).encode()).hexdigest()


def identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a manifest that determine the tables, as plain data."""
    names = [name for name in IDENTITY if name in manifest or name not in _OPTIONAL]
    return plain({name: _comparable(manifest, name) for name in names})


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """The first difference between two manifests in words; None if they are of the same run.

    Args:
        there: The manifest of a folder.
        here: A manifest, or those of its fields that are known so far.
    """
    here = plain(here)
    for name in IDENTITY:
        if name not in here:
            continue
        old, new = _comparable(there, name), _comparable(here, name)
        if name == "data" and (changes := _data_difference(old or {}, new)):
            return changes
        if change := first_difference(old, new, name):
            field, old, new = change
            return f"in its manifest {field} is {short(old)}, here it is {short(new)}"
    return None


def _essence(manifest: Mapping[str, Any], field: str) -> Any:
    """The field without what does not matter: the same weights may go by another name, in another folder."""
    value = manifest.get(field)
    if field == "model" and isinstance(value, Mapping):
        return {name: part for name, part in value.items() if name not in ("name", "revision")}
    return value


def _comparable(manifest: Mapping[str, Any], field: str) -> Any:
    """The field's essence without what depends on the file that the items came from.

    The same items in another order, or in a file with another name or layout, make the same batches.
    """
    value = _essence(manifest, field)
    if field == "data" and isinstance(value, Mapping) and "digests" in value:
        return {name: part for name, part in value.items() if name not in ("name", "file_sha256")}
    if field == "excluded" and isinstance(value, list):
        return sorted(value, key=lambda row: json.dumps(row, sort_keys=True))
    return value


def _data_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Which items changed, came or went, and what of them; None where their digests do not tell."""
    old, new = there.get("digests"), here.get("digests")
    if not old or not new or old == new:
        return None
    gone, come = [id for id in old if id not in new], [id for id in new if id not in old]
    texts, sounds = (
        [id for id in old if id in new and old[id].split("-")[part] != new[id].split("-")[part]]
        for part in (0, 1)
    )
    changes = [
        f"{len(ids)} item(s) {what} ({', '.join(map(repr, ids[:_NAMED]))}{', ...' * (len(ids) > _NAMED)})"
        for what, ids in (
            ("with another sound", sounds),
            ("with other words or labels", texts),
            ("that are gone or cannot be used any more", gone),
            ("that were not there", come),
        )
        if ids
    ]
    return "the data have changed: there are " + ", ".join(changes)
