"""The item view: a table of items, and the clip of each with the model's attention over it."""

from .section import items_section, recorded_ids

__all__ = ["items_section", "recorded_ids"]
