"""Which scores an edit touches: keys x queries x phase x heads. The one place that decides it.

Everything is a function of the prompt's token groups and of absolute positions. The last token of a prompt of
P tokens (left-padded to the batch's width) is at position P - 1, and the tokens of the answer are at P,
P + 1, ... So the same functions serve a forward over the whole prompt, decoding token by token, scored
options, and the rows of a sweep. Positions are ``[1, N]`` where all rows of a batch share them, else
``[B, N]``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mata_interp.errors import InterventionError, unknown_name

__all__ = [
    "PHASES",
    "QUERIES",
    "TEXT",
    "cross",
    "first_query",
    "groups_named",
    "refuse_blind_queries",
    "refuse_reasoning_phase",
    "select_columns",
    "select_heads",
    "select_queries",
    "select_rows",
    "select_scores",
    "select_tokens",
]

PHASES = ("both", "prefill", "decode", "reasoning", "answer")
"""When queries are edited. ``reasoning`` and ``answer`` divide what ``both`` edits by the token that a query
predicts: one inside a thought, or one after it (any, where there is no thought)."""

GENERATED = ("generated", "reasoning", "answer")
"""Groups of generated tokens: all of them, those of a thought and its tags, and those after it."""

QUERIES = ("last", "text")
"""Which queries of a prompt a score edit may change; methods at other sites also know ``"all"``."""

TEXT = ("question", "options", "caption", "template")
"""The groups that ``"text"`` stands for."""


def groups_named(keys: str, groups: Collection[str]) -> tuple[str, ...]:
    """The groups whose tokens ``keys`` stands for.

    Args:
        keys: ``"text"`` (`TEXT`), or the name of one group. ``"audio_1"`` is all audio where ``groups`` has
            no clips, because each prompt has one.
        groups: names of the groups that there are.

    Raises:
        InterventionError: there is no such group.
    """
    if keys == "text":
        return TEXT
    if keys in groups or keys in GENERATED:
        return (keys,)
    if keys == "audio_1" and "audio" in groups:
        return ("audio",)
    raise InterventionError(unknown_name("group", keys, ["text", *groups]))


def select_tokens(keys: str, groups: Mapping[str, Tensor], rows: Tensor | None = None) -> Tensor:
    """The tokens of a prompt that ``keys`` stands for: bool [B, P].

    Args:
        keys: ``"text"`` (`TEXT`), or the name of one group.
        groups: group -> bool [B, P].
        rows: bool [B], the prompts whose tokens are selected, and no others; None: all.

    Raises:
        InterventionError: there is no such group, or one of these prompts has no token in it (`GENERATED`
            aside, which fill as the answer grows).
    """
    names = [name for name in groups_named(keys, groups) if name in groups]
    none = torch.zeros_like(next(iter(groups.values())))
    tokens = torch.stack([none, *(groups[name] for name in names)]).any(0)
    if rows is not None:
        tokens = tokens & rows[:, None].to(tokens.device)
    present = tokens.any(1) if rows is None else tokens.any(1) | ~rows.to(tokens.device)
    if keys not in GENERATED and not present.all():
        row = int((~present).nonzero()[0])
        raise InterventionError(f"Row {row} of the prompt has no {keys} tokens: there is nothing to edit.")
    return tokens


def select_queries(queries: str, groups: Mapping[str, Tensor]) -> Tensor:
    """The queries of a prompt that ``queries`` stands for, the last token always among them: bool [B, P].

    Args:
        queries: ``"last"``, the last token alone; ``"text"``, all text after the first audio token (text
            before the audio cannot attend to it; without audio, all text); ``"all"``, every token.
        groups: group -> bool [B, P]; padding is in none.
    """
    chosen = torch.zeros_like(next(iter(groups.values())))
    if queries == "text":
        audio = groups["audio"]
        after_audio = (audio.cumsum(1) > 0) | ~audio.any(1, keepdim=True)
        chosen = after_audio & select_tokens("text", groups)
    elif queries == "all":
        chosen = torch.stack(list(groups.values())).any(0)
    chosen[:, -1] = True
    return chosen


def first_query(queries: str, phase: str, groups: Mapping[str, Tensor]) -> int:
    """The first position at which any row is edited: P for the phase ``"decode"``."""
    if phase == "decode":
        return next(iter(groups.values())).shape[1]
    return int(select_queries(queries, groups).any(0).nonzero()[0])


def select_rows(chosen: Tensor, phase: str, positions: Tensor, thought_open: Tensor | None = None) -> Tensor:
    """Which of the queries at ``positions`` an edit changes: bool [B, Q].

    Args:
        chosen: bool [B, P], from `select_queries`.
        phase: ``"prefill"`` edits these queries of the prompt, ``"decode"`` every token of the answer,
            ``"both"`` both; ``"reasoning"`` those of both that predict a token of a thought, ``"answer"`` the
            others.
        positions: int [B|1, Q], absolute.
        thought_open: bool [B, 1 + N], whether a thought is open after the prompt and after each of the N
            tokens of the answer so far; None: never.
    """
    width = chosen.shape[1]
    chosen = chosen.to(positions.device)
    in_prompt = _take(chosen, positions.clamp(max=width - 1)) & (phase != "decode")
    rows = torch.where(positions >= width, phase != "prefill", in_prompt)
    if phase in ("reasoning", "answer"):
        inside = _at(thought_open, positions - width + 1, len(rows))
        rows = rows & (inside if phase == "reasoning" else ~inside)
    return rows


def select_columns(
    tokens: Tensor, keys: str, positions: Tensor, thought_open: Tensor | None = None
) -> Tensor:
    """Which of the keys at ``positions`` an edit may change: bool [B, L].

    Args:
        tokens: bool [B, P], from `select_tokens`.
        keys: the name they were selected with; tokens of the answer are in `GENERATED`.
        positions: int [B|1, L], absolute.
        thought_open: that of `select_rows`.
    """
    width = tokens.shape[1]
    tokens = tokens.to(positions.device)
    in_prompt = _take(tokens, positions.clamp(max=width - 1))
    if keys not in ("reasoning", "answer"):
        return torch.where(positions >= width, keys == "generated", in_prompt)
    before, after = (_at(thought_open, positions - width + step, len(tokens)) for step in (0, 1))
    inside = before | after  # the tags belong to the thought
    return torch.where(positions >= width, inside if keys == "reasoning" else ~inside, in_prompt)


def select_scores(
    tokens: Tensor,
    chosen: Tensor,
    keys: str,
    phase: str,
    key_positions: Tensor,
    query_positions: Tensor,
    thought_open: Tensor | None = None,
) -> Tensor:
    """Which scores an edit touches in the heads that it edits: bool [B, Q, L].

    Keys of the group ``"text"`` leave out the query's own token, so that a boost of text is not a boost of
    the token itself. Hidden keys are not left out here: they are where the scores are -inf.

    Args:
        tokens, keys: those of `select_columns`.
        chosen, phase: those of `select_rows`.
        key_positions: int [B|1, L], absolute.
        query_positions: int [B|1, Q], absolute.
        thought_open: that of `select_rows`.
    """
    columns = select_columns(tokens, keys, key_positions, thought_open)
    rows = select_rows(chosen, phase, query_positions, thought_open)
    return cross(columns, rows, keys, key_positions, query_positions)


def cross(columns: Tensor, rows: Tensor, keys: str, key_positions: Tensor, query_positions: Tensor) -> Tensor:
    """The scores of these queries (rows, bool [B, Q]) and keys (columns, bool [B, L]): bool [B, Q, L].

    The other arguments are those of `select_scores`.
    """
    scores = columns[:, None] & rows[:, :, None]
    if keys == "text":
        scores = scores & (key_positions[:, None] != query_positions[:, :, None])
    return scores


def select_heads(heads: Sequence[int] | None, count: int, device: torch.device | str) -> Tensor:
    """Which of a layer's ``count`` heads are edited, bool [count]; None stands for all of them."""
    chosen = torch.zeros(count, dtype=torch.bool, device=device)
    chosen[slice(None) if heads is None else list(heads)] = True
    return chosen


