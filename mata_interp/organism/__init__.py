"""The organism: a small audio-language model that ships, the sounds it hears, and how it was made.

A model organism in the biologist's sense: small enough to study whole, and known to carry the condition
under study. It is a real ``Qwen2AudioForConditionalGeneration`` with a real ``Qwen2AudioProcessor``, trained
on real recordings and spoken words, whose hearing is intact and whose answers lean on text.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
BANK = HERE / "bank"
WEIGHTS = HERE / "weights"

__all__ = ["BANK", "HERE", "WEIGHTS"]
