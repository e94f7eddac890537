"""The effects table of a study: which comparisons are made, decided before any number is seen.

- ``primary``: MATA against the baseline, right answers by unnormalised log-probability, on items whose
  caption contradicts the sound (on all items where there are none such). One hypothesis, fixed beforehand.
- ``mata``: right answers and margin, on conflict, neutral and congruent items. Holm's correction is over
  these hypotheses on MATA, the primary one among them: six in all.
- ``sham``: the same rule on text, in random layers, on another item's audio (against that audio's own
  baseline), and MATA against each sham. Controls, not discoveries: not corrected.
- ``descriptive``: by domain, over all items, length-normalised, by the official string match, what the audio
  is worth. Not corrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ..statistics import holm, paired_effect

__all__ = ["BASELINE", "Comparison", "comparisons", "effects_table", "primary_subset"]

BASELINE, MATA, MATA_ON_TEXT, RANDOM_LAYERS = "baseline", "mata", "mata on text", "mata in random layers"
OTHER, MATA_OTHER, SILENT = "other audio", "mata + other audio", "no audio"
CONFLICT = "conflict"
CAPTIONS = (CONFLICT, "neutral", "congruent")

Kind = Literal["binary", "margin"]


@dataclass(frozen=True)
class Comparison:
    """``after`` against ``before``, on the items for which each column of ``subset`` has that value."""

    after: str
    before: str
    subset: Mapping[str, str]
    kind: Kind
    family: Literal["primary", "mata", "sham", "descriptive"]
    score: Literal["", "normalised", "official"] = ""

    @property
    def name(self) -> str:
        said = {"": "", "normalised": ", length-normalised", "official": ", official score"}[self.score]
        return f"{self.after} vs {self.before}{said}"

    @property
    def column(self) -> str:
        """The records' column that is compared."""
        if self.score == "official":
            return "official"
        plain = {"binary": "correct", "margin": "margin"}[self.kind]
        return f"{plain}_{self.score}" if self.score else plain


def primary_subset(records: pd.DataFrame) -> dict[str, str]:
    """Conflict items if there are any, else all items."""
    return {"caption_condition": CONFLICT} if CONFLICT in set(records["caption_condition"]) else {}


def comparisons(records: pd.DataFrame) -> Iterator[Comparison]:
    """The comparisons of a study in the order of the table, as far as these records have what they need."""
    main = primary_subset(records)
    captions = [name for name in CAPTIONS if name in set(records["caption_condition"])]
    subsets: list[dict[str, str]] = [{"caption_condition": name} for name in captions] or [{}]
    domains = sorted(set(records["domain"]) - {""})
    kinds: tuple[Kind, Kind] = ("binary", "margin")

    yield Comparison(MATA, BASELINE, main, "binary", "primary")
    for subset in subsets:
        for kind in kinds:
            if (subset, kind) != (main, "binary"):
                yield Comparison(MATA, BASELINE, subset, kind, "mata")

    done = set(records["condition"])
    shams = [
        name for name in records["condition"].unique() if name.startswith(f"{MATA} ") and name != MATA_OTHER
    ]
    pairs = [(sham, BASELINE) for sham in shams] + [(MATA_OTHER, OTHER)] * ({OTHER, MATA_OTHER} <= done)
    for after, before in pairs:
        for subset in subsets:
            yield Comparison(after, before, subset, "binary", "sham")
        yield Comparison(after, before, main, "margin", "sham")
    for sham in shams:
        for kind in kinds:
            yield Comparison(MATA, sham, main, kind, "sham")

    if main:
        for kind in kinds:
            yield Comparison(MATA, BASELINE, {}, kind, "descriptive")
    for subset in subsets:
        yield Comparison(MATA, BASELINE, subset, "binary", "descriptive", "normalised")
    if "official" in records and bool(records["official"].notna().to_numpy().all()):
        for subset in subsets:
            yield Comparison(MATA, BASELINE, subset, "binary", "descriptive", "official")
    for domain in domains:
        for subset in [{}, main] if main else [{}]:
            yield Comparison(MATA, BASELINE, {"domain": domain, **subset}, "binary", "descriptive")
    for other in (OTHER, SILENT):
        if other in done:
            for subset in subsets:
                yield Comparison(other, BASELINE, subset, "binary", "descriptive")


def effects_table(records: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """One dict a comparison: what is compared, the `Effect`, and ``p_holm`` (None outside MATA's hypotheses).

    ``before`` and ``after`` are the two means; ``before_condition`` and ``after_condition`` say of what.

    Args:
        records: of a run with the conditions of a study; items without a known answer are left out.
        seed: of permutations and bootstraps.
    """
    scored = records.dropna(subset=["answer"])
    items = scored.drop_duplicates("item").set_index("item").sort_index()
    table = []
    for comparison in comparisons(scored):
        wide = scored.pivot(index="item", columns="condition", values=comparison.column)
        effect = _compare(items, wide.astype(float), comparison, seed)
        table.append({**_described(comparison), **effect, "p_holm": None})
    family = [row for row in table if row["family"] in ("primary", "mata")]
    for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
        row["p_holm"] = float(p)
    return table


def _described(comparison: Comparison) -> dict[str, Any]:
    return {
        "name": comparison.name,
        "before_condition": comparison.before,
        "after_condition": comparison.after,
        "subset": dict(comparison.subset),
        "column": comparison.column,
        "family": comparison.family,
    }


def _compare(items: pd.DataFrame, values: pd.DataFrame, comparison: Comparison, seed: int) -> dict[str, Any]:
    """The effect on the items of the comparison's subset, paired by id.

    Args:
        items: ``[item]``, what is known of each.
        values: ``[item, condition]``, the column compared.
    """
    chosen = items
    for column, value in comparison.subset.items():
        chosen = chosen.loc[chosen[column] == value]
    paired = values.loc[chosen.index]
    return paired_effect(
        paired[comparison.before].to_numpy(),
        paired[comparison.after].to_numpy(),
        kind=comparison.kind,
        clusters=chosen["cluster"].tolist(),
        seed=seed,
    ).to_dict()
