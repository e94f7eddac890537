"""Interventions as data (`AttentionEdit` and any class of the protocol), and what they touch."""

from .attention_edit import DEFAULT_ALPHAS, AttentionEdit, Knockout, Mata, require_attention_edits
from .editing import DOSE, Editing
from .protocol import SITES, Intervention, InterventionLike, SiteContext, in_order
from .published import published_convention, published_layers
from .rules import RULES, Rule, register_rule
from .selection import select_queries, select_tokens

__all__ = [
    "DEFAULT_ALPHAS",
    "DOSE",
    "RULES",
    "SITES",
    "AttentionEdit",
    "Editing",
    "Intervention",
    "InterventionLike",
    "Knockout",
    "Mata",
    "Rule",
    "SiteContext",
    "in_order",
    "published_convention",
    "published_layers",
    "register_rule",
    "require_attention_edits",
    "select_queries",
    "select_tokens",
]
