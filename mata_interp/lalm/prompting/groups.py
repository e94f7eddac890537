"""The token groups of a prompt, and the subgroups of some of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mata_interp.interventions.spans import is_span

__all__ = [
    "GROUPS",
    "SUBGROUPS",
    "clip_group",
    "group_masks",
    "groups_of_tokens",
    "is_subgroup",
    "partition",
]

GROUPS = ("audio", "question", "options", "caption", "template", "sink", "generated")
"""Names of the groups. Every real token is in exactly one of them, padding in none.

``audio``: the placeholder positions alone; their begin and end marks are template.
``question``, ``options``, ``caption``: the item's texts.
``template``: chat markup, the system prompt and all other text of the template.
``sink``: the first real token, which draws attention whatever it is; a placeholder is audio even there.
``generated``: tokens that the model generated: an answer, and the reasoning that a prompt continues after.
"""

SUBGROUPS = {
    "audio_1": "the first clip of prompts with several clips, and so on: audio_2, audio_3, ...",
    "reasoning": "generated tokens of a thought, its tags included",
    "answer": "generated tokens after the thought; all of them where there is none",
}
"""Names of parts of ``audio`` and of ``generated``: their tokens are in that group, too."""

_CLIP = re.compile(r"audio_([1-9]\d*)")


def clip_group(number: int) -> str:
    """The name of a clip's tokens, from 1."""
    return f"audio_{number}"


def is_subgroup(name: str) -> bool:
    """Whether a name stands for a part of another group: a clip, a span in seconds, reasoning, answer.

    Examples:
        >>> is_subgroup("audio_2"), is_subgroup("audio:2-4s"), is_subgroup("audio")
        (True, True, False)
    """
    return name in SUBGROUPS or bool(_CLIP.fullmatch(name)) or is_span(name)


def partition(groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The groups without subgroups: every real token is in exactly one of them."""
    return {name: mask for name, mask in groups.items() if not is_subgroup(name)}


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
    """Left-padded masks ``bool[B, width]`` of GROUPS, from the names of each row's tokens.

    The first token of each row becomes the sink, unless it is audio. Tokens may be named by their clip
    (``audio_2``); where some row has several clips, there is a mask for each clip, too.
    """
    codes = torch.full((len(rows), width), -1)
    clips = torch.zeros_like(codes)
    for row, names in enumerate(rows):
        numbers = [_clip_number(name) for name in names]
        named = ["audio" if number else name for name, number in zip(names, numbers, strict=True)]
        named[0] = "audio" if numbers[0] else "sink"
        codes[row, width - len(named) :] = torch.tensor([GROUPS.index(name) for name in named])
        clips[row, width - len(named) :] = torch.tensor(numbers)
    masks = {name: codes == code for code, name in enumerate(GROUPS)}
    count = int(clips.max())
    if count > 1:
        masks |= {clip_group(number): clips == number for number in range(1, count + 1)}
    return masks


def _clip_number(name: str) -> int:
    """Which clip a token's name stands for, from 1; 0 for names of other groups."""
    if name == "audio":
        return 1
    clip = _CLIP.fullmatch(name)
    return int(clip[1]) if clip else 0
