"""Does every instrument tell the truth on this model? Run by users, on their own model and machine."""

from .lines import CheckReport, Line
from .running import check

__all__ = ["CheckReport", "Line", "check"]
