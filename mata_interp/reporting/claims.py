"""The section that sets what others report of a benchmark beside what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from ..benchmarks import Claim, Release, find_release, published_claims
from ..experiments import Run
from ..experiments.effects import BASELINE, MATA
from .accuracy import accuracy
from .comparisons import Comparisons, where
from .parts import Block, Row, Section, Table
from .wording import NONE, count, number, printable

AVERAGE = "average"
SUBSETS = {"mmau": None, "mmau-test-mini": "test-mini", "mmau-test": "test", "mmar": None, "mmar-meta": None}
READ = {"source": "read in the source itself", "digest": "known only from a digest of it"}
SCORES = {"official": "official score", "correct": "option-aware score"}


def claims_section(run: Run, comparisons: Comparisons) -> Section | None:
    """Measured and claimed accuracies of MMAU and MMAR, clearly apart; None for other benchmarks."""
    release = find_release(run.manifest["data"].get("file_sha256") or "")
    claims = _claims(run.manifest["data"], release)
    scored = run.records.dropna(subset=["answer"])
    if not claims or scored.empty:
        return None
    domains = list(dict.fromkeys(domain for claim in claims for domain in claim.accuracy))
    named = [name for name in (BASELINE, MATA) if name in run.manifest["conditions"]]
    measured = [
        Row([f"{comparisons.label(name)}, {told}", *_measured(scored, name, score, domains)], "primary")
        for name in named or list(run.manifest["conditions"])[:1]
        for score, told in SCORES.items()
    ]
    model = printable(run.manifest["model"].get("name"), 60)
    n = len(set(scored["item"]))
    table = Table(
        "Measured here, and claimed by others, %.",
        ("", *domains),
        [Block(measured, f"Measured here: {model}, {count(n, 'item')}"), *_blocks(claims)],
        f"{_file(release, n)} What stands below the measurement is what others report of other models, with "
        "their prompts and their way of scoring, and was not checked here: lines to look at, not values to "
        "expect. Intervals of the measurement are 95\u00a0%, clips whole; the sources give none.",
    )
    return Section("published", "Beside what others report", [("table", table)])


def _claims(data: Mapping[str, Any], release: Release | None) -> tuple[Claim, ...]:
    """Those about the released file, where it is one; else about the benchmark the data are named after."""
    if release is not None:
        return published_claims(release.benchmark, release.subset)
    name = str(data["name"]).lower()
    return published_claims(name.partition("-")[0], SUBSETS[name]) if name in SUBSETS else ()


def _measured(scored: pd.DataFrame, name: str, score: str, domains: Sequence[str]) -> list[str]:
    part = where(scored, {"condition": name})
    return [
        accuracy(part if domain == AVERAGE else where(part, {"domain": domain}), score) for domain in domains
    ]


def _blocks(claims: Sequence[Claim]) -> list[Block]:
    """A block for each source and subset, headed as what it is."""
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
        title = f"Claimed by others, not measured here{f': {which}' if which else ''}; {source}; {READ[read]}"
        blocks.append(Block(rows, title))
    return blocks


def _file(release: Release | None, n: int) -> str:
    if release is None:
        return "The data file is not one that is known as released: its items may not be those of the claims."
    return f"Measured on {n:,} of the {release.records:,} records of {release.file}, as released."
