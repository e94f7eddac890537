"""Items: a sound, a question, its options. Knows no model."""

from __future__ import annotations

from .audio import Audio, load_audio
from .items import Item

__all__ = ["Audio", "Item", "load_audio"]
