"""Dose and response: the margin of the chosen layers at every alpha, and what goes with a larger dose."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..experiments import Effects
from ..experiments.dose_response import INCOMPLETE, REPEATED, DoseAssociation, DoseResponse
from ..statistics.choices import REFUSED
from .comparisons import subset_label
from .figures.dose_response import dose_response
from .figures.svg import figure_part
from .parts import Content, FigurePart
from .wording import count, interval, known, named_layers, number, p_value

__all__ = ["dose_response_content"]

LEVEL = 0.05


def dose_response_content(effects: Effects | None, chosen: float) -> list[Content]:
    """The curve over the alphas and the association of dose and gain, as far as the study has them.

    Args:
        effects: the study's effects.
        chosen: the chosen alpha.
    """
    content: list[Content] = []
    if effects is not None and effects.dose_response is not None:
        content.append(("figure", _curve(effects.dose_response, chosen)))
    if effects is not None and effects.association is not None:
        content.append(("text", association_words(effects.association)))
    return content


def _curve(curve: DoseResponse, chosen: float) -> FigurePart:
    band = f"with a simultaneous {100 * curve.level:g} % band over all alphas"
    if not all(np.isfinite(point.low) for point in curve.points):
        band = "without a band, because there are too few clips"
    table = _table(curve)
    return figure_part(
        "dose-response",
        lambda width: dose_response(table, chosen, width),
        "Change of the margin by alpha",
        "Dose and response.",
        f"Change of the mean margin by alpha in {named_layers(curve.layers)}, {band}; "
        f"{count(curve.n, 'item')} of the selection clips. {trend_words(curve)}",
    )


def _table(curve: DoseResponse) -> pd.DataFrame:
    """The numbers of the figure, as those of `mata_interp.plot.dose`; alpha 0 changes nothing."""
    rows = [(point.alpha, point.change, point.low, point.high) for point in curve.points]
    if all(alpha != 0 for alpha, *_ in rows):
        rows = sorted([(0.0, 0.0, 0.0, 0.0), *rows])
    table = pd.DataFrame(rows, columns=["alpha", "value", "low", "high"])
    return table.assign(n_items=curve.n, n_clips=curve.n_clusters, line="on audio")


def trend_words(curve: DoseResponse) -> str:
    """Whether the margin rises with alpha, and what the choice of layers on these items means for that."""
    optimistic = "Layers were chosen on these items, so the level of the curve is optimistic."
    if curve.p_method == REFUSED:
        return (
            f"The trend over alpha is not tested, because the layers were chosen on these clips. {optimistic}"
        )
    if curve.p_method == INCOMPLETE:
        return (
            "The trend over alpha is not tested, because the search did not try every configuration on every "
            f"item. {optimistic}"
        )
    repeated = curve.p_method == REPEATED
    test = f"sign-flip test{' that repeats the choice of layers' if repeated else ''}, p {p_value(curve.p)}"
    detected = f"It {'rises' if curve.slope > 0 else 'falls'} with alpha"
    trend = f"{detected if curve.p < LEVEL else 'No trend over alpha is detectable'} ({test})."
    return f"{trend} {optimistic}" if repeated else trend


def association_words(association: DoseAssociation) -> str:
    """Whether the items whose attention to audio rose most gained most."""
    items = f"{count(association.n, 'tested item')} ({subset_label(association.subset)})"
    opening = f"Dose and gain of single items, on {items}: "
    if not known(association.rho):
        return f"{opening}dose or gain does not vary, so there is no correlation."

    def size(value: float) -> str:
        return number(value, 2, sign=True)

    rho = f"{size(association.rho)} {interval(association.low, association.high, size)}"
    if not known(association.p):
        verb, test = "is", "there is no p-value, because MATA was chosen on some of these clips"
    else:
        shown = association.p < LEVEL
        verb = "is" if shown else "is not detectably different from zero:"
        permuted = interval(association.permuted_low, association.permuted_high, size)
        test = f"permutation p {p_value(association.p)}; 95 % of permuted correlations in {permuted}"
    return (
        f"{opening}among items alike in their margin without MATA, the rank correlation of the rise of "
        f"attention to audio with the change of the margin {verb} {rho} ({test}). This is an association; it "
        "does not show that attention mediates the change."
    )
