"""The token groups of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["GROUPS", "group_masks", "groups_of_tokens"]

GROUPS = ("audio", "question", "options", "caption", "template", "sink", "generated")
"""Names of the groups. Every real token is in exactly one of them, padding in none.

``audio``: the placeholder positions alone; their begin and end marks are template.
``question``, ``options``, ``caption``: the item's texts.
``template``: chat markup, the system prompt and all other text of the template.
``sink``: the first real token, which draws attention whatever it is; a placeholder is audio even there.
``generated``: tokens of the answer; a prompt has none.
"""


def groups_of_tokens(offsets: Sequence[tuple[int, int]], parts: Sequence[tuple[str, str]]) -> list[str]:
    """The group of each token of a text that consists of consecutive parts.

    A token is in one group only: that of the part of which it covers the most characters; on a tie, the
    earlier part. Some tokenizers leave the space before a word out of its offsets, so a token's characters
    are counted from the end of the token before it. A token that covers no character belongs with the
    character before it; at the start of the text (a BOS token in front) it belongs to the template.

    Args:
        offsets: (start, end) of each token in the joined text.
        parts: (group, text) in order; the joined text is their concatenation.
    """
    owner = [index for index, (_, text) in enumerate(parts) for _ in text]  # the part of each character
    groups, reached = [], 0
    for start, end in offsets:
        covered = owner[min(start, reached) : end] or owner[max(end - 1, 0) : end]
        most = max(sorted(set(covered)), key=covered.count, default=None)
        groups.append("template" if most is None else parts[most][0])
        reached = max(reached, end)
    return groups


def group_masks(rows: Sequence[Sequence[str]], width: int) -> dict[str, Tensor]:
    """Left-padded masks ``bool[B, width]``, one for each of GROUPS, from the groups of each row's tokens.

    The first token of each row becomes the sink, unless it is audio.
    """
    codes = torch.full((len(rows), width), -1)
    for row, names in enumerate(rows):
        named = ["audio" if names[0] == "audio" else "sink", *names[1:]]
        codes[row, width - len(named) :] = torch.tensor([GROUPS.index(name) for name in named])
    return {name: codes == code for code, name in enumerate(GROUPS)}
