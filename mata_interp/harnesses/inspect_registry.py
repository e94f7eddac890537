"""What the entry point ``inspect_ai`` names: importing it registers the provider with Inspect."""

from __future__ import annotations

from .inspect_model import model_api

__all__ = ["provider"]

provider = model_api()
