"""What commands begin with: the model and the items that their options name."""

from __future__ import annotations

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


def open_items(
    benchmark: str,
    audio_root: Path | None,
    count: int | None = None,
    seed: int = 0,
    fields: str | None = None,
) -> Items:
    """The items of ``--benchmark``, ``--audio-root``, ``--items``, ``--seed`` and ``--fields``."""
    items = mi.load_benchmark(benchmark, audio_root=audio_root, fields=fields)
    return items.head(count, seed=seed) if count else items
