"""What others published: files as they were released, and accuracies as they were claimed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Claim", "Release", "published", "release_of"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Release:
    """A data file that is known: which it is, its number of records, its SHA-256."""

    benchmark: str
    subset: str
    records: int
    file: str
    sha256: str


@dataclass(frozen=True)
class Claim:
    """Accuracies that others report: lines to set beside a measurement, never values to expect.

    Attributes:
        accuracy: domain, or ``"average"`` -> fraction.
        read: ``"source"``: the figures were read there; ``"digest"``: only in a digest of it.
    """

    benchmark: str
    subset: str
    version: str
    model: str
    method: str
    accuracy: Mapping[str, float]
    source: str
    read: str


def release_of(sha256: str) -> Release | None:
    """The released file that has this SHA-256, if it is a known one."""
    releases = (Release(**row) for row in json.loads((_HERE / "released.json").read_text("utf-8")))
    return next((release for release in releases if release.sha256 == sha256), None)


def published(benchmark: str, subset: str | None = None) -> tuple[Claim, ...]:
    """Others' claims about a benchmark, of one subset or of all; none where none is on file.

    Examples:
        >>> [claim.accuracy["average"] for claim in published("mmau", "test") if claim.method == "MATA"]
        [0.573, 0.737]
    """
    claims = (Claim(**row) for row in json.loads((_HERE / "published.json").read_text("utf-8")))
    kept = (claim for claim in claims if claim.benchmark == benchmark)
    return tuple(claim for claim in kept if subset is None or claim.subset == subset)
