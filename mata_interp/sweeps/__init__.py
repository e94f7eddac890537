"""One reading of the prompts, any number of interventions."""

from .generating import generate
from .given import SweepWarning
from .maps import by_alpha, causal_map, change, head_map, layer_map, margin, window_map
from .sweep import sweep

__all__ = [
    "SweepWarning",
    "by_alpha",
    "causal_map",
    "change",
    "generate",
    "head_map",
    "layer_map",
    "margin",
    "sweep",
    "window_map",
]
