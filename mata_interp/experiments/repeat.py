"""The A/A run of a study: its baseline once more, at another batch size.

In 16 bits another batch size rounds differently, which flips answers without any intervention. MATA's own
changes are read against that number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .conditions import Condition
from .planning import StageSettings
from .repeat_result import Changes, RepeatResult
from .run_conditions import run_validated
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["compare_answers", "repeat_baseline"]

FOLDER = "repeat"


def other_batch_size(batch_size: int) -> int:
    """A batch size that differs: half of it, or 2."""
    return batch_size // 2 if batch_size > 1 else 2


def repeat_baseline(
    lalm: LALM,
    validated: ValidatedItems,
    records: pd.DataFrame,
    conditions: Mapping[str, Condition],
    out: Path,
    settings: StageSettings,
) -> RepeatResult:
    """Answer the items under the baseline at another batch size, into a run folder within the study's.

    Args:
        lalm: the model.
        validated: items of the test.
        records: records of the study's run.
        conditions: its conditions, one with the role ``"baseline"`` and one with ``"mata"``.
        out: the study's folder.
        settings: how the study's run was computed.
    """
    names = {condition.inferred_role: name for name, condition in conditions.items()}
    baseline, mata = names["baseline"], names["mata"]
    other = replace(settings, batch_size=other_batch_size(settings.batch_size))
    again = run_validated(
        lalm, validated, {baseline: conditions[baseline]}, out / FOLDER, other, label="repeating the baseline"
    )
    of_baseline = records.loc[records["condition"] == baseline]
    return RepeatResult(
        batch_size=other.batch_size,
        first_batch_size=settings.batch_size,
        repeat=compare_answers(of_baseline, again.records),
        mata=compare_answers(of_baseline, records.loc[records["condition"] == mata]),
    )


def compare_answers(before: pd.DataFrame, after: pd.DataFrame) -> Changes:
    """How many answers differ between the records of two conditions, item by item."""
    later = after.set_index("item").add_suffix("_after")
    both = before.set_index("item").join(later, how="inner")
    right: Any
    right_after: Any
    right, right_after = (both[name].fillna(False).astype(bool) for name in ("correct", "correct_after"))
    margins = np.abs((both["margin_after"] - both["margin"]).to_numpy(dtype=float))
    same: Any = (both["predicted"] == both["predicted_after"]) | (
        both["predicted"].isna() & both["predicted_after"].isna()
    )
    return Changes(
        items=len(both),
        changed=int((~same).sum()),
        fixed=int((~right & right_after).sum()),
        broken=int((right & ~right_after).sum()),
        largest_margin=float(np.nanmax(margins)) if np.isfinite(margins).any() else nan,
    )
