"""Conditions over items: runs that survive being killed, and the study that chooses, measures and tests."""

from .conditions import Condition
from .notices import RunWarning
from .results import Run, load_run
from .run import run
from .study import study

__all__ = ["Condition", "Run", "RunWarning", "load_run", "run", "study"]
