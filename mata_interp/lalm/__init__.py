"""A language model that hears: loading, anatomy, prompts and token groups, the instrument, scoring."""

import lazy_loader

# The names of __init__.pyi, imported when first used: a page of a run must not wait for transformers.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
