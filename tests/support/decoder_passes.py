"""The passes of a decoder while something runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def tokens_of_passes(lalm: Any, run: Callable[[], Any]) -> list[int]:
    """Number of tokens of each pass of the model's decoder."""
    tokens: list[int] = []
    hook = lalm.structure.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        run()
    finally:
        hook.remove()
    return tokens
