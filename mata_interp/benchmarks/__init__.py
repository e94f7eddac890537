"""Items: a sound, a question, its options. Knows no model."""

from __future__ import annotations

from .audio import Audio, load_audio
from .collection import Exclusion, Items
from .items import Item
from .loading import load_benchmark

__all__ = ["Audio", "Exclusion", "Item", "Items", "load_audio", "load_benchmark"]
