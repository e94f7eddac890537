"""Pages of single stages: layer profiles and sweeps, one alone or several side by side."""

from .kinds import KINDS, Kind, kind_of
from .layers_page import build_layers_page, layers_page
from .sweep_page import sweep_page

__all__ = ["KINDS", "Kind", "build_layers_page", "kind_of", "layers_page", "sweep_page"]
