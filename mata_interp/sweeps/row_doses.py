"""The dose of configurations that run as rows of a tree: sums over layers, heads and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mata_interp.attention import Change
from mata_interp.interventions import DOSE
from mata_interp.interventions.editing import accumulator, dose_values
from mata_interp.lalm import SuffixTokens

from .tree import Level

__all__ = ["RowDoses"]


class RowDoses:
    """Adds up the doses of a tree's nodes, layer by layer.

    Configurations that share a node share its change of attention, which is measured once.

    Args:
        levels: layer -> its level of the tree, in the order of the layers.
        ends: the node of each configuration after the last layer.
        slots: the tokens of every row. Those of the prompt and of the answers count, padding does not.
    """

    def __init__(self, levels: Mapping[int, Level], ends: Sequence[int], slots: SuffixTokens) -> None:
        self._nodes = _nodes_by_layer(levels, ends)
        in_prompt = torch.arange(slots.depth.shape[1], device=slots.depth.device) < slots.prompt_slots
        self._counted = in_prompt | (slots.depth > 0)  # (B, S)
        self._sums: list[Tensor] = []  # of each layer, [6, B, K]

    def add(self, layer: int, nodes: Sequence[int], change: Change) -> None:
        """Add what the edits of a layer changed.

        Args:
            layer: the layer.
            nodes: the N' nodes that are edited.
            change: their scores before and after the edits and which were touched, [B, H, N', S, L] each (the
                last with 1 in place of H where all heads are alike).
        """
        rows = Change(*(x.flatten(2, 3) for x in (change.scores, change.edited, change.touched)))
        counted = self._counted.to(rows.scores.device).repeat(1, len(nodes))[:, None]
        values = dose_values(rows, counted).unflatten(3, (len(nodes), -1))  # (6, B, H, N', S)
        values = values.sum((2, 4), dtype=accumulator(values.device))
        place = {node: n for n, node in enumerate(nodes)}
        edited = [k for k, node in enumerate(self._nodes[layer]) if node in place]
        columns = [place[self._nodes[layer][k]] for k in edited]
        sums = values.new_zeros(*values.shape[:2], len(self._nodes[layer]))
        sums[:, :, edited] = values[:, :, columns]
        self._sums.append(sums)

    def sums(self) -> Tensor:
        """Of each of `DOSE` and the number of edited rows: float64 [6, B, K], on the CPU."""
        if not self._sums:
            return torch.zeros(1 + len(DOSE), len(self._counted), len(next(iter(self._nodes.values()))))
        return torch.stack([some.cpu().double() for some in self._sums]).sum(0)


def _nodes_by_layer(levels: Mapping[int, Level], ends: Sequence[int]) -> dict[int, list[int]]:
    """Layer -> the node of each configuration there."""
    nodes, here = {}, list(ends)
    for layer in reversed(list(levels)):
        nodes[layer] = here
        here = [levels[layer].parents[node] for node in here]
    return nodes
