"""Where attention goes: a trace of masses by layer, head and token group, and measures of it."""

from .measures import aei, audio_share, audio_text_ratio, mdi
from .trace import trace

__all__ = ["aei", "audio_share", "audio_text_ratio", "mdi", "trace"]
