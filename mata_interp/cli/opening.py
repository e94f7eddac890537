"""What commands begin with: the model and the items that their options name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mata_interp as mi

from .output import progress

if TYPE_CHECKING:
    from ..benchmarks import Items
    from ..lalm import LALM


def open_model(name: str) -> LALM:
    """The model of ``--model``; transformers' own bars are for people, too."""
    if not progress():
        from transformers.utils import logging

        logging.disable_progress_bar()
    return mi.LALM.from_pretrained(name)


@dataclass(frozen=True)
class Source:
    """Where items come from: ``--benchmark``, ``--audio-root``, ``--fields`` and ``--subset``."""

    benchmark: str
    audio_root: Path | None
    fields: str | None
    subset: str | None

    def open(self) -> Items:
        return mi.load_benchmark(
            self.benchmark, audio_root=self.audio_root, subset=self.subset, fields=self.fields
        )
