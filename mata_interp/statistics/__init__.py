"""Statistics of paired comparisons: estimates, intervals, tests and corrections.

Arrays in, frozen dataclasses out; nothing here depends on a model. A number that does not exist is NaN in
memory and None (null) where it is written as JSON.
"""

from .clusters import DRAWS, cluster_bootstrap_means, cluster_codes
from .correction import benjamini_hochberg, holm
from .crossfit import CrossfitEffect, crossfit_effect
from .dose import RankAssociation, SelectedTrend, rank_association, selected_trend, trend_test
from .effect import Effect
from .equivalence import NoHarm, items_for_margin, no_harm
from .flips import Flips, count_flips, odds_ratio, standardised_change, wilcoxon_p
from .intervals import clustered_interval, ratio_interval
from .max_t import MaxT, max_t, romano_wolf
from .noise_floor import noise_floor
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
    "SelectedTrend",
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
    "noise_floor",
    "odds_ratio",
    "paired_effect",
    "paired_power",
    "proportion",
    "rank_association",
    "ratio_interval",
    "romano_wolf",
    "selected_trend",
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
