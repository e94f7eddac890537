"""The comparisons of a study, fixed before any result is seen.

- ``primary``: MATA against the baseline, correct answers by unnormalised log-probability, on items whose
  caption contradicts the audio (on all items where there are none such). One hypothesis.
- ``mata``: correct answers and margin, on conflict, neutral and congruent items. Holm's correction is over
  these hypotheses on MATA, the primary one among them: six in all.
- ``sham``: the same rule on text, in random layers or heads, and with random signs; MATA with another item's,
  silent or reversed audio (against that audio's own baseline); and MATA against each sham that has the item's
  own audio. These are controls, and not corrected.
- ``no_harm``: claims that MATA does no harm on the items that it is not meant to help: correct answers within
  5 points, and a margin that is not lower by 0.1 nats. A family of its own, with Holm's correction over its
  claims.
- ``descriptive``: by domain, over all items, length-normalised, by the official string match, and without or
  with other audio. Not corrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import pandas as pd

from ..errors import RunError
from .conditions import Role

__all__ = ["CONFLICT", "Comparison", "Family", "comparisons", "no_harm_comparisons", "primary_subset"]

CONFLICT = "conflict"
CAPTIONS = (CONFLICT, "neutral", "congruent")

Kind = Literal["binary", "margin"]
Family = Literal["primary", "mata", "sham", "no_harm", "descriptive"]
Score = Literal["", "normalised", "official"]

SCORE_NAMES = {"": "", "normalised": ", length-normalised", "official": ", official score"}

SHAM_ROLES: tuple[Role, ...] = ("sham_text", "sham_random_layers", "sham_random_heads", "sham_random_signs")
OTHER_AUDIO: tuple[tuple[Role, Role], ...] = (
    ("other_audio", "mata_other_audio"),
    ("silence", "mata_silence"),
    ("reversed_audio", "mata_reversed_audio"),
)
UNEDITED: tuple[Role, ...] = ("other_audio", "no_audio", "silence", "reversed_audio")


@dataclass(frozen=True)
class Comparison:
    """One condition against another, on a subset of the items.

    Attributes:
        before, after: Names of the two conditions.
        before_role, after_role: What the conditions are in the study.
        subset: Column of the records -> the value it must have; empty for all items.
        kind: ``"binary"`` for correct answers, ``"margin"`` for log-probability differences.
        family: Why the comparison is made; see the module's description.
        score: How answers are scored: by summed log-probability (``""``), per token, or by string match.
    """

    before: str
    after: str
    before_role: Role
    after_role: Role
    subset: Mapping[str, str]
    kind: Kind
    family: Family
    score: Score = ""

    @property
    def name(self) -> str:
        """For example ``mata vs baseline, length-normalised``."""
        return f"{self.after} vs {self.before}{SCORE_NAMES[self.score]}"

    @property
    def column(self) -> str:
        """The records' column that is compared."""
        if self.score == "official":
            return "official"
        plain = {"binary": "correct", "margin": "margin"}[self.kind]
        return f"{plain}_{self.score}" if self.score else plain

    def to_dict(self) -> dict[str, Any]:
        """Names, roles, subset and score as plain data; `from_dict` reads them back, with ``kind``."""
        return {
            "name": self.name,
            "before_condition": self.before,
            "after_condition": self.after,
            "before_role": self.before_role,
            "after_role": self.after_role,
            "subset": dict(self.subset),
            "column": self.column,
            "score": self.score,
            "family": self.family,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """The comparison that `to_dict` described.

        Raises:
            KeyError: A field is missing.
        """
        return cls(
            before=data["before_condition"],
            after=data["after_condition"],
            before_role=data["before_role"],
            after_role=data["after_role"],
            subset=data["subset"],
            kind=data["kind"],
            family=data["family"],
            score=data["score"],
        )


def primary_subset(records: pd.DataFrame) -> dict[str, str]:
    """Conflict items if there are any, else all items."""
    return {"caption_condition": CONFLICT} if CONFLICT in set(records["caption_condition"]) else {}


def comparisons(records: pd.DataFrame, roles: Mapping[str, Role]) -> Iterator[Comparison]:
    """The comparisons of a study in the order of the table, as far as the records have what they need.

    Args:
        records: Records of a study's run, with known answers.
        roles: Name of each condition -> its role; a role other than ``"sham_random_layers"`` occurs once.

    Raises:
        RunError: No condition has the role ``"baseline"`` or ``"mata"``.
    """
    done = set(records["condition"])
    names: dict[Role, str] = {role: name for name, role in roles.items() if name in done}
    if missing := {"baseline", "mata"} - set(names):
        raise RunError(f"A study needs a condition with the role {min(missing)!r}; there are {roles}.")
    planned = (_on_mata(records, names), _on_shams(records, roles, names), _descriptive(records, names))
    for comparison in chain(*planned):
        if bool(records[comparison.column].notna().to_numpy().any()):  # generated answers have no margins
            yield comparison


def _pair(
    names: Mapping[Role, str],
    after: Role,
    before: Role,
    subset: Mapping[str, str],
    kind: Kind,
    family: Family,
) -> Comparison:
    return Comparison(names[before], names[after], before, after, subset, kind, family)


def _caption_subsets(records: pd.DataFrame) -> list[dict[str, str]]:
    captions = [name for name in CAPTIONS if name in set(records["caption_condition"])]
    return [{"caption_condition": name} for name in captions] or [{}]


def _on_mata(records: pd.DataFrame, names: Mapping[Role, str]) -> Iterator[Comparison]:
    """The hypotheses on MATA, the primary one first."""
    main = primary_subset(records)
    yield _pair(names, "mata", "baseline", main, "binary", "primary")
    for subset in _caption_subsets(records):
        if subset != main:
            yield _pair(names, "mata", "baseline", subset, "binary", "mata")
        yield _pair(names, "mata", "baseline", subset, "margin", "mata")


def _on_shams(
    records: pd.DataFrame, roles: Mapping[str, Role], names: Mapping[Role, str]
) -> Iterator[Comparison]:
    """Each sham against its baseline, then MATA against each sham that has the item's own audio."""
    main, subsets = primary_subset(records), _caption_subsets(records)
    shams = [name for name in records["condition"].unique() if roles[name] in SHAM_ROLES]
    pairs = [
        Comparison(names["baseline"], name, "baseline", roles[name], main, "binary", "sham") for name in shams
    ]
    for without, with_mata in OTHER_AUDIO:
        if {without, with_mata} <= set(names):
            pairs.append(_pair(names, with_mata, without, main, "binary", "sham"))
    for pair in pairs:
        for subset in subsets:
            yield replace(pair, subset=subset)
        yield replace(pair, kind="margin")
    kinds: tuple[Kind, Kind] = ("binary", "margin")
    for name in shams:
        for kind in kinds:
            yield Comparison(name, names["mata"], roles[name], "mata", main, kind, "sham")


def _descriptive(records: pd.DataFrame, names: Mapping[Role, str]) -> Iterator[Comparison]:
    """Comparisons that describe and are not tested as hypotheses."""
    main, subsets = primary_subset(records), _caption_subsets(records)
    on_all = _pair(names, "mata", "baseline", {}, "binary", "descriptive")
    if main:
        yield on_all
        yield replace(on_all, kind="margin")
    for subset in subsets:
        yield replace(on_all, subset=subset, score="normalised")
    if "official" in records and bool(records["official"].notna().to_numpy().all()):
        for subset in subsets:
            yield replace(on_all, subset=subset, score="official")
    for domain in sorted(set(records["domain"]) - {""}):
        for subset in [{}, main] if main else [{}]:
            yield replace(on_all, subset={"domain": domain, **subset})
    for other in UNEDITED:
        if other in names:
            for subset in subsets:
                yield _pair(names, other, "baseline", subset, "binary", "descriptive")


def no_harm_comparisons(records: pd.DataFrame, roles: Mapping[str, Role]) -> Iterator[Comparison]:
    """MATA against the baseline on the items that it is not meant to help: those of no conflict.

    Where no item has a caption that contradicts the audio, the claims are on all items.

    Args:
        records, roles: As in `comparisons`.
    """
    main = primary_subset(records)
    for comparison in comparisons(records, roles):
        if comparison.family in ("primary", "mata") and (comparison.subset != main or not main):
            yield replace(comparison, family="no_harm")
