"""The edits of all nodes of a layer at once: one call of a rule for all nodes that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions import RULES, Mata, tokens_named
from mata_interp.lalm import Slots

from .tree import Level

__all__ = ["TreeEditing"]


class TreeEditing:
    """Edits scores [B, H, N, S, P + S] as the levels of a tree say.

    Args:
        levels: of each layer that has attention.
        configurations: all of them, to find the tokens they name.
        groups: bool [B, P + 1] masks of the prompts' tokens.
        slots: the last prompt token and the answers'.
    """

    def __init__(
        self,
        levels: Mapping[int, Level],
        configurations: Sequence[tuple[Mata, ...]],
        groups: Mapping[str, Tensor],
        slots: Slots,
    ) -> None:
        self._levels = levels
        names = {part.keys for parts in configurations for part in parts}
        self._keys = {name: _columns(name, groups, slots) for name in names}
        answer = torch.arange(slots.tokens.shape[1], device=slots.tokens.device) > 0
        self._phases = {"both": answer | True, "prefill": ~answer, "decode": answer}  # bool [S]

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
        _, heads, count, width, _ = scores.shape
        nodes = torch.tensor(list(parts), device=scores.device)
        alpha = torch.zeros(heads, len(parts), width, 1, device=scores.device)
        touched = torch.zeros_like(alpha, dtype=torch.bool)
        for row, part in enumerate(parts.values()):
            chosen = part.heads_of(layer)
            which = slice(None) if chosen is None else torch.tensor(chosen, device=scores.device)
            touched[which, row] = self._phases[part.phase][:, None]
            alpha[which, row] = part.alpha
        everywhere = len(parts) == count
        some = scores if everywhere else scores.index_select(2, nodes)
        # neither what is hidden nor what an edit before this one has knocked out
        changed = RULES[rule](some, self._keys[keys][:, None, None] & touched & (some > -torch.inf), alpha)
        if rule == "knockout" and (changed.amax(-1) == -torch.inf).any():
            raise InterventionError(f"A knockout in layer {layer} leaves a query nothing to see.")
        return changed if everywhere else scores.index_copy(2, nodes, changed)


def _columns(name: str, groups: Mapping[str, Tensor], slots: Slots) -> Tensor:
    """Which keys a part may touch, seen from each slot: bool [B, S, P + S]."""
    tokens = tokens_named(name, groups)  # (B, P + 1)
    batch, width = slots.tokens.shape
    past = tokens[:, None, :-1].expand(batch, width, -1)
    own = torch.zeros(batch, width, width, dtype=torch.bool, device=tokens.device)
    own[:, :, 0] = tokens[:, None, -1]
    if name == "generated":
        own[:, :, 1:] = True
    if name == "text":
        own &= ~torch.eye(width, dtype=torch.bool, device=tokens.device)
    return torch.cat([past, own], -1)
