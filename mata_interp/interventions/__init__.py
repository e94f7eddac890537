"""Interventions as data (`AttentionEdit` and any class of the protocol), and what they touch."""

from .attention_edit import DEFAULT_ALPHAS, AttentionEdit, Knockout, Mata, require_attention_edits
from .catalogue import (
    METHODS,
    DoseTargetedMata,
    DoseTargetedSham,
    MissingMethod,
    all_methods,
    describe,
    find_method,
    from_dict,
    read_method,
    record_of,
    register,
    source_hash,
    to_dict,
)
from .editing import DOSE, Editing
from .evidence import Evidence, ShamEvidence
from .protocol import SITES, Intervention, InterventionLike, SiteContext, in_order
from .published import published_convention, published_layers
from .rules import RULES, Rule, register_rule
from .selection import select_queries, select_tokens
from .sharing import SharedIntervention, load_intervention, push_intervention, save_intervention
from .spans import seconds

__all__ = [
    "DEFAULT_ALPHAS",
    "DOSE",
    "METHODS",
    "RULES",
    "SITES",
    "AttentionEdit",
    "DoseTargetedMata",
    "DoseTargetedSham",
    "Editing",
    "Evidence",
    "Intervention",
    "InterventionLike",
    "Knockout",
    "Mata",
    "MissingMethod",
    "Rule",
    "ShamEvidence",
    "SharedIntervention",
    "SiteContext",
    "all_methods",
    "describe",
    "find_method",
    "from_dict",
    "in_order",
    "load_intervention",
    "published_convention",
    "published_layers",
    "push_intervention",
    "read_method",
    "record_of",
    "register",
    "register_rule",
    "require_attention_edits",
    "save_intervention",
    "seconds",
    "select_queries",
    "select_tokens",
    "source_hash",
    "to_dict",
]
