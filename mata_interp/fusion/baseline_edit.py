"""An intervention that is in force while criteria look: a part of the model, not what is tried on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.interventions import RULES, AttentionEdit, select_queries
from mata_interp.lalm import SuffixTokens
from mata_interp.ranges import named_layers
from mata_interp.sweeps.tree import grow
from mata_interp.sweeps.tree_edits import TreeEditing

if TYPE_CHECKING:
    from .item_context import ItemContext

__all__ = ["BaselineEdit", "alters_text", "described"]


class BaselineEdit:
    """The baseline of a case at the attention calls of one of its endings, done as in a sweep.

    The sound and what stands before it are as without any edit, whatever the edit is, so that the case's
    reading serves; text behind the sound is not, where :func:`alters_text`.

    Args:
        case: whose baseline is in force; it may be none.
        tokens: [1, S] of the ending, ``forced`` tokens of the answer at its end.
    """

    def __init__(self, case: ItemContext, tokens: Tensor, forced: int) -> None:
        parts, given = case.baseline, tokens.shape[1] - forced
        places = torch.arange(tokens.shape[1], device=tokens.device)
        slots = SuffixTokens(tokens, (places - (given - 1))[None], places[:, None] >= places[None, :], given)
        self._levels, _ = grow([parts], case.layers)
        self._edit = TreeEditing(self._levels, [parts], case.prompt.groups, slots) if parts else None

    def at(self, layer: int) -> bool:
        """Whether anything is edited in this layer."""
        return self._edit is not None and any(self._levels[layer].edits)

    def scores(self, layer: int, call: AttentionCall) -> Tensor:
        """The call's scores as the baseline leaves them: float32 [R, H, S, L]."""
        scores = call.scores(slice(None))
        if not self.at(layer) or self._edit is None:
            return scores
        return self._edit(layer, scores[:, :, None])[:, :, 0]

    def call(self, layer: int, call: AttentionCall) -> AttentionCall:
        """The call with what the baseline adds to its scores in its mask, where whoever reads it sees it."""
        if not self.at(layer):
            return call
        plain = call.scores(slice(None))
        bias = torch.where(plain > -torch.inf, self.scores(layer, call) - plain, 0.0)
        return call.biased(bias)


def alters_text(case: ItemContext) -> bool:
    """Whether tokens of the prompt before its last are not as in the case's reading."""
    last = case.prompt.width - 1
    return any(
        bool(select_queries(part.queries, case.prompt.groups)[0, :last].any())
        for part in case.baseline
        if part.phase != "decode"
    )


def described(parts: Sequence[AttentionEdit]) -> str:
    """Such as ``add -4 on audio in layers 2-3, text queries``."""
    told = []
    for part in parts:
        what = f"{part.rule} {part.alpha:+g}" if RULES[part.rule].has_strength else part.rule
        heads = "" if part.heads == "all" else ", some heads"
        told.append(f"{what} on {part.keys} in {named_layers(part.layers)}, {part.queries} queries{heads}")
    return "; ".join(told)
