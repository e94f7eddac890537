"""Verification of a model: whether attention is read and edited correctly on it, on the user's machine."""

from .results import CheckReport, CheckResult
from .running import check

__all__ = ["CheckReport", "CheckResult", "check"]
