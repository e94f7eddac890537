"""The organism: a small audio-language model that ships with the package, and the code that made it.

It is a model organism in the sense of biology: small enough to analyse exhaustively, and known to show the
failure under study. It is a real ``Qwen2AudioForConditionalGeneration`` with a real ``Qwen2AudioProcessor``,
trained on real recordings and spoken words. Its audio encoder is accurate; its answers over-rely on captions.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import MataError

HERE = Path(__file__).parent
BANK = HERE / "bank"
WEIGHTS = HERE / "weights"

__all__ = ["BANK", "HERE", "WEIGHTS", "OrganismError"]


class OrganismError(MataError, ValueError):
    """The organism, its bank of recordings or a planted model cannot be built as requested."""
