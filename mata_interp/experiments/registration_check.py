"""Whether a study kept to its preregistration, as it stands in ``registration.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from .schema import from_plain, read_versioned, write_versioned

__all__ = ["REGISTRATION", "RegistrationCheck"]

REGISTRATION = "registration.json"


@dataclass(frozen=True)
class RegistrationCheck:
    """Whether a study kept to its preregistration.

    Attributes:
        file: The preregistration.
        sha256: SHA-256 of its plan.
        created: When it was written.
        hypotheses: The registered hypotheses on MATA, in words.
        deviations: In what the study departs from the plan; empty if it kept to it.
    """

    file: str
    sha256: str
    created: str
    hypotheses: tuple[str, ...]
    deviations: tuple[str, ...]

    @property
    def matches_plan(self) -> bool:
        """Whether the study did what was registered, and nothing was computed before."""
        return not self.deviations

    def save(self, path: str | Path) -> None:
        """Write ``registration.json``; RunError if the file cannot be written."""
        write_versioned(Path(path), **asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> RegistrationCheck:
        """Read ``registration.json``; RunError if it cannot be read or lacks a field."""
        content = read_versioned(Path(path))
        del content["version"]
        return from_plain(cls, content, path)
