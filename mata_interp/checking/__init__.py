"""Does every instrument tell the truth on this model? Run by users, on their own model and machine."""

from .results import CheckReport, CheckResult
from .running import check

__all__ = ["CheckReport", "CheckResult", "check"]
