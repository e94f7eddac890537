"""Published interventions and our own, one small file each, with formula, source and published defaults.

Every class is a frozen dataclass that any ``intervention`` argument of `lalm.logits`, `score` and `generate`
takes; ``str`` prints its formula, `to_dict` and `from_dict` write and read it as JSON. MATA and knockout are
`mata_interp.Mata` and `mata_interp.Knockout`.
"""

from .activation_patch import ActivationPatch
from .adhh import AdHh
from .arrays import Array
from .avcd import Avcd, AvcdContrast, HideSalient
from .caac import Caac
from .contrast import Aad, Acd, Amti
from .dola import Dola
from .guidance import Guidance
from .head_mask import HeadMask
from .hgai import Hgai
from .iat import Iat
from .instaboost import InstABoost
from .keyword_scaling import KeywordScaling
from .method import Composite, Method
from .negatives import NEGATIVES, negative_prompt
from .owl import Opposed, OppositePath, Owl
from .pai import Pai
from .paint import Paint
from .pasta import Pasta
from .records import MissingMethod, describe, read_method, record_of
from .registry import METHODS, all_methods, find_method, from_dict, register, source_hash, to_dict
from .scaling import GatedScaling, Scaling
from .seka import Seka
from .shams import SHAMS, ShamAttention
from .sinks import SinkRedistribution, find_sink_dimensions
from .specialists import AudioSpecialists, find_specialist_heads
from .spotlight import SpotLight
from .steering import Steering
from .tad import Tad
from .target_share import DoseTargetedMata, DoseTargetedSham
from .vaf import Vaf
from .value_scaling import ValueScaling

__all__ = [
    "METHODS",
    "NEGATIVES",
    "SHAMS",
    "Aad",
    "Acd",
    "ActivationPatch",
    "AdHh",
    "Amti",
    "Array",
    "AudioSpecialists",
    "Avcd",
    "AvcdContrast",
    "Caac",
    "Composite",
    "Dola",
    "DoseTargetedMata",
    "DoseTargetedSham",
    "GatedScaling",
    "Guidance",
    "HeadMask",
    "Hgai",
    "HideSalient",
    "Iat",
    "InstABoost",
    "KeywordScaling",
    "Method",
    "MissingMethod",
    "Opposed",
    "OppositePath",
    "Owl",
    "Pai",
    "Paint",
    "Pasta",
    "Scaling",
    "Seka",
    "ShamAttention",
    "SinkRedistribution",
    "SpotLight",
    "Steering",
    "Tad",
    "Vaf",
    "ValueScaling",
    "all_methods",
    "describe",
    "find_method",
    "find_sink_dimensions",
    "find_specialist_heads",
    "from_dict",
    "negative_prompt",
    "read_method",
    "record_of",
    "register",
    "source_hash",
    "to_dict",
]
