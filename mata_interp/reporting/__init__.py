"""Figures and HTML pages.

`report` writes the page of a result or of several side by side, `paper.paper` the files for a paper; `listen`
asks about one clip.
"""

import lazy_loader

# The names of __init__.pyi, imported when first used: a page of a run must not wait for transformers.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
