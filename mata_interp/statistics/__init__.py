"""Paired statistics: what a change did to the same items, how sure that is, and how often one looked.

Arrays in, frozen dataclasses out; nothing here knows a model.
"""

from .correction import holm
from .effect import Effect
from .paired import paired_effect
from .profiles import clustered_interval
from .proportions import mcnemar_exact, mcnemar_mid, newcombe_interval, tango_interval
from .reliance import Rate, proportion, text_dominance, text_prior

__all__ = [
    "Effect",
    "Rate",
    "clustered_interval",
    "holm",
    "mcnemar_exact",
    "mcnemar_mid",
    "newcombe_interval",
    "paired_effect",
    "proportion",
    "tango_interval",
    "text_dominance",
    "text_prior",
]
