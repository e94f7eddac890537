"""Criteria: ways to say in which layers text takes in what was heard, one file each.

Each is a function from a case (one item on a model) to a number for every attention layer, registered under a
name with what it means. What the numbers become, a window, is the business of `mata_interp.fusion.windows`.
"""

from .registry import CRITERIA, Criterion

# in the order of figures and tables: causes first
from . import knockout, restoration, attribution, saliency, lens, attention, depth  # noqa: F401  isort: skip

__all__ = ["CRITERIA", "Criterion"]
