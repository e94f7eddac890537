"""Which scores an edit touches: keys x queries x phase x heads. The one place that decides it.

Everything is a function of the prompt's token groups and of absolute positions. The last token of a prompt of
P tokens (left-padded to the batch's width) is at position P - 1, and the tokens of the answer are at P,
P + 1, ... So the same functions serve a forward over the whole prompt, decoding token by token, scored
options, and the rows of a sweep. Positions are ``[1, N]`` where all rows of a batch share them, else
``[B, N]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mata_interp.errors import InterventionError, unknown_name

__all__ = [
    "PHASES",
    "QUERIES",
    "TEXT",
    "cross",
    "first_query",
    "refuse_blind_queries",
    "select_columns",
    "select_heads",
    "select_queries",
    "select_rows",
    "select_scores",
    "select_tokens",
]

PHASES = ("both", "prefill", "decode")
QUERIES = ("last", "text")
"""Which queries of a prompt a score edit may change; methods at other sites also know ``"all"``."""

TEXT = ("question", "options", "caption", "template")
"""The groups that ``"text"`` stands for."""


def select_tokens(keys: str, groups: Mapping[str, Tensor]) -> Tensor:
    """The tokens of a prompt that ``keys`` stands for: bool [B, P].

    Args:
        keys: ``"text"`` (`TEXT`), or the name of one group.
        groups: group -> bool [B, P].

    Raises:
        InterventionError: there is no such group, or a prompt has no token in it (``"generated"`` aside,
            which fills as the answer grows).
    """
    if keys != "text" and keys not in groups:
        raise InterventionError(unknown_name("group", keys, ["text", *groups]))
    names = TEXT if keys == "text" else (keys,)
    tokens = torch.stack([groups[name] for name in names]).any(0)
    present = tokens.any(1)
    if keys != "generated" and not present.all():
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


def select_rows(chosen: Tensor, phase: str, positions: Tensor) -> Tensor:
    """Which of the queries at ``positions`` an edit changes: bool [B, Q].

    Args:
        chosen: bool [B, P], from `select_queries`.
        phase: ``"prefill"`` edits these queries of the prompt, ``"decode"`` every token of the answer,
            ``"both"`` both.
        positions: int [B|1, Q], absolute.
    """
    width = chosen.shape[1]
    chosen = chosen.to(positions.device)
    in_prompt = _take(chosen, positions.clamp(max=width - 1)) & (phase != "decode")
    return torch.where(positions >= width, phase != "prefill", in_prompt)


def select_columns(tokens: Tensor, keys: str, positions: Tensor) -> Tensor:
    """Which of the keys at ``positions`` an edit may change: bool [B, L].

    Args:
        tokens: bool [B, P], from `select_tokens`.
        keys: the name they were selected with; tokens of the answer are ``"generated"``.
        positions: int [B|1, L], absolute.
    """
    width = tokens.shape[1]
    tokens = tokens.to(positions.device)
    return torch.where(positions >= width, keys == "generated", _take(tokens, positions.clamp(max=width - 1)))


def select_scores(
    tokens: Tensor, chosen: Tensor, keys: str, phase: str, key_positions: Tensor, query_positions: Tensor
) -> Tensor:
    """Which scores an edit touches in the heads that it edits: bool [B, Q, L].

    Keys of the group ``"text"`` leave out the query's own token, so that a boost of text is not a boost of
    the token itself. Hidden keys are not left out here: they are where the scores are -inf.

    Args:
        tokens, keys: those of `select_columns`.
        chosen, phase: those of `select_rows`.
        key_positions: int [B|1, L], absolute.
        query_positions: int [B|1, Q], absolute.
    """
    columns = select_columns(tokens, keys, key_positions)
    rows = select_rows(chosen, phase, query_positions)
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


def _take(mask: Tensor, positions: Tensor) -> Tensor:
    """Columns of a mask [B, P] at positions [B|1, N]: [B, N]."""
    if len(positions) == 1:
        return mask[:, positions[0]]
    return mask.gather(1, positions)
