"""Measure whether large audio-language models use their audio, in which layers, and what changes it."""

import lazy_loader

from .version import __version__ as __version__

# The public names, listed in __init__.pyi, are imported when first used: `import mata_interp` and
# `mata-interp --help` do not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
