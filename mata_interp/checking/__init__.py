"""Does every instrument tell the truth on this model? Run by users, on their own model and machine."""

from .running import check
from .lines import CheckReport, Line

__all__ = ["CheckReport", "Line", "check"]
