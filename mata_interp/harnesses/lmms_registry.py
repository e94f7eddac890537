"""What the entry point ``lmms_eval.models`` names: lmms-eval reads it to know ``--model mata_interp``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .lmms_model import NAME, model_class

__all__ = ["manifest"]


def manifest() -> Any:
    """The name of the model in lmms-eval, and where its class is."""
    registry: Any = import_module("lmms_eval.models.registry_v2")
    return registry.ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.MataInterp")


def __getattr__(name: str) -> Any:
    """The class, made when it is first asked for: lmms-eval is not imported completely before."""
    if name != "MataInterp":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return model_class()