def refuse_reasoning_phase(parts: Iterable[Any]) -> None:
    """Refuse parts that edit reasoning, where options are compared or a single token is predicted.

    Raises:
        InterventionError: the phase of a part is ``"reasoning"``.
    """
    for part in parts:
        if part.phase == "reasoning":
            raise InterventionError(
                "phase='reasoning' edits the tokens of a thought, and here the thought is over: generate "
                "answers, or use another phase."
            )


def refuse_blind_queries(edited: Tensor, touched: Tensor, layer: int) -> None:
    """Refuse an edit that leaves a query with no key to attend to, whose softmax is not defined.

    Args:
        edited: scores [..., Q, L] after the edit.
        touched: bool, broadcastable to the scores: those that the edit changed.
        layer: named in the error.

    Raises:
        InterventionError: a query that the edit touched sees nothing. (Padding sees nothing either, and is
            never touched.)
    """
    blind = edited.amax(-1) == -torch.inf
    if (blind & touched.any(-1)).any():
        raise InterventionError(
            f"A knockout in layer {layer} leaves a query with no key to attend to: edit fewer keys or heads."
        )


def _at(thought_open: Tensor | None, steps: Tensor, rows: int) -> Tensor:
    """Whether a thought is open after so many tokens of the answer, int [B|1, N]: bool [B, N]."""
    if thought_open is None:
        return torch.zeros(rows, steps.shape[1], dtype=torch.bool, device=steps.device)
    return _take(thought_open.to(steps.device), steps.clamp(0, thought_open.shape[1] - 1))


def _take(mask: Tensor, positions: Tensor) -> Tensor:
    """Columns of a mask [B, P] at positions [B|1, N]: [B, N]."""
    if len(positions) == 1:
        return mask[:, positions[0]]
    return mask.gather(1, positions)
