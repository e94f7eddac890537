"""Published files and results: hashes of released data files, and accuracies reported in papers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Claim", "Release", "find_release", "published_claims"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Release:
    """A released data file.

    Attributes:
        benchmark: name of the benchmark.
        subset: part of the benchmark.
        records: number of records.
        file: name of the file.
        sha256: hash of the file.
    """

    benchmark: str
    subset: str
    records: int
    file: str
    sha256: str


@dataclass(frozen=True)
class Claim:
    """Accuracies that a publication reports, for comparison with a measurement; not values to expect.

    Attributes:
        benchmark: name of the benchmark.
        subset: part of the benchmark.
        version: version of the benchmark.
        model: name of the model.
        method: method that the model was run with.
        accuracy: domain, or ``"average"`` -> fraction.
        source: the publication.
        read: ``"source"`` if the figures come from the publication, ``"digest"`` if from a summary of it.
    """

    benchmark: str
    subset: str
    version: str
    model: str
    method: str
    accuracy: Mapping[str, float]
    source: str
    read: str


def find_release(sha256: str) -> Release | None:
    """The released file with this SHA-256; None if there is none."""
    releases = (Release(**row) for row in json.loads((_HERE / "released.json").read_text("utf-8")))
    return next((release for release in releases if release.sha256 == sha256), None)


def published_claims(benchmark: str, subset: str | None = None) -> tuple[Claim, ...]:
    """Published accuracies on a benchmark; empty if none are known.

    Args:
        benchmark: name of the benchmark.
        subset: part of the benchmark; ``None`` for all.

    Examples:
        >>> claims = published_claims("mmau", "test")
        >>> [claim.accuracy["average"] for claim in claims if claim.method == "MATA"]
        [0.573, 0.737]
    """
    claims = (Claim(**row) for row in json.loads((_HERE / "published.json").read_text("utf-8")))
    matching = (claim for claim in claims if claim.benchmark == benchmark)
    return tuple(claim for claim in matching if subset is None or claim.subset == subset)
