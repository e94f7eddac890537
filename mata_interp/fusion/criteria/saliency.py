"""How much the answer depends on attention to the audio, to first order: |A * dL/dA|.

With z_i = sum_j A_ij v_j the output of an attention call for query i and g_i = dL/dz_i, the slope
dL/dA_ij is g_i . v_j. So saliency needs q, k, v and the gradient at the call's output, in blocks of queries:
no T x T matrix, and no gradient of one. Wang et al. 2023 (2305.14160) use it for texts; VAF
(ustc-hyin/ClearSight, 2503.13107) for images. L is the margin, logit(right) - logit(best wrong), which does
not saturate as a loss does. Absolute values are taken of each weight in each head, then summed over audio
keys, heads and queries.
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


@torch.no_grad()
def saliency(context: ItemContext, trace: SuffixTrace, queries: Tensor) -> np.ndarray:
    """Saliency of the audio for chosen queries: float64 [layers].

    Args:
        context: the item.
        trace: a recorded run of S tokens.
        queries: which of these to sum over, bool [S].

    Raises:
        ModelError: the model's layers have no backward pass.
    """
    trace.require_gradients()
    totals = []
    queries, audio_keys = queries.cpu(), context.audio_keys.cpu()  # layers may be spread over devices
    rows = queries.nonzero()[:, 0]
    for layer in context.layers:
        call, gradient = trace.calls[layer], trace.gradients[layer]  # [H, S, Dv]
        keys = audio_keys[-call.length :].nonzero()[:, 0].to(call.key.device)
        value = call.value[0][:, keys].float().repeat_interleave(len(gradient) // call.value.shape[1], 0)
        total = 0.0
        for some in rows.split(BLOCK):
            weights = call.scores(some).softmax(-1)[0][..., keys]  # (H, R, La)
            slope = gradient[:, some].float() @ value.transpose(1, 2)
            total += float((weights * slope).abs().sum())
        totals.append(total)
    return np.array(totals)


@criterion(
    name="saliency_text",
    label="saliency, text before the last token",
    evidence="gradient",
    reads="into text",
    window_rule="shares",
    unit="nats",
    formula=FORMULA.format("text queries i before the last token"),
    source=SOURCE,
    runs_suffix=True,
)
def saliency_text(context: ItemContext) -> np.ndarray:
    return saliency(context, context.suffix_trace, context.text_queries)


@criterion(
    name="saliency_last",
    label="saliency, last token",
    evidence="gradient",
    reads="out at the last token",
    window_rule="shares",
    unit="nats",
    formula=FORMULA.format("the last token i"),
    source=SOURCE,
)
def saliency_last(context: ItemContext) -> np.ndarray:
    trace = context.last_token_trace
    return saliency(context, trace, context.answer_queries[-len(trace.states[0]) :])


CRITERIA = (saliency_text, saliency_last)
