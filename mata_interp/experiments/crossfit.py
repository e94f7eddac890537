"""`study(crossfit=5)`: the effect of the selection procedure, beside that of one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArgumentError
from ..interventions import AttentionEdit
from ..statistics import crossfit_effect
from ..statistics.choices import REFUSED, chosen_here
from ..sweeps import correct, margin
from .choosing import BASELINE
from .crossfit_result import CROSSFIT_SWEEP, ChosenOften, CrossfitResult
from .planned_comparisons import CONFLICT
from .planning import StageSettings
from .selection import swept
from .study_result import Configuration
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["check_folds", "crossfitted"]

SHOWN = 5  # configurations whose frequency is kept


def crossfitted(
    lalm: LALM,
    validated: ValidatedItems,
    configurations: Mapping[str, AttentionEdit],
    out: Path,
    settings: StageSettings,
    folds: int,
) -> CrossfitResult:
    """Sweep every configuration over the items of both splits, and cross-fit the choice.

    The choice is that of a study: the best mean margin, of equal ones the smallest alpha, the fewest layers,
    the earliest. The sweep is kept in ``crossfit.nc`` and not made again.

    Args:
        lalm: the model.
        validated: items of both splits on which the study's primary comparison would be made.
        configurations: name -> configuration to choose from.
        out: the run folder.
        settings: how the sweep is computed; its seed divides the clips into folds.
        folds: number of folds.

    Raises:
        ArgumentError: there are fewer clips than folds.
    """
    check_folds(folds, len(validated.clusters))
    grid = {BASELINE: None, **configurations}
    grid_scores = swept(lalm, validated, grid, out / CROSSFIT_SWEEP, settings)
    names = sorted(
        configurations,
        key=lambda name: (
            configurations[name].alpha, len(configurations[name].layers), configurations[name].layers,
        ),
    )  # fmt: skip
    margins, right = (each(grid_scores).transpose("item", "configuration") for each in (margin, correct))
    of_margin, of_accuracy = (
        values.sel(configuration=names).values.astype(float)
        - values.sel(configuration=[BASELINE]).values.astype(float)
        for values in (margins, right)
    )
    clusters = [str(cluster) for cluster in grid_scores["cluster"].values]
    accuracy, of_margins = (
        crossfit_effect(of_margin, outcome, clusters, folds=folds, seed=settings.seed)
        for outcome in (of_accuracy, of_margin)
    )

    chosen_on = {clip for edit in configurations.values() for clip in edit.chosen_on}
    if chosen_here(chosen_on, clusters):
        accuracy, of_margins = (replace(one, p=nan, method=REFUSED) for one in (accuracy, of_margins))

    def configuration(column: int) -> Configuration:
        edit = configurations[names[column]]
        return Configuration(tuple(edit.layers), edit.alpha, edit.rule)

    order = np.argsort(accuracy.frequency)[::-1][:SHOWN]
    conditions = {item.condition for item in validated.items}
    return CrossfitResult(
        caption_condition=CONFLICT if conditions == {CONFLICT} else None,
        configurations=len(names),
        accuracy=accuracy,
        margin=of_margins,
        chosen=tuple(map(configuration, accuracy.chosen)),
        often=tuple(
            ChosenOften(configuration(int(n)), accuracy.frequency[n]) for n in order if accuracy.frequency[n]
        ),
    )


def check_folds(folds: int, clips: int) -> None:
    """Raise an ArgumentError for a number of folds that these clips do not allow."""
    if not 2 <= folds <= clips:
        raise ArgumentError(
            f"crossfit is {folds}: give at least 2 folds and at most as many as there are clips ({clips})."
        )
