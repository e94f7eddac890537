"""The edits of all nodes of a layer at once: one call of a rule for all nodes that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mata_interp.attention import Change
from mata_interp.interventions import RULES, AttentionEdit, select_queries, select_tokens
from mata_interp.interventions.selection import refuse_blind_queries, select_scores
from mata_interp.lalm import SuffixTokens

from .row_doses import RowDoses
from .tree import Level

__all__ = ["TreeEditing", "absolute_positions"]


class TreeEditing:
    """Edits scores [B, H, N, S, P + S] as the levels of a tree say.

    Args:
        levels: of each layer that has attention.
        configurations: all of them, for the tokens that their attention edits name.
        groups: bool [B, T] masks of the prompts' tokens.
        slots: the end of the prompts, and the answers.
        doses: to which each layer's change of attention is added; None: it is not measured.
    """

    def __init__(
        self,
        levels: Mapping[int, Level],
        configurations: Sequence[tuple[Any, ...]],
        groups: Mapping[str, Tensor],
        slots: SuffixTokens,
        doses: RowDoses | None = None,
    ) -> None:
        self._levels, self._doses = levels, doses
        width = next(iter(groups.values())).shape[1]
        queries = absolute_positions(slots, width)
        past = torch.arange(width - slots.prompt_slots, device=queries.device)
        keys = torch.cat([past.expand(len(queries), -1), queries], 1)
        # bool [B, S, P + S] by kind of edit; what a slot does not see is -inf in the scores
        self._masks: dict[tuple[str, str, str], Tensor] = {}
        # the same where layers are on other devices
        self._masks_on: dict[torch.device, dict[tuple[str, str, str], Tensor]] = {}
        for part in (p for parts in configurations for p in parts if isinstance(p, AttentionEdit)):
            kind = (part.keys, part.queries, part.phase)
            if kind not in self._masks:
                tokens, chosen = select_tokens(part.keys, groups), select_queries(part.queries, groups)
                self._masks[kind] = select_scores(tokens, chosen, part.keys, part.phase, keys, queries)

    def __call__(self, layer: int, scores: Tensor) -> Tensor:
        edits, before = self._levels[layer].edits, scores
        every_touched: dict[int, Tensor] = {}  # node -> bool [B, 1|H, S, L]
        for place in range(max(map(len, edits), default=0)):
            parts = {node: some[place] for node, some in enumerate(edits) if len(some) > place}
            for rule in dict.fromkeys(part.rule for part in parts.values()):
                same = {node: part for node, part in parts.items() if part.rule == rule}
                scores, touched = self._edit(layer, scores, rule, same)
                if self._doses is not None:
                    for n, node in enumerate(same):
                        here = touched[:, :, n]
                        every_touched[node] = here | every_touched[node] if node in every_touched else here
        if self._doses is not None and every_touched:
            nodes = list(every_touched)
            some = torch.tensor(nodes, device=scores.device)
            touched = torch.stack(list(every_touched.values()), 2)
            change = Change(before.index_select(2, some), scores.index_select(2, some), touched)
            self._doses.add(layer, nodes, change)
        return scores

    def _edit(
        self, layer: int, scores: Tensor, rule: str, parts: Mapping[int, AttentionEdit]
    ) -> tuple[Tensor, Tensor]:
        """One rule in the nodes that have it; the others keep their scores.

        Returns:
            All scores, and which of those of ``parts`` the rule touched: bool [B, H, N', S, L].
        """
        device, everywhere = scores.device, len(parts) == scores.shape[2]
        nodes = torch.tensor(list(parts), device=device)
        alpha = torch.tensor([part.alpha for part in parts.values()], device=device)
        some = scores if everywhere else scores.index_select(2, nodes)
        touched = self._touched(list(parts.values()), device)[:, None]  # (B, 1, N'|1, S, P + S)
        if any(part.heads_of(layer) is not None for part in parts.values()):
            touched = touched & _heads(list(parts.values()), layer, scores.shape[1]).to(device)
        # neither hidden keys nor those that an earlier edit has knocked out
        touched = touched & (some > -torch.inf)
        changed = RULES[rule](some, touched, alpha[:, None, None])
        if RULES[rule].hides_keys:
            refuse_blind_queries(changed, touched, layer)
        return (changed if everywhere else scores.index_copy(2, nodes, changed)), touched

    def _touched(self, parts: Sequence[AttentionEdit], device: torch.device) -> Tensor:
        """The scores that each part may touch, in as few operations for many as for one: [B, N'|1, S, L]."""
        kinds = [(part.keys, part.queries, part.phase) for part in parts]
        different = list(dict.fromkeys(kinds))
        masks = torch.stack([self._mask(kind, device) for kind in different], 1)
        if len(different) == 1:
            return masks
        return masks.index_select(1, torch.tensor([different.index(kind) for kind in kinds], device=device))

    def _mask(self, kind: tuple[str, str, str], device: torch.device) -> Tensor:
        """The mask of a kind of edit on a device."""
        here = self._masks_on.setdefault(device, {})
        if kind not in here:
            here[kind] = self._masks[kind].to(device)
        return here[kind]


def _heads(parts: Sequence[AttentionEdit], layer: int, count: int) -> Tensor:
    """Which of the layer's heads each part edits: bool [H, N', 1, 1], made on the CPU at once."""
    chosen = [part.heads_of(layer) for part in parts]
    return torch.tensor([[some is None or head in some for some in chosen] for head in range(count)])[
        :, :, None, None
    ]


def absolute_positions(slots: SuffixTokens, width: int) -> Tensor:
    """Absolute positions of the slots, [B, S]: the end of the prompt, then the tokens of the answers.

    Padding slots count as tokens after the prompt, too.
    """
    behind = width - 1 + slots.depth
    is_answer = torch.arange(behind.shape[1], device=behind.device) >= slots.prompt_slots
    return torch.where(is_answer, behind.clamp(min=width), behind)
