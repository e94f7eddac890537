"""Patches of states and head outputs in the rows of a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.interventions import SiteContext, select_queries
from mata_interp.interventions.selection import select_rows
from mata_interp.lalm import SuffixTokens

from .paths import is_row_patch
from .tree import Level
from .tree_edits import absolute_positions

__all__ = ["Measured", "RowPatches", "measured_patches"]

Measured = Mapping[Any, Mapping[str, Tensor]]


class RowPatches:
    """Changes what layers and heads return in those rows whose nodes have patches.

    Args:
        levels: of each layer that has attention.
        groups: bool [B, T] masks of the prompts' tokens.
        slots: the end of the prompts, and the answers.
        measured: patch -> what its ``measure`` returned.
    """

    def __init__(
        self,
        levels: Mapping[int, Level],
        groups: Mapping[str, Tensor],
        slots: SuffixTokens,
        measured: Measured,
    ) -> None:
        self._levels, self._groups, self._measured = levels, groups, measured
        self._width = next(iter(groups.values())).shape[1]
        self._positions = absolute_positions(slots, self._width)

    def head_outputs(self, layer: int, outputs: Tensor) -> Tensor:
        """The outputs of a layer's heads, float32 [B, H, N, S, Dv], after the patches."""
        return self._patched(layer, outputs, "head_output", 2)

    def states(self, layer: int, states: Tensor) -> Tensor:
        """The output of a layer, [B, N * S, d], after the patches.

        Raises:
            ModelError: the model carries several streams of states.
        """
        if not any(patch.site == "residual" for some in self._at(layer) for patch in some):
            return states
        if states.dim() != 3:
            raise ModelError(
                f"The states of layer {layer} are {tuple(states.shape)}: rows cannot be patched."
            )
        rows = states.unflatten(1, (-1, self._positions.shape[1]))
        return self._patched(layer, rows, "residual", 1).flatten(1, 2)

    def _at(self, layer: int) -> tuple[tuple[Any, ...], ...]:
        return self._levels[layer].patches if layer in self._levels else ()

    def _patched(self, layer: int, x: Tensor, site: str, axis: int) -> Tensor:
        """The tensor with the nodes along ``axis`` patched one by one; it is copied if any is."""
        copied = False
        for node, patches in enumerate(self._at(layer)):
            for patch in (one for one in patches if one.site == site):
                x, copied = (x if copied else x.clone()), True
                row = x.select(axis, node)
                context = self._context(patch, layer, x.device)
                edited = patch.edit(row.float(), context)
                on = context.edited[:, :, None] if row.dim() == 3 else context.edited[:, None, :, None]
                row.copy_(torch.where(on, edited.to(row.dtype), row))
        return x

    def _context(self, patch: Any, layer: int, device: torch.device) -> SiteContext:
        positions = self._positions.to(device)
        chosen = select_queries(patch.queries, self._groups)
        return SiteContext(
            layer=layer,
            positions=positions,
            width=self._width,
            edited=select_rows(chosen, patch.phase, positions),
            tokens={},
            measured=self._measured[patch],
        )


def measured_patches(lalm: Any, prompt: Any, parts: Sequence[Any]) -> Measured:
    """What the ``measure`` of each patch among these parts returns for a prompt: one run for all alike."""
    measured: dict[Any, Mapping[str, Tensor]] = {}
    patches = [part for part in parts if is_row_patch(part)]
    for kind in dict.fromkeys(type(patch) for patch in patches):
        measured |= kind.measure_together(lalm, prompt, [one for one in patches if type(one) is kind])
    return measured
