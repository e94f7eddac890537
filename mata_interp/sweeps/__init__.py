"""One reading of the prompts, any number of interventions."""

from .generation import generate
from .inputs import SweepWarning
from .maps import by_alpha, causal_map, change, head_configs, layer_configs, margin, window_configs
from .sweep import sweep

__all__ = [
    "SweepWarning",
    "by_alpha",
    "causal_map",
    "change",
    "generate",
    "head_configs",
    "layer_configs",
    "margin",
    "sweep",
    "window_configs",
]
