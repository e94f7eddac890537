"""Which queries a trace reads, and what is known of them besides their attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["QUERIES", "Queries", "kept"]

QUERIES = {
    "last": "the last prompt token",
    "text": "tokens of question, options, caption and template after the first audio token; the last one",
    "generated": "the last prompt token and the answer's, but its last: each predicts one of the answer",
}
"""What can be traced, in words that a trace carries."""


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
    def of(cls, tokens: Tensor, groups: dict[str, Tensor], chosen: Tensor, mean: bool) -> Queries:
        """Describe the tokens ``chosen``, bool [B, T], of ids [B, T] in groups, each bool [B, T]."""
        rows = chosen.any(0).nonzero()[:, 0]  # (R,) what any prompt has chosen
        here = chosen[:, rows]  # (B, R)
        stacked = torch.stack(list(groups.values()), 1)  # (B, G, T)
        owner = torch.where(stacked.any(1), stacked.int().argmax(1), len(groups))[:, rows]
        position = stacked.any(1).cumsum(1)[:, rows] - 1
        return cls(
            n_tokens=kept(stacked.cumsum(-1)[..., rows].double(), here, mean, 0).cpu().numpy(),
            position=kept(position, here, False, -1).cpu().numpy(),
            token=kept(tokens[:, rows], here, False, -1).cpu().numpy(),
            group=np.array([*groups, ""])[kept(owner, here, False, len(groups)).cpu().numpy()],
        )

    @property
    def counts(self) -> np.ndarray:
        """int [B], the queries each prompt has."""
        return (self.position >= 0).sum(1)


def kept(values: Tensor, here: Tensor, mean: bool, absent: float) -> Tensor:
    """Of values [B, ..., R], those where ``here``, bool [B, R], says so: [B, ..., Q], absent ones last.

    With ``mean``, their mean over R instead: [B, ..., 1].
    """
    shape = (len(here), *(1,) * (values.dim() - 2), -1)
    if mean:
        # chosen, not multiplied: what a padding query attends to may be NaN
        total = torch.where(here.reshape(shape), values, 0).sum(-1, keepdim=True)
        return total / here.sum(1).reshape(shape)
    order = here.int().argsort(dim=1, descending=True, stable=True)[:, : int(here.sum(1).max())]
    chosen = values.gather(-1, order.reshape(shape).expand(*values.shape[:-1], -1))
    return torch.where(here.gather(1, order).reshape(shape), chosen, absent)
