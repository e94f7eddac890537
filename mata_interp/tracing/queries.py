"""Which queries a trace reads, and where they stand in their prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["QUERIES", "ChosenQueries", "Queries"]

QUERIES = {
    "last": "the last prompt token",
    "text": "tokens of question, options, caption and template after the first audio token; the last one",
    "generated": "the last prompt token and the answer's, but its last: each predicts one of the answer",
}
"""The queries that can be traced, with the description that a trace carries in its attributes."""


class ChosenQueries:
    """Which tokens of B prompts are queries, and how values of tokens become values of queries.

    Everything that has to be counted or sorted is on the CPU: a device would have to be waited for. What is
    needed on a device is copied there once.

    Args:
        chosen: bool [B, R], on the CPU.
        mean: whether the mean over queries is taken.
    """

    def __init__(self, chosen: Tensor, mean: bool) -> None:
        counts = chosen.sum(1)
        self.count, self._mean = int(counts.max()), mean  # Q, the most queries that any prompt has
        order = chosen.int().argsort(dim=1, descending=True, stable=True)[:, : self.count]
        self._single = bool((chosen.shape[1] == 1) & chosen.all())
        self._on: dict[torch.device, tuple[Tensor, ...]] = {
            chosen.device: (chosen, counts, order, chosen.gather(1, order))
        }

    def reduce(self, values: Tensor) -> Tensor:
        """Values [B, ..., R] of the queries: their mean, [B, ..., 1], or each, [B, ..., Q], then NaN."""
        if self._single:
            return values
        return self.mean(values) if self._mean else self.gather(values, torch.nan)

    def gather(self, values: Tensor, absent: float) -> Tensor:
        """The queries' values, in order: [B, ..., Q]; ``absent`` fills up prompts with fewer queries."""
        _, _, order, present = self._parts(values)
        gathered = values.gather(-1, order.expand(*values.shape[:-1], -1))
        return torch.where(present, gathered, absent)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values [B, ..., R] over the queries: [B, ..., 1]."""
        chosen, counts, _, _ = self._parts(values)
        # selected, not multiplied: what a padding query attends to may be NaN
        return torch.where(chosen, values, 0).sum(-1, keepdim=True) / counts

    def _parts(self, values: Tensor) -> list[Tensor]:
        """Chosen, counts, order and present on the device of values, in a shape that broadcasts to them."""
        if values.device not in self._on:
            parts = next(iter(self._on.values()))
            self._on[values.device] = tuple(part.to(values.device) for part in parts)
        shape = (len(values), *(1,) * (values.dim() - 2), -1)
        return [part.reshape(shape) for part in self._on[values.device]]


@dataclass(frozen=True, eq=False)
class Queries:
    """Q queries (the most any prompt has) of B prompts, in the order in which they stand, absent ones last.

    Attributes:
        n_tokens: float64 [B, G, Q], tokens of each group that stand no later than the query, 0 for absent
            queries; with the mean taken, Q is 1.
        position: int [B, Q], tokens before the query, padding not counted; -1 for absent queries.
        token: int [B, Q], the query's id; -1 for absent ones.
        group: [B, Q], the name of the query's group; "" for absent ones.
    """

    n_tokens: np.ndarray
    position: np.ndarray
    token: np.ndarray
    group: np.ndarray

    @classmethod
    def from_tokens(cls, tokens: Tensor, groups: dict[str, Tensor], chosen: Tensor, mean: bool) -> Queries:
        """Describe the chosen tokens of prompts. Everything is on the CPU.

        Args:
            tokens: ids [B, T].
            groups: bool [B, T] of each group.
            chosen: bool [B, T], which tokens are queries.
            mean: take the mean of ``n_tokens`` over the queries.
        """
        stacked = torch.stack(list(groups.values()), 1)  # (B, G, T)
        columns = chosen.any(0).nonzero()[:, 0]  # (R,) tokens that are a query in some prompt
        queries = ChosenQueries(chosen[:, columns], mean)
        grouped = stacked.any(1)
        group = torch.where(grouped, stacked.int().argmax(1), len(groups))[:, columns]
        position = grouped.cumsum(1)[:, columns] - 1
        n_tokens = stacked.cumsum(-1)[..., columns].double()
        n_tokens = queries.mean(n_tokens) if mean else queries.gather(n_tokens, 0)
        return cls(
            n_tokens=n_tokens.numpy(),
            position=queries.gather(position, -1).numpy(),
            token=queries.gather(tokens[:, columns], -1).numpy(),
            group=np.array([*groups, ""])[queries.gather(group, len(groups)).numpy()],
        )

    @property
    def counts(self) -> np.ndarray:
        """int [B], the queries each prompt has."""
        return (self.position >= 0).sum(1)
