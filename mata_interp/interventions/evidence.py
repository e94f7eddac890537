"""What was measured of an intervention: its effect with interval, its sham, the data and the versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mata_interp.errors import InterventionError
from mata_interp.statistics import Effect

__all__ = ["Evidence", "ShamEvidence"]


@dataclass(frozen=True)
class ShamEvidence:
    """What a control did on the same items.

    Attributes:
        interventions: the control, as `to_dict` writes interventions.
        accuracy: change of accuracy from no intervention to the control.
        difference: change of accuracy from the control to the intervention.
        dose_kl: mean row KL of the control, nats; None where it has no dose.
    """

    interventions: tuple[dict[str, Any], ...]
    accuracy: Effect
    difference: Effect
    dose_kl: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; `from_dict` reads it back."""
        return {
            "interventions": list(self.interventions),
            "accuracy": self.accuracy.to_dict(),
            "difference": self.difference.to_dict(),
            "dose_kl": self.dose_kl,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ShamEvidence:
        """Rebuild from `to_dict`."""
        return cls(
            tuple(data["interventions"]),
            Effect.from_dict(data["accuracy"]),
            Effect.from_dict(data["difference"]),
            data["dose_kl"],
        )


@dataclass(frozen=True)
class Evidence:
    """What an intervention did to the answers of a benchmark, options compared by log-probability.

    Attributes:
        accuracy: change of accuracy from no intervention, on the same items.
        margin: change of log p(correct option) - log p(best wrong option), nats.
        sham: what a control did; None without one.
        benchmark: name of the benchmark.
        items: ids of the items, in order.
        clips: number of independent recordings among them.
        data_sha256: of texts, labels and decoded audio of these items, whatever their order.
        prompt_format: wording of the questions.
        batch_size: items that the model read at once.
        seed: of permutations and bootstraps.
        dose_kl: mean row KL of the intervention, nats; None where it has no dose.
        versions: library -> version.

    See Also:
        mata_interp.evidence: measures it.

    Example:
        >>> import mata_interp as mi
        >>> effect = mi.paired_effect([0, 0, 1, 0], [1, 1, 1, 0])
        >>> mi.Evidence(effect, effect, None, "mine", ("a", "b", "c", "d"), 4, "0" * 64).verdict
        'undetected'
    """

    accuracy: Effect
    margin: Effect
    sham: ShamEvidence | None
    benchmark: str
    items: tuple[str, ...]
    clips: int
    data_sha256: str
    prompt_format: str = "options"
    batch_size: int = 16
    seed: int = 0
    dose_kl: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """``"helps"`` or ``"hurts"`` where the interval of the change of accuracy excludes 0, else
        ``"undetected"``."""
        if self.accuracy.low > 0:
            return "helps"
        return "hurts" if self.accuracy.high < 0 else "undetected"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; `from_dict` reads it back."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {
            "accuracy": self.accuracy.to_dict(),
            "margin": self.margin.to_dict(),
            "sham": None if self.sham is None else self.sham.to_dict(),
            "items": list(self.items),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evidence:
        """Rebuild from `to_dict`.

        Raises:
            InterventionError: a field is missing or has another form.
        """
        try:
            sham = data["sham"]
            values = {each.name: data[each.name] for each in fields(cls)} | {
                "accuracy": Effect.from_dict(data["accuracy"]),
                "margin": Effect.from_dict(data["margin"]),
                "sham": None if sham is None else ShamEvidence.from_dict(sham),
                "items": tuple(map(str, data["items"])),
            }
        except (KeyError, TypeError) as error:
            raise InterventionError(f"The evidence of an intervention cannot be read: {error!r}.") from error
        return cls(**values)
