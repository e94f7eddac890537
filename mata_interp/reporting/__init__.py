"""Figures and HTML pages.

`report` writes the page of a result or of several side by side, `paper.paper` the files for a paper; `listen`
asks about one clip.
"""

import lazy_loader

# Names are listed in __init__.pyi and imported when first used, so that the page of a run does not wait for
# transformers.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
