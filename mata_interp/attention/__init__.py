"""Pure tensor mathematics of one attention call; it depends on torch and on no model."""

from .call import AttentionCall
from .edits import Change, Dose, Edit
from .row_mask import RowMask, SharedMasks

__all__ = ["AttentionCall", "Change", "Dose", "Edit", "RowMask", "SharedMasks"]
