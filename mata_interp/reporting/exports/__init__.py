"""What a reader takes from a page into a paper, as texts: tables, numbers of figures, methods, references."""

from .files import page_drawings, page_files
from .methods import methods_files, methods_text

__all__ = ["methods_files", "methods_text", "page_drawings", "page_files"]
