"""What cross-fitting found, as data: ``crossfit.json`` of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..statistics import CrossfitEffect
from .schema import from_plain, read_versioned, write_versioned
from .study_result import Configuration

__all__ = ["CROSSFIT", "CROSSFIT_SWEEP", "ChosenOften", "CrossfitResult"]

CROSSFIT, CROSSFIT_SWEEP = "crossfit.json", "crossfit.nc"


@dataclass(frozen=True)
class ChosenOften:
    """A configuration and how often it was chosen over folds and resamples, 0 to 1."""

    configuration: Configuration
    frequency: float


@dataclass(frozen=True)
class CrossfitResult:
    """What choosing layers and strength does, estimated on both splits.

    Attributes:
        caption_condition: the items' caption condition; None for all items.
        configurations: number of configurations that were chosen from.
        accuracy: change of accuracy, a fraction.
        margin: change of the log-probability difference, nats.
        chosen: the configuration that was chosen without each fold.
        often: the configurations that were chosen most often.
    """

    caption_condition: str | None
    configurations: int
    accuracy: CrossfitEffect
    margin: CrossfitEffect
    chosen: tuple[Configuration, ...]
    often: tuple[ChosenOften, ...]

    def save(self, path: str | Path) -> None:
        """Write ``crossfit.json``; RunError if the file cannot be written."""
        write_versioned(Path(path), **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: str | Path) -> CrossfitResult:
        """Read ``crossfit.json``.

        Raises:
            RunError: the file cannot be read, has another format version, or lacks a field.
        """
        content = read_versioned(Path(path))
        del content["version"]
        return from_plain(cls, content, path)
