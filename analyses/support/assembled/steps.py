"""Steps of a build, each skipped while its settings, inputs and outputs are those of the last time."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .parts import sha256

__all__ = ["Steps"]

JSONValue = str | int | float | bool | None | Sequence["JSONValue"] | Mapping[str, "JSONValue"]


class Steps:
    """Run the steps of a build in order, and record what they wrote.

    The record holds, per step, a key (the SHA-256 of its settings and of the files it reads) and the SHA-256
    of every file it wrote.

    Args:
        folder: paths are recorded relative to it.
        record: the file of the record.
    """

    def __init__(self, folder: Path, record: Path) -> None:
        self.folder, self.path = folder, record
        self.record: dict[str, dict] = json.loads(record.read_text()) if record.exists() else {}

    def run(
        self,
        name: str,
        action: Callable[[], None],
        outputs: Sequence[Path],
        inputs: Sequence[Path] = (),
        settings: JSONValue = None,
    ) -> bool:
        """Run one step unless it was done before; return whether it ran.

        Args:
            name: of the step.
            action: writes the outputs.
            outputs: files, or folders whose files all count, subfolders included.
            inputs: files that the step reads.
            settings: everything else that the outputs depend on.
        """
        hashes = [sha256(path) for path in inputs]
        key = hashlib.sha256(json.dumps([settings, hashes], sort_keys=True).encode()).hexdigest()
        before = self.record.get(name, {})
        if before.get("key") == key and before.get("outputs") and before["outputs"] == self._hashes(outputs):
            self._say(f"{name}: done before")
            return False
        self._say(f"{name} ...")
        started = time.monotonic()
        action()
        self.record[name] = {"key": key, "outputs": self._hashes(outputs)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.record, indent=1) + "\n")
        partial.replace(self.path)
        self._say(f"{name}: {time.monotonic() - started:.0f} s")
        return True

    def _hashes(self, outputs: Sequence[Path]) -> dict[str, str]:
        """SHA-256 of all files that exist among the outputs, by path relative to the folder."""
        files = [file for path in outputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        return {str(file.relative_to(self.folder)): sha256(file) for file in files if file.is_file()}

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)
