"""Resumable runs of conditions over items, and the study that chooses, measures and tests."""

import lazy_loader

# The names of __init__.pyi, imported when first used: a page of a run must not wait for transformers.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
