"""Pure tensor mathematics of one attention call; knows torch, no model."""

from .call import AttentionCall
from .edits import Change, Dose, Edit

__all__ = ["AttentionCall", "Change", "Dose", "Edit"]
