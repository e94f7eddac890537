"""One reading of the prompts, any number of interventions."""

from .maps import change, head_map, layer_map, margin, window_map
from .sweep import sweep
from .table import SweepWarning

__all__ = ["SweepWarning", "change", "head_map", "layer_map", "margin", "sweep", "window_map"]
