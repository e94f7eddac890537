from .criteria import CRITERIA, criteria_named
from .fusion import fusion_layers
from .profile import FusionProfile
from .selection import selection_items

__all__ = ["CRITERIA", "FusionProfile", "criteria_named", "fusion_layers", "selection_items"]
