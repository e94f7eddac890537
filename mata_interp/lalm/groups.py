"""Which token of a prompt belongs to which group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["GROUPS", "groups_of_rows", "tokens_of_parts"]

GROUPS = ("audio", "question", "options", "caption", "template", "sink", "generated")
"""Every real token is in exactly one of these, padding in none.

``audio``: the placeholder positions alone (their begin and end marks are template). ``question``,
``options``, ``caption``: the item's words. ``template``: chat markup, system prompt, whatever else.
``sink``: the first real token, which draws attention whatever it says; audio stays audio even there.
``generated``: tokens of the answer; none in a prompt.
"""


def tokens_of_parts(offsets: Sequence[tuple[int, int]], parts: Sequence[tuple[str, str]]) -> list[str]:
    """The group of each token of a text made of consecutive parts.

    A token is in one group only: that of the part it covers the most characters of; on a tie, of the earlier
    part. A token's characters are those from the end of the token before it (tokenizers leave the space before
    a word out of its offsets) to its own end; a token that covers none (a special one put in front, a later
    byte of a split character) is in the group of the character before it, or template at the very start.

    Args:
        offsets: of each token, (start, end) in the joined text.
        parts: (group, text) in order; the joined text is their concatenation.
    """
    owner = [index for index, (_, text) in enumerate(parts) for _ in text]  # part of each character
    groups, reached = [], 0
    for start, end in offsets:
        covered = owner[min(start, reached) : end] or owner[max(end - 1, 0) : end]
        part = max(sorted(set(covered)), key=covered.count) if covered else None
        groups.append("template" if part is None else parts[part][0])
        reached = max(reached, end)
    return groups


def groups_of_rows(rows: Sequence[Sequence[str]], width: int) -> Mapping[str, Tensor]:
    """Left-padded masks ``bool[B, width]`` for all GROUPS from each row's group names, the sink taken out."""
    masks = {name: torch.zeros(len(rows), width, dtype=torch.bool) for name in GROUPS}
    for row, names in enumerate(rows):
        for column, name in enumerate(names, start=width - len(names)):
            first = column == width - len(names)
            masks["sink" if first and name != "audio" else name][row, column] = True
    return masks
