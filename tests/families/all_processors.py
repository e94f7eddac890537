"""Every family's processor that can be made in this environment, and why the others cannot."""

from __future__ import annotations

from functools import partial

from . import full_processors, processors
from .full_processors import LACKING

__all__ = ["ELSEWHERE", "PROCESSORS", "WINDOWS"]

_AVAILABLE = {
    name: make for name, (make, package) in full_processors.BUILDERS.items() if not LACKING[package]
}
PROCESSORS = {
    **processors.BUILDERS,
    "audioflamingo3 on qwen3_next": processors.audioflamingo3,
    **_AVAILABLE,
}
"""Family -> a function that makes its processor, for the tiny model."""

WINDOWS = {
    **{name: processors.with_windows(name) for name in processors.BUILDERS},
    "audioflamingo3 on qwen3_next": processors.with_windows("audioflamingo3"),
    **{name: partial(make, checkpoint=True) for name, make in _AVAILABLE.items()},
}
"""The same with the windows of real checkpoints, as many as each takes."""

ELSEWHERE = {
    name: LACKING[package]
    for name, (_, package) in full_processors.BUILDERS.items()
    if name not in _AVAILABLE
}
"""Families whose processor cannot be made here, and why."""
