"""A language model that hears: loading, anatomy, prompts and token groups, the instrument, scoring."""

from .decoding import Answers, Decoding
from .discovery.anatomy import Anatomy
from .discovery.hearing import Hearing
from .model import LALM
from .prompting.groups import GROUPS
from .prompting.prompts import PROMPT_FORMATS, Prompt
from .rows.reading import Reading
from .rows.row_attention import Slots
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
