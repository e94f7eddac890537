"""How much the answer hangs on attention to the sound, to first order: |A * dL/dA|.

With z_i = sum_j A_ij v_j the output of an attention call for query i and g_i = dL/dz_i, the slope
dL/dA_ij is g_i . v_j. So saliency needs q, k, v and the gradient at the call's output, in blocks of queries:
no T x T matrix, and no gradient of one. Wang et al. 2023 (2305.14160) use it for texts; VAF
(ustc-hyin/ClearSight, 2503.13107) for images. L is the margin, logit(right) - logit(best wrong), which does
not saturate as a loss does; absolute values are taken of each weight in each head, then summed over the
sound's keys, heads and queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext
    from ..suffix_runner import SuffixTrace

__all__ = ["saliency"]

BLOCK = 32  # queries at once
SOURCE = "Wang et al. 2023 (arXiv 2305.14160); VAF (arXiv 2503.13107, ustc-hyin/ClearSight)"
FORMULA = "sum over heads, {} and audio keys j of |A_ij * (dL/dz_i . v_j)|, L = logit(right) - logit(wrong)"


def saliency(case: ItemContext, watched: SuffixTrace, queries: Tensor) -> np.ndarray:
    """float64 [layers] for the chosen queries of a run, bool [S]."""
    found = []
    rows = queries.nonzero()[:, 0]
    for layer in case.layers:
        call, gradient = watched.calls[layer], watched.gradients[layer]  # [H, S, Dv]
        keys = case.audio[-call.length :].to(call.key.device)
        value = call.value[0][:, keys].float().repeat_interleave(len(gradient) // call.value.shape[1], 0)
        total = 0.0
        for some in rows.split(BLOCK):
            weights = call.scores(some).softmax(-1)[0][..., keys]  # (H, R, La)
            slope = gradient[:, some].float() @ value.transpose(1, 2)
            total += float((weights * slope).abs().sum())
        found.append(total)
    return np.array(found)


@criterion(
    "saliency_text", "saliency, text before the last token", "gradient", "into text", "shares", "nats",
    FORMULA.format("text queries i before the last token"), SOURCE,
)  # fmt: skip
@torch.no_grad()
def text(case: ItemContext) -> np.ndarray:
    return saliency(case, case.watched, case.text)


@criterion(
    "saliency_last", "saliency, last token", "gradient", "out at the last token", "shares", "nats",
    FORMULA.format("the last token i"), SOURCE,
)  # fmt: skip
@torch.no_grad()
def last(case: ItemContext) -> np.ndarray:
    return saliency(case, case.said, case.speaking[-len(case.said.states[0]) :])
