"""What the entry point ``inspect_ai`` names: it registers the provider ``mata-interp`` with Inspect."""

from __future__ import annotations

from .inspect_model import model_api

__all__ = ["provider"]

provider = model_api()
