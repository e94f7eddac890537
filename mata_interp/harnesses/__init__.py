"""Interventions under evaluation harnesses: transformers' pipelines, Inspect and lmms-eval.

Inspect and lmms-eval need not be installed.
"""

from .chat import answer_messages, item_from_messages
from .inspect_model import model_api
from .lmms_model import with_intervention
from .pipelines import InterventionPipeline, pipeline

__all__ = [
    "InterventionPipeline",
    "answer_messages",
    "item_from_messages",
    "model_api",
    "pipeline",
    "with_intervention",
]
