"""Pure tensor mathematics of one attention call; knows torch, no model."""

from .call import AttentionCall
from .edits import Dose, Edit

__all__ = ["AttentionCall", "Dose", "Edit"]
