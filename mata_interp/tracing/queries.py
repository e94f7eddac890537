"""Which queries a trace reads, and where they stand in their prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["QUERIES", "Queries", "gather_queries", "mean_over_queries"]

QUERIES = {
    "last": "the last prompt token",
    "text": "tokens of question, options, caption and template after the first audio token; the last one",
    "generated": "the last prompt token and the answer's, but its last: each predicts one of the answer",
}
"""The queries that can be traced, with the description that a trace carries in its attributes."""


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
        """Describe the chosen tokens of prompts.

        Args:
            tokens: ids [B, T].
            groups: bool [B, T] of each group.
            chosen: bool [B, T], which tokens are queries.
            mean: take the mean of ``n_tokens`` over the queries.
        """
        # small tensors; and not every device has float64
        tokens, chosen, stacked = tokens.cpu(), chosen.cpu(), torch.stack(list(groups.values()), 1).cpu()
        columns = chosen.any(0).nonzero()[:, 0]  # (R,) tokens that are a query in some prompt
        chosen = chosen[:, columns]  # (B, R); stacked is (B, G, T)
        grouped = stacked.any(1)
        group = torch.where(grouped, stacked.int().argmax(1), len(groups))[:, columns]
        position = grouped.cumsum(1)[:, columns] - 1
        n_tokens = stacked.cumsum(-1)[..., columns].double()
        n_tokens = mean_over_queries(n_tokens, chosen) if mean else gather_queries(n_tokens, chosen, 0)
        return cls(
            n_tokens=n_tokens.cpu().numpy(),
            position=gather_queries(position, chosen, -1).cpu().numpy(),
            token=gather_queries(tokens[:, columns], chosen, -1).cpu().numpy(),
            group=np.array([*groups, ""])[gather_queries(group, chosen, len(groups)).cpu().numpy()],
        )

    @property
    def counts(self) -> np.ndarray:
        """int [B], the queries each prompt has."""
        return (self.position >= 0).sum(1)


def gather_queries(values: Tensor, chosen: Tensor, absent: float) -> Tensor:
    """The chosen queries' values, in order: [B, ..., Q], Q being the most that any prompt has.

    Args:
        values: [B, ..., R].
        chosen: bool [B, R].
        absent: fills up prompts with fewer queries.
    """
    shape = _broadcast_shape(values, chosen)
    order = chosen.int().argsort(dim=1, descending=True, stable=True)[:, : int(chosen.sum(1).max())]
    gathered = values.gather(-1, order.reshape(shape).expand(*values.shape[:-1], -1))
    return torch.where(chosen.gather(1, order).reshape(shape), gathered, absent)


def mean_over_queries(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of values [B, ..., R] over the chosen queries, bool [B, R]: [B, ..., 1]."""
    shape = _broadcast_shape(values, chosen)
    # selected, not multiplied: what a padding query attends to may be NaN
    total = torch.where(chosen.reshape(shape), values, 0).sum(-1, keepdim=True)
    return total / chosen.sum(1).reshape(shape)


def _broadcast_shape(values: Tensor, chosen: Tensor) -> tuple[int, ...]:
    """The shape in which [B, R] broadcasts against [B, ..., R]."""
    return (len(chosen), *(1,) * (values.dim() - 2), -1)
