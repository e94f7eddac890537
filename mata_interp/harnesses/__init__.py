"""Interventions under evaluation harnesses: transformers' pipelines, and Inspect (which need not be "
"installed)."""

from .chat import answer_messages, item_from_messages
from .inspect_model import model_api
from .pipelines import InterventionPipeline, pipeline

__all__ = ["InterventionPipeline", "answer_messages", "item_from_messages", "model_api", "pipeline"]
