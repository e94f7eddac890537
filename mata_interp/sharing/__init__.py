"""Evidence of what an intervention does, measured before it is shared and again by whoever loads it."""

from .measuring import evidence
from .retesting import Retest, retest

__all__ = ["Retest", "evidence", "retest"]
