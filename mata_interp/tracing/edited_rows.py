"""A trace under an intervention: the masses of edited rows are those of the weights after the edits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.interventions import InterventionLike, in_order
from mata_interp.lalm import Prompt
from mata_interp.lalm.calls.attention_calls import Add
from mata_interp.lalm.site_hooks import BoundInterventions

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["EditedRows"]


class EditedRows:
    """An intervention in force while attention is read.

    Args:
        lalm: the model.
        prompt: on the model's device.
        intervention: None, one, or several in order. Parts at the logits change no attention to a prompt.

    Attributes:
        bound: the bound interventions; None where nothing is edited.
    """

    def __init__(self, lalm: LALM, prompt: Prompt, intervention: InterventionLike, generates: bool) -> None:
        parts = [part for part in in_order(intervention) if generates or part.site != "logits"]
        self.bound = BoundInterventions(lalm, prompt, parts) if parts else None
        self._weights: list[tuple[Tensor, Tensor, Tensor]] = []
        if self.bound is not None and self.bound.attention is not None:
            self.bound.attention.watch = self._watch

    @property
    def paused(self) -> bool:
        """Whether the current call belongs to an extra pass, which is not measured."""
        return self.bound is not None and self.bound.paused

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, the parts outside of attention are in force."""
        if self.bound is None:
            yield
        else:
            with self.bound.in_force():
                yield

    def change(self, layer: int, call: AttentionCall, total: int) -> Add | None:
        """What to add to a call's output; afterwards `replace_masses` knows its edited rows."""
        self._weights.clear()
        if self.bound is None or layer not in self.bound.layers:
            return None
        change = self.bound(layer, call, total)
        return None if change is None else Add(*change)

    def replace_masses(self, masses: Tensor, positions: Tensor, groups: Tensor) -> Tensor:
        """The masses of a call's queries, those of edited rows measured in their edited weights.

        Args:
            masses: float32 [B, H, R, G], as the model computes them at this call.
            positions: int [R], the absolute positions of these queries.
            groups: float32 [B, G, L], the group of each key.
        """
        for at, weights, edited in self._weights:
            edited_masses = (weights.flatten(1, 2) @ groups.transpose(1, 2)).unflatten(1, weights.shape[1:3])
            same = positions.to(at.device)[:, None] == at[None]  # (R, R')
            rows, places = same.nonzero(as_tuple=True)
            on = edited[:, None, places, None]
            masses = masses.clone()
            masses[:, :, rows] = torch.where(on, edited_masses[:, :, places], masses[:, :, rows])
        return masses

    def _watch(self, layer: int, positions: Tensor, weights: Tensor, edited: Tensor) -> None:
        del layer
        if not self.paused:
            self._weights.append((positions, weights, edited))
