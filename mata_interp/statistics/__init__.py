"""Statistics of paired comparisons: estimates, intervals, tests and corrections.

Arrays in, frozen dataclasses out; nothing here depends on a model. A number that does not exist is NaN in
memory and None (null) where it is written as JSON.
"""

from .clusters import DRAWS, cluster_bootstrap_means, cluster_codes, clustered_interval
from .correction import holm
from .effect import Effect
from .options import best_option, is_correct, margin
from .paired import paired_effect
from .proportions import mcnemar_exact, mcnemar_mid, tango_interval, wilson_interval
from .reliance import Rate, proportion, text_dominance, text_prior
from .simultaneous import SimultaneousBand, simultaneous_band

__all__ = [
    "DRAWS",
    "Effect",
    "Rate",
    "SimultaneousBand",
    "best_option",
    "cluster_bootstrap_means",
    "cluster_codes",
    "clustered_interval",
    "holm",
    "is_correct",
    "margin",
    "mcnemar_exact",
    "mcnemar_mid",
    "paired_effect",
    "proportion",
    "simultaneous_band",
    "tango_interval",
    "text_dominance",
    "text_prior",
    "wilson_interval",
]
