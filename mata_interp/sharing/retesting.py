"""Measure the evidence of a shared intervention again, and say whether it is reproduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks import Item, Items
from ..errors import BenchmarkError, InterventionError
from ..experiments.validation import validate_items
from ..interventions import Evidence, SharedIntervention, from_dict
from ..statistics import Effect
from .measuring import Settings, evidence_on

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["Retest", "retest"]


@dataclass(frozen=True)
class Retest:
    """Evidence as it was shared, and as it was measured again.

    Attributes:
        before: the evidence that was shared.
        after: the evidence that was measured.
        same_data: whether the items are the same in texts, labels and decoded audio.
        model_differences: how the model differs from the one that was named; sentences.
        missing: ids of items that the benchmark lacks.

    Example:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:2]
        >>> mata = mi.Mata(1.0, layers=[4, 5])
        >>> found = mi.evidence(lalm, items, mata, sham=None, progress=False)
        >>> folder = mata.save_pretrained("shared", lalm=lalm, evidence=found)
        >>> mi.retest(folder, lalm, items, progress=False).reproduced
        True
    """

    before: Evidence
    after: Evidence
    same_data: bool
    model_differences: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def reproduced(self) -> bool:
        """Whether the change of accuracy has the same direction (by its interval; none counts as one), and
        the two intervals overlap."""
        old, new = self.before.accuracy, self.after.accuracy
        return self.before.verdict == self.after.verdict and _overlap(old, new)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return {
            "reproduced": self.reproduced,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "same_data": self.same_data,
            "model_differences": list(self.model_differences),
            "missing": list(self.missing),
        }

    def __str__(self) -> str:
        lines = [
            "Reproduced." if self.reproduced else "Not reproduced.",
            f"Shared:   {self.before.accuracy}",
            f"Measured: {self.after.accuracy}",
        ]
        if self.before.sham is not None and self.after.sham is not None:
            lines += [
                f"Against the control, shared:   {self.before.sham.difference}",
                f"Against the control, measured: {self.after.sham.difference}",
            ]
        lines.append("The items are the same." if self.same_data else "The items are not the same.")
        if self.missing:
            lines.append(f"{len(self.missing)} items are missing, the first {self.missing[0]!r}.")
        lines += [f"The model differs: {text}." for text in self.model_differences]
        return "\n".join(lines)


def retest(
    shared: str | Path | SharedIntervention,
    lalm: LALM,
    items: Sequence[Item] | Items,
    *,
    progress: bool = True,
) -> Retest:
    """Measure the evidence of a shared intervention again, on the same items with the same settings.

    Args:
        shared: a folder, a hub id, or what was read from one.
        lalm: the model.
        items: the benchmark; of it, the items that the evidence names are used.
        progress: show a bar.

    Returns:
        The `Retest`: whether the evidence is reproduced, with both intervals.

    Raises:
        InterventionError: nothing is shared there, or it has no evidence.
        BenchmarkError: none of the items is in the benchmark.

    Example:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:2]
        >>> mata = mi.Mata(1.0, layers=[4, 5])
        >>> found = mi.evidence(lalm, items, mata, sham=None, progress=False)
        >>> mata.save_pretrained("shared", lalm=lalm, evidence=found).name
        'shared'
        >>> mi.retest("shared", lalm, items, progress=False).same_data
        True
    """
    if not isinstance(shared, SharedIntervention):
        shared = SharedIntervention.read(shared)
    before = shared.evidence
    if before is None:
        raise InterventionError(
            "No evidence was shared with this intervention, so that nothing can be measured again."
        )
    by_id = {item.id: item for item in items}
    chosen = [by_id[one] for one in before.items if one in by_id]
    if not chosen:
        raise BenchmarkError(
            f"None of the {len(before.items)} items of the evidence is in this benchmark; they are of "
            f"{before.benchmark!r}."
        )
    validated = validate_items(lalm, chosen, progress=progress, scored=True, format=before.prompt_format)
    settings = Settings(before.prompt_format, before.batch_size, before.seed, progress)
    sham = None if before.sham is None else tuple(from_dict(one) for one in before.sham.interventions)
    after = evidence_on(lalm, validated, shared.intervention, sham, settings)
    tested = set(after.items)
    return Retest(
        before=before,
        after=after,
        same_data=before.data_sha256 == after.data_sha256,
        model_differences=shared.differences(lalm),
        missing=tuple(one for one in before.items if one not in tested),
    )


def _overlap(first: Effect, second: Effect) -> bool:
    """Whether two intervals have a number in common; of a change without an interval, the change itself."""
    if any(effect.low != effect.low for effect in (first, second)):  # NaN
        return first.difference == second.difference
    return first.low <= second.high and second.low <= first.high
