"""Benchmarks: items (audio, question, options), how they are loaded, and how answers are scored. No model."""

from __future__ import annotations

from .answer_matching import final_answer, official_match, option_named
from .audio import Audio, load_audio
from .collection import Exclusion, Items
from .items import Item
from .loading import load_benchmark
from .mapping import FieldMapping, read_mapping, shipped_mappings
from .published import Claim, Release, find_release, published_claims
from .scoring import join_answers, score_predictions
from .submission import write_submission

__all__ = [
    "Audio",
    "Claim",
    "Exclusion",
    "FieldMapping",
    "Item",
    "Items",
    "Release",
    "final_answer",
    "find_release",
    "join_answers",
    "load_audio",
    "load_benchmark",
    "official_match",
    "option_named",
    "published_claims",
    "read_mapping",
    "score_predictions",
    "shipped_mappings",
    "write_submission",
]
