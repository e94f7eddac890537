"""Published interventions and our own, one small file each, with formula, source and published defaults.

Every class is a frozen dataclass that any ``intervention`` argument of `lalm.logits`, `score` and `generate`
takes; ``str`` prints its formula, `to_dict` and `from_dict` write and read it as JSON. MATA and knockout are
`mata_interp.Mata` and `mata_interp.Knockout`.
"""

from .adhh import AdHh
from .arrays import Array
from .caac import Caac
from .contrast import Aad, Acd, Amti
from .dola import Dola
from .guidance import Guidance
from .head_mask import HeadMask
from .hgai import Hgai
from .iat import Iat
from .instaboost import InstABoost
from .method import Composite, Method
from .negatives import NEGATIVES, negative_prompt
from .owl import Opposed, OppositePath, Owl
from .pai import Pai
from .paint import Paint
from .pasta import Pasta
from .registry import METHODS, from_dict, register, source_hash, to_dict
from .scaling import GatedScaling, Scaling
from .seka import Seka
from .shams import SHAMS, ShamAttention
from .sinks import SinkRedistribution, find_sink_dimensions
from .specialists import AudioSpecialists
from .spotlight import SpotLight
from .steering import Steering
from .vaf import Vaf
from .value_scaling import ValueScaling

__all__ = [
    "METHODS",
    "NEGATIVES",
    "SHAMS",
    "Aad",
    "Acd",
    "AdHh",
    "Amti",
    "Array",
    "AudioSpecialists",
    "Caac",
    "Composite",
    "Dola",
    "GatedScaling",
    "Guidance",
    "HeadMask",
    "Hgai",
    "Iat",
    "InstABoost",
    "Method",
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
    "Vaf",
    "ValueScaling",
    "find_sink_dimensions",
    "from_dict",
    "negative_prompt",
    "register",
    "source_hash",
    "to_dict",
]
