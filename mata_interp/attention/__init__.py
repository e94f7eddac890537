"""Pure tensor mathematics of one attention call; it depends on torch and on no model."""

from .call import AttentionCall
from .edits import Change, Dose, Edit

__all__ = ["AttentionCall", "Change", "Dose", "Edit"]
