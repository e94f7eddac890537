"""Attention of the last token to the audio: where it is less than its size suggests, and where it changes.

Attention is not contribution: these criteria say where a model attends, not what that does to the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["audio_shares"]


@torch.no_grad()
def audio_shares(context: ItemContext) -> tuple[np.ndarray, float]:
    """A / (A + T) of the deciding token, mean over heads, without the attention sink.

    Returns:
        the share of each layer, float64 [layers]; and the share under uniform attention, |A| / (|A| + |T|).
    """
    forced = len(context.decision.forced)
    sink = torch.nn.functional.pad(context.prompt.groups["sink"][0], (0, forced), value=False)
    groups = torch.stack([context.audio_keys, ~context.audio_keys & ~sink])[None]  # (1, 2, L)
    shares = []
    for layer in context.layers:
        call = context.last_token_trace.calls[layer]
        visible = groups[..., -call.length :].to(call.key.device)
        audio, text = call.masses(slice(-1, None), visible)[0, :, 0].cpu().double().unbind(-1)  # (H,)
        shares.append(float((audio / (audio + text)).mean()))
    tokens = groups[0].sum(-1)
    return np.array(shares), float(tokens[0] / tokens.sum())


@criterion(
    name="deficit",
    label="attention deficit",
    evidence="attention",
    reads="out at the last token",
    window_rule="deficit",
    unit="efficiency",
    formula="[A / (A + T)] / [|A| / (|A| + |T|)], without the sink: 1 where audio gets what its size "
    "suggests; the window is the run of layers with the lowest values, among those that attend to the audio "
    "at all",
    source="audio's counterpart of AEI (arXiv 2508.10552); deficit as the reason for MATA (arXiv 2509.18816)",
)
def deficit(context: ItemContext) -> np.ndarray:
    shares, uniform = audio_shares(context)
    return shares / uniform


@criterion(
    name="change_point",
    label="change of attention",
    evidence="attention",
    reads="out at the last token",
    window_rule="change",
    unit="audio share",
    formula="A / (A + T), without the sink, over layers in up to three level segments; the window is "
    "the highest",
    source="least-squares segmentation, number of segments by BIC (Yao 1988, Stat Probab Lett 6:181)",
)
def change_point(context: ItemContext) -> np.ndarray:
    return audio_shares(context)[0]


CRITERIA = (deficit, change_point)
