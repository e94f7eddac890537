"""Statistics of paired comparisons: estimates, intervals, tests and corrections.

Arrays in, frozen dataclasses out; nothing here depends on a model. A number that does not exist is NaN in
memory and None (null) where it is written as JSON.
"""

from .clusters import DRAWS, cluster_bootstrap_means, cluster_codes, clustered_interval
from .correction import benjamini_hochberg, holm
from .crossfit import CrossfitEffect, crossfit_effect
from .dose import RankAssociation, rank_association, trend_test
from .effect import Effect
from .equivalence import NoHarm, items_for_margin, no_harm
from .flips import Flips, count_flips, odds_ratio, standardised_change, wilcoxon_p
from .max_t import MaxT, max_t, romano_wolf
from .options import best_option, is_correct, margin
from .paired import paired_effect
from .power import detectable_difference, detectable_margin, items_needed, paired_power
from .proportions import mcnemar_exact, mcnemar_mid, tango_interval, wilson_interval
from .reliance import Rate, proportion, text_dominance, text_prior
from .simultaneous import SimultaneousBand, simultaneous_band
from .strata import StratifiedEffect, stratified_effect

__all__ = [
    "DRAWS",
    "CrossfitEffect",
    "Effect",
    "Flips",
    "MaxT",
    "NoHarm",
    "RankAssociation",
    "Rate",
    "SimultaneousBand",
    "StratifiedEffect",
    "benjamini_hochberg",
    "best_option",
    "cluster_bootstrap_means",
    "cluster_codes",
    "clustered_interval",
    "count_flips",
    "crossfit_effect",
    "detectable_difference",
    "detectable_margin",
    "holm",
    "is_correct",
    "items_for_margin",
    "items_needed",
    "margin",
    "max_t",
    "mcnemar_exact",
    "mcnemar_mid",
    "no_harm",
    "odds_ratio",
    "paired_effect",
    "paired_power",
    "proportion",
    "rank_association",
    "romano_wolf",
    "simultaneous_band",
    "standardised_change",
    "stratified_effect",
    "tango_interval",
    "text_dominance",
    "text_prior",
    "trend_test",
    "wilcoxon_p",
    "wilson_interval",
]
