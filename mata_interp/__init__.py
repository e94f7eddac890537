"""mata_interp: do large audio-language models listen, where, and does making them listen help?

The public names are loaded when first used, so that ``import mata_interp`` (and ``mata-interp --help``)
does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__


# public name -> the room that defines it
_HOME = {
    "Item": "benchmarks",
    "Items": "benchmarks",
    "load_benchmark": "benchmarks",
    "paired_effect": "statistics",
    "holm": "statistics",
    "Mata": "interventions",
    "LALM": "lalm",
    "Decoding": "lalm",
    "Prompt": "lalm",
    "trace": "tracing",
    "audio_share": "tracing",
    "audio_text_ratio": "tracing",
    "mdi": "tracing",
    "aei": "tracing",
    "sweep": "sweeps",
    "fusion_layers": "fusion",
    "FusionProfile": "fusion",
    "check": "checking",
    "Condition": "experiments",
    "RayWorkers": "experiments",
    "forecast": "experiments",
    "run": "experiments",
    "load_run": "experiments",
    "study": "experiments",
    "report": "reporting",
    "figure": "reporting",
    "listen": "reporting",
}

_ROOMS = ("errors", "sweeps")  # public as they are

__all__ = [*_HOME, *_ROOMS]

if TYPE_CHECKING:
    from . import errors, sweeps
    from .benchmarks import Item, Items, load_benchmark
    from .checking import check
    from .experiments import Condition, RayWorkers, forecast, load_run, run, study
    from .fusion import FusionProfile, fusion_layers
    from .interventions import Mata
    from .lalm import LALM, Decoding, Prompt
    from .reporting import figure, listen, report
    from .statistics import holm, paired_effect
    from .sweeps import sweep
    from .tracing import aei, audio_share, audio_text_ratio, mdi, trace


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
