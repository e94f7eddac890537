"""Criteria over layers, and the window in which text reads from audio."""

import lazy_loader

# Names are listed in __init__.pyi and imported when first used, so that the page of a run does not wait for
# transformers.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
