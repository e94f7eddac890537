"""Special tokens of any tokenizer."""

from __future__ import annotations

from typing import Any

__all__ = ["special_tokens"]


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Id -> text of all special tokens."""
    added = tokenizer.added_tokens_decoder
    if callable(added):  # mistral-common's, which fails; all its special tokens are named
        return dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {id: token.content for id, token in added.items() if token.special}
