"""A language model that hears: loading, anatomy, prompts and token groups, the instrument, scoring."""

from .anatomy import Anatomy
from .decoding import Answers, Decoding
from .groups import GROUPS
from .hearing import Hearing
from .model import LALM
from .prompts import PROMPT_FORMATS, Prompt
from .row_attention import Slots
from .rows import Reading
from .scoring import OptionScores

__all__ = [
    "GROUPS",
    "LALM",
    "PROMPT_FORMATS",
    "Anatomy",
    "Answers",
    "Decoding",
    "Hearing",
    "OptionScores",
    "Prompt",
    "Reading",
    "Slots",
]
