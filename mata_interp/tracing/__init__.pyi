from .measures import aei, audio_share, audio_text_ratio, mdi
from .run_trace import trace

__all__ = ["aei", "audio_share", "audio_text_ratio", "mdi", "trace"]
