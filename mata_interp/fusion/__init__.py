"""Criteria over layers, and the window they speak for: where text takes in what was heard."""

from .criteria import CRITERIA
from .fusion import fusion_layers
from .profile import FusionProfile

__all__ = ["CRITERIA", "FusionProfile", "fusion_layers"]
