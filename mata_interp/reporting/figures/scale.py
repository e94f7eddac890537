"""The colour scale of a change and the note below a map: one look for all maps."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..wording import number
from .palette import CHANGE_MAP, SOFT

LABEL = "change of the margin, nats"
FOOT = 0.55  # inches that the scale takes


def largest(change: np.ndarray) -> float:
    """The bound of a scale that is symmetric about zero."""
    return (float(np.nanmax(np.abs(change))) if np.isfinite(change).any() else 1.0) or 1.0


def telling(change: np.ndarray) -> float:
    """The same, but not set by a few collapses: these would leave all else white.

    Every gain is on the scale; losses of more than twice what 95 % of all changes stay below are beyond it.
    """
    sizes = np.abs(change[np.isfinite(change)])
    if not len(sizes):
        return 1.0
    usual = max(float(np.nanmax(change)), float(np.quantile(sizes, 0.95, method="lower")))
    return (usual if sizes.max() > 2 * usual else float(sizes.max())) or 1.0


def foot(note: str) -> float:
    """Inches below a map for its scale and note."""
    return FOOT + below(note)


def below(note: str) -> float:
    """Inches that a note takes, of one line or several."""
    return 0.08 + 0.14 * (1 + note.count("\n")) if note else 0.0


def change_scale(figure: Figure, bound: float, left: float, note: str = "", beyond: bool = False) -> None:
    """At the foot of the figure, ``left`` inches from its edge: the scale from loss to gain, and a note.

    ``beyond``: some losses are larger than ``bound``, which the scale says.
    """
    width, height = figure.get_figwidth(), figure.get_figheight()
    level = foot(note) - 0.38
    long = min(2.6, width - left - 0.4)
    scale = figure.add_axes((left / width, level / height, long / width, 0.09 / height))
    bar = figure.colorbar(
        ScalarMappable(Normalize(-bound, bound), CHANGE_MAP), cax=scale, orientation="horizontal"
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    digits = max(0, 1 - int(np.floor(np.log10(bound))))
    ends = [number(-bound, digits) + (" or less" if beyond else ""), "0", number(bound, digits, sign=True)]
    bar.set_ticks([-bound, 0, bound], labels=ends)
    scale.tick_params(length=0)
    scale.set_title(LABEL, fontsize=8, pad=3)
    if note:
        figure.text(left / width, 0.06 / height, note, fontsize=7.5, color=SOFT, va="bottom")
