"""Conditions over items: runs that survive being killed, and the study that chooses, measures and tests."""

from .conditions import Condition
from .forecast import Forecast, forecast
from .notices import RunWarning
from .ray_backend import RayWorkers
from .reliance import text_dominance_by, text_dominance_of, text_prior_of
from .results import Run, load_run
from .run import run
from .study import study

__all__ = [
    "Condition",
    "Forecast",
    "RayWorkers",
    "Run",
    "RunWarning",
    "forecast",
    "load_run",
    "run",
    "study",
    "text_dominance_by",
    "text_dominance_of",
    "text_prior_of",
]
