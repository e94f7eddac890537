"""Measure whether large audio-language models use their audio, in which layers, and what changes it.

The public names are loaded when first used, so that ``import mata_interp`` (and ``mata-interp --help``)
does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

# public name -> the package that defines it
_SOURCE = {
    "Item": "benchmarks",
    "Items": "benchmarks",
    "load_benchmark": "benchmarks",
    "paired_effect": "statistics",
    "holm": "statistics",
    "Effect": "statistics",
    "AttentionEdit": "interventions",
    "DoseTargetedMata": "interventions",
    "DoseTargetedSham": "interventions",
    "Evidence": "interventions",
    "Knockout": "interventions",
    "Mata": "interventions",
    "SharedIntervention": "interventions",
    "load_intervention": "interventions",
    "save_intervention": "interventions",
    "published_layers": "interventions",
    "register": "interventions",
    "register_rule": "interventions",
    "seconds": "interventions",
    "Intervention": "interventions",
    "LALM": "lalm",
    "Decoding": "lalm",
    "Prompt": "lalm",
    "ModelStructure": "lalm",
    "GenerationOutput": "lalm",
    "OptionScores": "lalm",
    "attach": "attaching",
    "Attachment": "attaching",
    "trace": "tracing",
    "audio_share": "tracing",
    "audio_text_ratio": "tracing",
    "mdi": "tracing",
    "aei": "tracing",
    "sweep": "sweeps",
    "sweep_generate": "sweeps",
    "search_windows": "sweeps",
    "window_configs": "sweeps",
    "layer_configs": "sweeps",
    "head_configs": "sweeps",
    "causal_map": "sweeps",
    "margin": "sweeps",
    "correct": "sweeps",
    "save_sweep": "sweeps",
    "load_sweep": "sweeps",
    "fusion_layers": "fusion",
    "FusionProfile": "fusion",
    "selection_items": "fusion",
    "check": "checking",
    "CheckReport": "checking",
    "Condition": "experiments",
    "RayWorkers": "execution",
    "forecast": "experiments",
    "forecast_study": "experiments",
    "forecast_method": "experiments",
    "plan_study": "experiments",
    "preregister": "experiments",
    "reorder_options": "experiments",
    "repeat_items": "experiments",
    "run": "experiments",
    "load_run": "experiments",
    "record_items": "experiments",
    "study": "experiments",
    "study_method": "experiments",
    "MethodStudy": "experiments",
    "Run": "experiments",
    "StudyResult": "experiments",
    "Effects": "experiments",
    "evidence": "sharing",
    "retest": "sharing",
    "Retest": "sharing",
    "report": "reporting",
    "paper": "reporting.paper",
    "listen": "reporting",
    "Listening": "reporting",
    "save_listenings": "reporting",
}

_MODULES = {"errors": "errors", "plot": "plotting"}  # public as they are: name -> module

__all__ = [*_SOURCE, *_MODULES]

if TYPE_CHECKING:
    from . import errors
    from . import plotting as plot
    from .attaching import Attachment, attach
    from .benchmarks import Item, Items, load_benchmark
    from .checking import CheckReport, check
    from .execution import RayWorkers
    from .experiments import (
        Condition,
        Effects,
        MethodStudy,
        Run,
        StudyResult,
        forecast,
        forecast_method,
        forecast_study,
        load_run,
        plan_study,
        preregister,
        record_items,
        reorder_options,
        repeat_items,
        run,
        study,
        study_method,
    )
    from .fusion import FusionProfile, fusion_layers, selection_items
    from .interventions import (
        AttentionEdit,
        DoseTargetedMata,
        DoseTargetedSham,
        Evidence,
        Intervention,
        Knockout,
        Mata,
        SharedIntervention,
        load_intervention,
        published_layers,
        register,
        register_rule,
        save_intervention,
        seconds,
    )
    from .lalm import LALM, Decoding, GenerationOutput, ModelStructure, OptionScores, Prompt
    from .reporting import Listening, listen, report, save_listenings
    from .reporting.paper import paper
    from .sharing import Retest, evidence, retest
    from .statistics import Effect, holm, paired_effect
    from .sweeps import (
        causal_map,
        correct,
        head_configs,
        layer_configs,
        load_sweep,
        margin,
        save_sweep,
        search_windows,
        sweep,
        sweep_generate,
        window_configs,
    )
    from .tracing import aei, audio_share, audio_text_ratio, mdi, trace


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name not in _SOURCE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_SOURCE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
