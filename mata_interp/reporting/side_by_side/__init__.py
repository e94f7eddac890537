"""Two or more results on one page: runs, layer profiles or sweeps, on the same scales."""

from .comparison_page import comparison_page

__all__ = ["comparison_page"]
