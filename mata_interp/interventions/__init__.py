"""What is done to attention, as data (Mata) and as small pure functions (RULES)."""

from .editing import Editing, queries_named, tokens_named
from .mata import Intervention, Mata, in_order
from .rules import RULES

__all__ = ["RULES", "Editing", "Intervention", "Mata", "in_order", "queries_named", "tokens_named"]
