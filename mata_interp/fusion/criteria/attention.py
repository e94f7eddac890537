"""Where the last token looks at the sound less than its size suggests, and where that changes.

Attention is not use: these two say where a model looks, and nothing of what that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["shares"]


@torch.no_grad()
def shares(case: ItemContext) -> tuple[np.ndarray, float]:
    """A / (A + T) of the deciding token, mean over heads, the sink left out: float64 [layers]; and what it
    would be if all tokens were alike, |A| / (|A| + |T|)."""
    sink = torch.nn.functional.pad(case.prompt.groups["sink"][0], (0, len(case.decision.forced)), value=False)
    groups = torch.stack([case.audio, ~case.audio & ~sink])[None]  # (1, 2, L)
    found = []
    for layer in case.layers:
        call = case.said.calls[layer]
        seen = groups[..., -call.length :].to(call.key.device)
        audio, text = call.masses(slice(-1, None), seen)[0, :, 0].double().unbind(-1)  # (H,)
        found.append(float((audio / (audio + text)).mean()))
    tokens = groups[0].sum(-1)
    return np.array(found), float(tokens[0] / tokens.sum())


@criterion(
    "deficit", "attention deficit", "attention", "out at the last token", "deficit", "efficiency",
    "[A / (A + T)] / [|A| / (|A| + |T|)], the sink left out: 1 where sound gets what its size suggests; the "
    "window is the run of layers with the least of it, among those that read the sound at all",
    "audio's counterpart of AEI (arXiv 2508.10552); deficit as the reason for MATA (arXiv 2509.18816)",
)  # fmt: skip
def deficit(case: ItemContext) -> np.ndarray:
    share, even = shares(case)
    return share / even


@criterion(
    "change_point", "change of attention", "attention", "out at the last token", "change", "audio share",
    "A / (A + T), the sink left out, over layers in up to three level stretches; the window is the highest",
    "least-squares segmentation, its number of stretches by BIC (Yao 1988, Stat Probab Lett 6:181)",
)  # fmt: skip
def change_point(case: ItemContext) -> np.ndarray:
    return shares(case)[0]
