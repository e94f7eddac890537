"""Interventions on a plain transformers model that runs by itself: in `generate`, a pipeline or a loop."""

from .attachment import Attachment, attach

__all__ = ["Attachment", "attach"]
