"""The section with published results on a benchmark beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from ..benchmarks import Claim, Release, find_release, published_claims
from ..experiments import Run
from ..experiments.chance import chance_of
from .accuracy import accuracy
from .comparisons import Comparisons, where
from .parts import Block, Row, Section, Table
from .wording import NONE, count, number, printable

AVERAGE = "average"
SUBSETS = {"mmau": None, "mmau-test-mini": "test-mini", "mmau-test": "test", "mmar": None, "mmar-meta": None}
READ = {"source": "read in the source", "digest": "from a secondary source"}
SCORES = {"official": "official score", "correct": "option-aware score"}


def claims_section(run: Run, comparisons: Comparisons) -> Section | None:
    """Measured and published accuracies on MMAU and MMAR, in separate blocks; None for other benchmarks."""
    release = find_release(run.manifest["data"].get("file_sha256") or "")
    claims = _claims(run.manifest["data"], release)
    scored = run.records.dropna(subset=["answer"])
    if not claims or scored.empty:
        return None
    domains = list(dict.fromkeys(domain for claim in claims for domain in claim.accuracy))
    names = comparisons.with_role("baseline", "mata") or list(comparisons.conditions)[:1]
    measured = [
        Row(
            [f"{comparisons.label(name)}, {label}", *_measured(scored, name, score, domains)],
            "primary",
            {"condition": printable(name), "score": score},
        )
        for name in names
        for score, label in SCORES.items()
    ]
    measured.append(Row(["chance", *(_chance(scored, domain) for domain in domains)], "sham"))
    model = printable(run.manifest["model"].get("name"), 60)
    n = len(set(scored["item"]))
    table = Table(
        "Measured here and reported elsewhere, %.",
        ("", *domains),
        [Block(measured, f"Measured here: {model}, {count(n, 'item')}"), *_blocks(claims)],
        f"{_file(release, n)} The rows below the measurement are reported by their sources for other models, "
        "with other prompts and scoring; they were not reproduced here and are not directly comparable. "
        "Intervals of the measurement are 95\u00a0% intervals over clips; the sources give none.",
    )
    return Section("published", "Published results", [("table", table)])


def _claims(data: Mapping[str, Any], release: Release | None) -> tuple[Claim, ...]:
    """Published results on the released file, if it is one; else on the benchmark with the data's name."""
    if release is not None:
        return published_claims(release.benchmark, release.subset)
    name = str(data["name"]).lower()
    return published_claims(name.partition("-")[0], SUBSETS[name]) if name in SUBSETS else ()


def _measured(scored: pd.DataFrame, name: str, score: str, domains: Sequence[str]) -> list[str]:
    part = where(scored, {"condition": name})
    return [
        accuracy(part if domain == AVERAGE else where(part, {"domain": domain}), score) for domain in domains
    ]


def _chance(scored: pd.DataFrame, domain: str) -> str:
    return number(100 * chance_of(scored if domain == AVERAGE else where(scored, {"domain": domain})), 1)


def _blocks(claims: Sequence[Claim]) -> list[Block]:
    """One block per source and subset, with a heading that says so."""
    domains = list(dict.fromkeys(domain for claim in claims for domain in claim.accuracy))
    blocks = []
    for (subset, version, source, read), members in groupby(
        claims, key=lambda claim: (claim.subset, claim.version, claim.source, claim.read)
    ):
        rows = [
            Row([
                claim.model if claim.method == "baseline" else f"{claim.model} with {claim.method}",
                *(number(100 * claim.accuracy[d], 1) if d in claim.accuracy else NONE for d in domains),
            ])
            for claim in members
        ]  # fmt: skip
        which = " ".join(word for word in (subset, version) if word)
        title = (
            f"Reported elsewhere, not measured here{f': {which}' if which else ''}; {source}; {READ[read]}"
        )
        blocks.append(Block(rows, title))
    return blocks


def _file(release: Release | None, n: int) -> str:
    if release is None:
        return (
            "The data file is not a known release: its items may differ from those of the published results."
        )
    return f"Measured on {n:,} of the {release.records:,} records of {release.file}, as released."
