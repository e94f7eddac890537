from .decoding import GenerationOutput
from .decoding_options import Decoding
from .discovery.audio_positions import AudioAlignment
from .discovery.structure import ModelStructure
from .model import LALM
from .prompting.groups import GROUPS
from .prompting.prompts import PROMPT_FORMATS, Prompt
from .rows.prefill import PrefillCache
from .rows.row_attention import SuffixTokens
from .scoring import OptionScores

__all__ = [
    "GROUPS",
    "LALM",
    "PROMPT_FORMATS",
    "AudioAlignment",
    "Decoding",
    "GenerationOutput",
    "ModelStructure",
    "OptionScores",
    "PrefillCache",
    "Prompt",
    "SuffixTokens",
]
