"""What each head writes of the sound into the answer: direct logit attribution, and the norm of it.

The residual stream is a sum of what each head and each feed-forward part adds, and the logit is linear in it
once the last norm's scale is known (Elhage et al. 2021). A head's part splits into keys: its share from the
sound is W_O (sum over audio j of A_ij v_j). Everything is linearised at its run values: the last norm by its
scale, what lies between the attention call and the attention module's output (the projection, a gate) by its
derivative. Whether that is a sum at all is looked at on each item, and refused where it is not: where a norm
stands behind the attention, where the last norm centres, where a cap stands behind the logits.

The norm of a head's share (Kobayashi et al. 2020, arXiv 2004.10102) says how much is written, whatever it
means; for that the projection must take the call's output as it is.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.lalm.scoring import output_head

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["attributed", "decomposition", "direction", "written"]

_OUT = ("o_proj", "out_proj", "dense", "c_proj", "wo", "proj")
NEAR = {torch.float32: 1e-3, torch.float64: 1e-6}  # how far a sum may be off, relative to its largest part
ELHAGE = "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; value-weighted by key"


@torch.enable_grad()
def attributed(case: ItemContext) -> list[Tensor]:
    """Of each attention layer, what each head adds to the margin from the sound: float32 [H], logits."""
    u, found = direction(case), []
    for layer in case.layers:
        _require_sum(case, layer)
        way = case.said.outputs[layer].float() @ u
        slope = torch.autograd.grad(way, case.said.changes[layer], retain_graph=True)[0][0, -1]  # (H, Dv)
        found.append((slope.float() * _heard(case, layer)).sum(-1).detach())
    return found


def decomposition(case: ItemContext) -> dict[str, Any]:
    """The margin as a sum: "audio" and "attention" (its other keys) [layers], "rest" (feed-forward parts and
    layers without attention) [decoder layers], "embed", and "margin", which they add up to."""
    u, states = direction(case), case.said.states
    steps = [float((b[-1].float() - a[-1].float()) @ u) for a, b in pairwise(states)]
    audio = [float(part.sum()) for part in attributed(case)]
    whole = [float(case.said.outputs[layer].detach().float() @ u) for layer in case.layers]
    for layer, part in zip(case.layers, whole, strict=True):
        steps[layer] -= part
    return {
        "audio": audio,
        "attention": [w - a for w, a in zip(whole, audio, strict=True)],
        "rest": steps,
        "embed": float(states[0][-1].float() @ u),
        "margin": case.said.margin,
    }


def direction(case: ItemContext) -> Tensor:
    """d margin / d last state, the last norm's scale held: float32 [d].

    Raises:
        ModelError: the margin is no linear function of it.
    """
    watched, head = case.said, output_head(case.lalm.model)
    if watched.last is None:
        raise ModelError(
            "no norm stands at the end of the decoder, so that there is no direction to write in."
        )
    given, gave = (state.float() for state in watched.last)
    with torch.no_grad():
        shifted = watched.norm((watched.last[0] + 1)[None, None])[0, 0].float()
    if torch.allclose(shifted, gave, rtol=1e-3, atol=1e-4):
        raise ModelError("the last norm centres what it is given: it does more than scale.")
    weight = head.weight[[case.decision.right, case.decision.wrong]].detach().float()
    u = torch.where(given == 0, 0.0, gave / given) * (weight[0] - weight[1])
    told = float(u @ watched.states[-1][-1].float())
    if abs(told - watched.margin) > _near(case) * max(1.0, float((u * given).abs().sum())):
        raise ModelError(
            f"the states add up to a margin of {told:.4g} and the model says {watched.margin:.4g}: "
            "something stands behind the output head, or before the last norm."
        )
    return u


def written(case: ItemContext) -> list[Tensor]:
    """Of each attention layer, the norm of what each head writes of the sound: float32 [H]."""
    found = []
    for layer in case.layers:
        module = case.lalm.structure.attention[layer]
        out = next((part for name in _OUT if (part := getattr(module, name, None)) is not None), None)
        heard = _heard(case, layer)
        heads, size = heard.shape
        if out is None or getattr(out, "in_features", heads * size) != heads * size:
            raise ModelError(f"layer {layer} has no projection that takes its heads side by side.")
        with torch.no_grad():
            call = case.said.calls[layer]
            whole = call.mix(call.scores(slice(-1, None)).softmax(-1))[0, :, 0]  # (H, Dv)
            dtype = case.said.outputs[layer].dtype
            put = torch.block_diag(*heard)  # (H, H * Dv): head h alone
            flat = torch.stack([whole.flatten(), torch.zeros_like(whole.flatten())]).to(dtype)
            own, nothing = out(flat).float()
            gave = case.said.outputs[layer].detach().float()
            if not torch.allclose(
                own, gave, rtol=0, atol=_near(case) * float(gave.abs().max().clamp(min=1e-6))
            ):
                raise ModelError(f"a gate or norm stands between attention and projection in layer {layer}.")
            found.append((out(put.to(dtype)).float() - nothing).norm(dim=-1))
    return found


def _heard(case: ItemContext, layer: int) -> Tensor:
    """The part of the deciding token's attention output that comes from the sound: float32 [H, Dv]."""
    call = case.said.calls[layer]
    weights = call.scores(slice(-1, None)).softmax(-1)
    keys = case.audio[-call.length :].to(weights.device)
    return call.mix(weights * keys)[0, :, 0]


def _require_sum(case: ItemContext, layer: int) -> None:
    """What the attention module gives is added to the residual stream as it is."""
    before, gave = case.said.states[layer][-1].float(), case.said.outputs[layer].detach().float()
    wanted = before + gave
    bound = _near(case) * float(wanted.abs().max().clamp(min=1e-6))
    # what follows in the layer is given the sum, or it is what the layer gives
    behind = (*case.said.inputs[layer], case.said.states[layer + 1][-1])
    if not any(
        given.shape == wanted.shape and torch.allclose(given.float(), wanted, rtol=0, atol=bound)
        for given in behind
    ):
        raise ModelError(f"a norm or factor stands behind the attention of layer {layer}.")


def _near(case: ItemContext) -> float:
    return NEAR.get(case.lalm.dtype, 0.05)


def _layers(parts: list[Tensor]) -> np.ndarray:
    return np.array([float(part.sum()) for part in parts])


@criterion(
    "attribution", "direct attribution", "gradient", "out at the last token", "shares", "logits",
    "sum over heads of u . W_O (sum over audio j of A_ij v_j), u the direction of logit(right) - logit(best "
    "wrong)", ELHAGE,
)  # fmt: skip
def attribution(case: ItemContext) -> np.ndarray:
    return _layers(attributed(case))


@criterion(
    "value_norm", "value-weighted attention", "attention", "out at the last token", "shares", "norm",
    "sum over heads of || W_O (sum over audio j of A_ij v_j) ||", "Kobayashi et al. 2020 (arXiv 2004.10102)",
)  # fmt: skip
def value_norm(case: ItemContext) -> np.ndarray:
    return _layers(written(case))
