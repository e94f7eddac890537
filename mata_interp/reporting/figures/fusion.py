"""A fusion profile on a page: the figure of `mata_interp.plot.criteria` in the page's fonts."""

from __future__ import annotations

from matplotlib.figure import Figure

from ...fusion import FusionProfile
from ...plot import criteria
from .svg import figure_style

__all__ = ["fusion"]


def fusion(fusion_profile: FusionProfile, width: float) -> Figure:
    """Draw a profile: first the share of the effect that decides the window, then every criterion."""
    with figure_style("fusion"):
        return criteria(fusion_profile, width)
