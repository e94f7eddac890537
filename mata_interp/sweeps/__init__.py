"""One reading of the prompts, any number of interventions."""

from .sweep import sweep

__all__ = ["sweep"]
