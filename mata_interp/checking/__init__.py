"""Verification of a model: whether attention is read and edited correctly on it, on the user's machine."""

from .results import CheckReport, CheckResult
from .running import CheckWarning, check

__all__ = ["CheckReport", "CheckResult", "CheckWarning", "check"]
