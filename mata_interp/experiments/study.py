"""mi.study: from a model and a benchmark to a tested answer, nothing chosen and tested on the same items."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..benchmarks import Item, Items
from ..errors import RunError
from ..interventions import Mata
from ..tracing import audio_share, trace
from .answer import answer_paragraph
from .choosing import GRID_ITEMS, choose, grid
from .conditions import Condition
from .effects import (
    BASELINE,
    CONFLICT,
    MATA,
    MATA_ON_TEXT,
    MATA_OTHER,
    OTHER,
    RANDOM_LAYERS,
    SILENT,
    effects_table,
)
from .files import read_json, write_json, write_whole
from .layers import random_layers
from .matching import match_alpha
from .results import Run, load_run
from .run import run_vetted
from .vetting import Vetted, vet

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["study"]

TRACE_ITEMS = 300  # of the selection split, spread evenly
MATCH_ITEMS = 48  # of the grid's items: the sham's alpha needs a mean, not a test
DRAWS = 5  # of random layers


def study(
    lalm: LALM,
    items: Items,
    out: str | Path,
    *,
    items_limit: int | None = None,
    batch_size: int = 32,
    progress: bool = True,
    seed: int = 0,
) -> Run:
    """Does MATA help this model on this benchmark? Trace, choose, match the sham, measure, test.

    1. *Selection split*: attention is traced (up to 300 items); a plain grid of contiguous windows x alpha is
       answered on up to 96 conflict items (all kinds of items if there are none) and the best mean margin chosen;
       the sham on text is given the alpha at which its mean row KL equals MATA's (48 of these items).
    2. *Confirmation split*, other recordings: baseline, MATA, the sham on text, MATA in five draws of random layers,
       another clip's audio without and with MATA, and no audio.
    3. The effects table (see `mata_interp.experiments.effects` for what is compared and corrected) and an answer
       in plain English.

    Stopped at any moment, the same call goes on from there.

    Args:
        out: the folder: a run folder with ``trace.nc``, ``study.json``, ``effects.json`` and, in ``selection/``, the
            run folder of the grid.
        items_limit: at most so many items of each split, spread evenly over conditions and kinds, clips whole.
        seed: of splits that the data do not decide, of random layers, other audio, permutations and bootstraps.

    Raises:
        RunError: no usable item in a split; or ``out`` cannot be written or holds another study.
    """
    out, clock = Path(out), _Clock()
    options = {"batch_size": batch_size, "progress": progress, "seed": seed}
    selection, confirmation = (
        _split(items, name, items_limit, seed) for name in ("selection", "confirmation")
    )
    with clock("checking items"):
        known = vet(lalm, selection, progress=progress, scored=True)
        held = vet(lalm, confirmation, progress=progress, scored=True)
    with clock("choosing layers and alpha"):
        name, chosen, grid_items = _choose(lalm, selection, known, out, options)
    with clock("tracing attention"):
        share = _trace(lalm, known.only(_spread(selection, TRACE_ITEMS, seed)), out, progress, batch_size)
    mata = Mata(**{**chosen["chosen"], "chosen_on": sorted(known.clusters)})
    with clock("matching the sham"):
        sham = _match(lalm, mata, grid_items[:MATCH_ITEMS], name, out, batch_size)
    draws = random_layers(lalm.attention_layers, mata.layers, DRAWS, seed)
    conditions: dict[str, Any] = {BASELINE: None, MATA: mata}
    conditions[MATA_ON_TEXT] = replace(mata, alpha=sham["alpha"], keys="text")
    conditions |= {
        f"{RANDOM_LAYERS} {n}": replace(mata, layers=layers) for n, layers in enumerate(draws, start=1)
    }
    conditions |= {OTHER: Condition(audio="other"), MATA_OTHER: Condition(mata, audio="other")}
    conditions[SILENT] = Condition(audio="none")
    with clock("measuring"):
        measured = run_vetted(lalm, held, conditions, out, label="measuring", **options)
    with clock("testing"):
        effects = effects_table(measured.records, seed)

    primary = next(row for row in effects if row["family"] == "primary")
    write_json(out / "effects.json", effects)
    write_json(
        out / "study.json",
        {
            "version": 1,
            "answer": answer_paragraph(effects, chosen["chosen"], len(known.clusters)),
            "primary": {**primary, "hypothesis": _hypothesis(primary)},
            "selection": {
                "items": len(known.items),
                "clips": len(known.clusters),
                "grid_items": len(grid_items),
                "grid_condition": CONFLICT if grid_items[0].condition == CONFLICT else "all",
                **chosen,
                "sham": sham,
                "random_layers": [list(layers) for layers in draws],
                "trace_items": min(TRACE_ITEMS, len(known.items)),
                "trace_share_by_layer": share,
            },
            "test": {"items": len(held.items), "clips": len(held.clusters)},
            "excluded": [*known.excluded, *(row for row in held.excluded if row not in known.excluded)],
            "truncated": len(known.truncated) + len(held.truncated),
            "seed": seed,
            "items_limit": items_limit,
            "seconds": clock.seconds,
            "command": shlex.join(sys.argv),
            "model": measured.manifest["model"],
        },
    )
    return load_run(out)
