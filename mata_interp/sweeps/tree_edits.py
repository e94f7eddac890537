"""The edits of all nodes of a layer at once: one call of a rule for all nodes that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions import RULES, Mata, queries_named, tokens_named
from mata_interp.lalm import SuffixTokens

from .tree import Level

__all__ = ["TreeEditing"]


class TreeEditing:
    """Edits scores [B, H, N, S, P + S] as the levels of a tree say.

    Args:
        levels: of each layer that has attention.
        configurations: all of them, to find the tokens they name.
        groups: bool [B, T] masks of the prompts' tokens.
        slots: the end of the prompts, and the answers.
    """

    def __init__(
        self,
        levels: Mapping[int, Level],
        configurations: Sequence[tuple[Mata, ...]],
        groups: Mapping[str, Tensor],
        slots: SuffixTokens,
    ) -> None:
        self._levels = levels
        parts = {(part.keys, part.queries, part.phase) for parts in configurations for part in parts}
        self._keys = {keys: _columns(keys, groups, slots) for keys, _, _ in parts}
        self._queries = {(q, phase): _rows(q, phase, groups, slots) for _, q, phase in parts}

    def __call__(self, layer: int, scores: Tensor) -> Tensor:
        edits = self._levels[layer].edits
        for place in range(max(map(len, edits), default=0)):
            parts = {n: parts[place] for n, parts in enumerate(edits) if len(parts) > place}
            for rule, keys in dict.fromkeys((part.rule, part.keys) for part in parts.values()):
                same = {n: p for n, p in parts.items() if (p.rule, p.keys) == (rule, keys)}
                scores = self._edited(layer, scores, rule, keys, same)
        return scores

    def _edited(self, layer: int, scores: Tensor, rule: str, keys: str, parts: Mapping[int, Mata]) -> Tensor:
        """One rule on one group of keys, in the nodes that have it; the others keep their scores."""
        _, heads, count, _, _ = scores.shape
        nodes = torch.tensor(list(parts), device=scores.device)
        alpha = torch.tensor([part.alpha for part in parts.values()], device=scores.device)
        where = torch.zeros(heads, len(parts), dtype=torch.bool, device=scores.device)
        for row, part in enumerate(parts.values()):
            chosen = part.heads_of(layer)
            where[slice(None) if chosen is None else list(chosen), row] = True
        # (B, 1, N', S, 1), of which queries; (H, N', 1, 1), of which heads
        asking = torch.stack([self._queries[part.queries, part.phase] for part in parts.values()], 1)
        touched = asking[:, None, :, :, None] & where[:, :, None, None]
        everywhere = len(parts) == count
        some = scores if everywhere else scores.index_select(2, nodes)
        # neither what is hidden nor what an edit before this one has knocked out
        allowed = self._keys[keys][:, None, None] & touched & (some > -torch.inf)
        changed = RULES[rule](some, allowed, alpha[:, None, None])
        if rule == "knockout" and ((changed.amax(-1) == -torch.inf) & allowed.any(-1)).any():
            raise InterventionError(f"A knockout in layer {layer} leaves a query nothing to see.")
        return changed if everywhere else scores.index_copy(2, nodes, changed)


def _columns(name: str, groups: Mapping[str, Tensor], slots: SuffixTokens) -> Tensor:
    """Which keys a part may touch, seen from each slot: bool [B, S, P + S]."""
    tokens = tokens_named(name, groups)  # (B, T)
    batch, width = slots.tokens.shape
    answers = tokens.new_full((batch, width - slots.given), name == "generated")
    columns = torch.cat([tokens, answers], 1)[:, None].repeat(1, width, 1)
    if name == "text":
        past = tokens.shape[1] - slots.given
        columns[:, :, past:] &= ~torch.eye(width, dtype=torch.bool, device=tokens.device)
    return columns


def _rows(queries: str, phase: str, groups: Mapping[str, Tensor], slots: SuffixTokens) -> Tensor:
    """Which slots a part edits: bool [B, S]."""
    asking = queries_named(queries, groups)[:, -slots.given :] & (phase != "decode")
    answers = asking.new_full((len(asking), slots.tokens.shape[1] - slots.given), phase != "prefill")
    return torch.cat([asking, answers], 1)
