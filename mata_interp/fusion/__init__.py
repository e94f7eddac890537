"""Criteria over layers, and the window in which text reads from audio."""

from .criteria import CRITERIA, criteria_named
from .fusion import fusion_layers
from .profile import FusionProfile

__all__ = ["CRITERIA", "FusionProfile", "criteria_named", "fusion_layers"]
