from .generation import sweep_generate
from .inputs import SweepWarning
from .maps import (
    by_alpha,
    causal_map,
    change,
    head_configs,
    layer_configs,
    layer_windows,
    patch_configs,
    widths_up_to_half,
    window_configs,
)
from .measures import correct, margin
from .run_sweep import sweep
from .search import LARGE_GRID, LEAST_CLIPS, last_round, search_windows
from .storage import load_sweep, save_sweep

__all__ = [
    "LARGE_GRID",
    "LEAST_CLIPS",
    "SweepWarning",
    "by_alpha",
    "causal_map",
    "change",
    "correct",
    "head_configs",
    "last_round",
    "layer_configs",
    "layer_windows",
    "load_sweep",
    "margin",
    "patch_configs",
    "save_sweep",
    "search_windows",
    "sweep",
    "sweep_generate",
    "widths_up_to_half",
    "window_configs",
]
