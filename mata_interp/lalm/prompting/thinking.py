"""Reasoning models: the tags around a thought, whether one is open, and how it is closed.

Some chat templates end in an opening tag, so that the model begins with its reasoning. An option that is
scored there, or attention that is traced there, is inside an open thought: the model would not answer there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mata_interp.errors import ArgumentError, ModelError, unknown_name

__all__ = [
    "DEFAULT_THINKING",
    "TAGS",
    "THINKING",
    "OpenThought",
    "Tags",
    "ThoughtState",
    "check_thinking",
    "open_tags",
]

THINKING = {
    "close": "the thought is closed, so that the answer comes next",
    "through": "the model reasons to the end of its thought, and is scored and traced after it",
    "refuse": "an open thought is an error",
}
"""What is done with a thought that a prompt leaves open, where it is scored or traced."""

DEFAULT_THINKING = "close"


class Tags(NamedTuple):
    """The text that opens a thought, and the text that closes it."""

    open: str
    close: str


TAGS = (
    Tags("<think>", "</think>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<thought>", "</thought>"),
    Tags("<reasoning>", "</reasoning>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("◁think▷", "◁/think▷"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    Tags("<|channel>thought\n", "<channel|>"),
)
"""The tags of Qwen, DeepSeek and most other models; of Seed, Magistral, Kimi, Cohere, gpt-oss and Gemma."""


def check_thinking(thinking: str) -> str:
    """The mode itself.

    Raises:
        ArgumentError: there is no such mode.
    """
    if thinking not in THINKING:
        raise ArgumentError(unknown_name("way with thoughts", thinking, THINKING))
    return thinking


def open_tags(text: str) -> Tags | None:
    """The tags of the thought in which a text ends; None where it does not end inside a thought.

    Examples:
        >>> open_tags("<|im_start|>assistant\\n<think>\\n").close
        '</think>'
        >>> open_tags("<think>\\n\\n</think>\\n\\n") is None
        True
    """
    opened = [(text.rfind(tags.open), tags) for tags in TAGS if tags.open in text]
    begin, tags = max(opened, key=lambda place_and_tags: place_and_tags[0], default=(-1, None))
    return tags if tags is not None and text.find(tags.close, begin) < 0 else None


@dataclass(frozen=True)
class OpenThought:
    """The thought that a prompt's template opens at its end.

    Attributes:
        tags: its tags.
        mode: one of THINKING.
        dropped: number of tokens at the end of the prompt that closing replaces: a tokenizer may join the
            line break after the tag with those of the closing.
        closing: ids of the tokens that close the thought.
    """

    tags: Tags
    mode: str
    dropped: int
    closing: tuple[int, ...]

    @classmethod
    def at_end(cls, tokenizer: Any, after: str, mode: str) -> OpenThought | None:
        """The thought in which the template's text after the user's ends; None if there is none.

        Args:
            tokenizer: turns text into ids.
            after: what the template writes after the user's text.
            mode: one of THINKING.
        """
        tags = open_tags(after)
        if tags is None:
            return None
        empty = after + _blank(after, tags) + _closing(tags)
        before, closed = _ids(tokenizer, after), _ids(tokenizer, empty)
        same = 0
        while same < min(len(before), len(closed)) and before[same] == closed[same]:
            same += 1
        return cls(tags, mode, len(before) - same, tuple(closed[same:]))

    def close_ids(self, tokenizer: Any) -> list[int]:
        """Ids of the text that closes a thought with something in it."""
        return _ids(tokenizer, ("" if _is_token(self.tags) else "\n") + _closing(self.tags))

    def after_close(self, tokenizer: Any) -> list[int]:
        """Ids of the text between the closing tag and the answer."""
        return _ids(tokenizer, _closing(self.tags).removeprefix(self.tags.close))


def _is_token(tags: Tags) -> bool:
    """Whether the tags are control tokens, around which templates write no line breaks."""
    return tags.open.endswith(("|>", "]", "\n"))


def _closing(tags: Tags) -> str:
    """The closing tag and what stands between it and an answer."""
    return tags.close if _is_token(tags) else f"{tags.close}\n\n"


def _blank(after: str, tags: Tags) -> str:
    """The rest of an empty thought: an empty line, as the templates of Qwen3 write it."""
    begun = after[after.rfind(tags.open) + len(tags.open) :]
    if _is_token(tags) or begun.endswith("\n\n"):
        return ""
    return "\n" if begun.endswith("\n") else "\n\n"


def _ids(tokenizer: Any, text: str) -> list[int]:
    try:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{type(tokenizer).__name__} cannot turn {text!r} into tokens: {error}.") from error


class ThoughtState:
    """Whether each row of a generation is inside a thought, token by token.

    Args:
        tokenizer: turns ids into text.
        tags: of the thought that each row begins in; None where it begins outside.
        rows: B.

    Attributes:
        open: bool [B, 1 + N], whether a thought is open before any new token, and after each of the N so far.
    """

    _TAIL = 64  # tokens that are looked at for a tag; the longest has fewer, even of bytes

    def __init__(self, tokenizer: Any, tags: Tags | None, rows: int) -> None:
        self._tokenizer = tokenizer
        self._tags: list[Tags | None] = [tags] * rows
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self.open = torch.full((rows, 1), tags is not None)

    def add(self, tokens: Sequence[int]) -> None:
        """The next token of every row."""
        for row, token in enumerate(tokens):
            self._tokens[row].append(token)
            self._tags[row] = self._after(row)
        opened = torch.tensor([[tags is not None] for tags in self._tags])
        self.open = torch.cat([self.open, opened], 1)

    def _after(self, row: int) -> Tags | None:
        """The tags of the thought that is open after a row's last token."""
        before = self._tags[row]
        text = self._tokenizer.decode(self._tokens[row][-self._TAIL :], skip_special_tokens=False)
        if before is not None:
            ended = text.rfind(before.close)
            return before if ended < 0 else open_tags(text[ended + len(before.close) :])
        return open_tags(text)

    @property
    def reasoning(self) -> Tensor:
        """Which of the N tokens belong to a thought, its tags included: bool [B, N]."""
        return self.open[:, :-1] | self.open[:, 1:]
