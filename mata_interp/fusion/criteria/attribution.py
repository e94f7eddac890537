"""What each head writes from the audio into the answer: direct logit attribution, and the norm of it.

The residual stream is a sum of what each head and each feed-forward block adds, and the logit is linear in it
for a given scale of the last norm (Elhage et al. 2021). A head's part splits by key: its part from the audio
is W_O (sum over audio j of A_ij v_j). Everything is linearised at the values of the run: the last norm by its
scale, what lies between the attention call and the attention module's output (the projection, a gate) by its
derivative. Each item is tested for whether its margin is such a sum, and the criterion is refused where it is
not: where a norm follows the attention, where the last norm centres, where a cap follows the logits.

The norm of a head's part (Kobayashi et al. 2020, arXiv 2004.10102) says how much is written, whatever it
means. It needs a projection that takes the output of the attention call unchanged.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.lalm.discovery.heads import output_projection
from mata_interp.lalm.discovery.output_head import is_plain, output_head, token_directions
from mata_interp.precision import full_precision

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["decomposition", "head_attributions", "head_norms", "margin_direction"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""How far a sum may be off, relative to its largest part."""


@full_precision()
@torch.enable_grad()
def head_attributions(context: ItemContext) -> list[Tensor]:
    """What each head adds to the margin from the audio, in logits: one float32 [H] per layer."""
    trace = context.last_token_trace
    trace.require_gradients()
    direction = margin_direction(context)
    per_layer = []
    for layer in context.layers:
        _require_sum(context, layer)
        projected = trace.attention_outputs[layer].float().to(direction.device) @ direction
        slope = torch.autograd.grad(projected, trace.offsets[layer], retain_graph=True)[0][0, -1]  # (H, Dv)
        per_layer.append((slope.float() * _audio_output(context, layer)).sum(-1).detach())
    return per_layer


def decomposition(context: ItemContext) -> dict[str, Any]:
    """The margin as a sum.

    Returns:
        ``audio`` and ``attention`` (attention to other keys), [layers]; ``rest`` (feed-forward blocks and
        layers without attention), [decoder layers]; ``embed``, of the embedding; and ``margin``, their total.
    """
    direction, trace = margin_direction(context), context.last_token_trace
    states = [state[-1].float().to(direction.device) for state in trace.states]  # layers may be on others
    steps = [float((b - a) @ direction) for a, b in pairwise(states)]
    audio = [float(part.sum()) for part in head_attributions(context)]
    attention = [
        float(trace.attention_outputs[layer].detach().float().to(direction.device) @ direction)
        for layer in context.layers
    ]
    for layer, part in zip(context.layers, attention, strict=True):
        steps[layer] -= part
    return {
        "audio": audio,
        "attention": [whole - part for whole, part in zip(attention, audio, strict=True)],
        "rest": steps,
        "embed": float(states[0] @ direction),
        "margin": trace.margin,
    }


def margin_direction(context: ItemContext) -> Tensor:
    """d margin / d last hidden state, with the scale of the last norm held fixed: float32 [d].

    Raises:
        ModelError: the margin is not a linear function of the state.
    """
    trace, head = context.last_token_trace, output_head(context.lalm.model)
    if trace.norm_input is None or trace.norm_output is None:
        raise ModelError("the decoder does not end with a norm, so the margin has no direction.")
    norm_output = trace.norm_output.float()
    norm_input = trace.norm_input.float().to(norm_output.device)  # of the last layer, perhaps elsewhere
    with torch.no_grad():
        shifted = trace.norm((trace.norm_input + 1)[None, None])[0, 0].float()
    if torch.allclose(shifted, norm_output, rtol=1e-3, atol=1e-4):
        raise ModelError("the decoder's last norm centres its input, so it does more than scale.")
    tokens = [context.decision.right, context.decision.wrong]
    right, wrong = token_directions(head, tokens, trace.norm_output).to(norm_output.device)
    direction = torch.where(norm_input == 0, 0.0, norm_output / norm_input) * (right - wrong)
    total = float(direction @ trace.states[-1][-1].float().to(direction.device))
    size = max(1.0, float((direction * norm_input).abs().sum()))
    rounding = 0.0 if is_plain(head) else _rounding_of(head, tokens, trace.norm_output, right - wrong)
    if abs(total - trace.margin) > _tolerance(context) * size + rounding:
        raise ModelError(
            f"the hidden states add up to a margin of {total:.4g}, but the model's margin is "
            f"{trace.margin:.4g}: something follows the output head or stands before the last norm."
        )
    return direction


@torch.no_grad()
def _rounding_of(head: Any, tokens: list[int], state: Tensor, direction: Tensor) -> float:
    """How far a head's margin of two tokens is from linear: quantised heads round the state they take."""
    logits = head(state[None, None])[0, 0, tokens].float()
    return abs(float(logits[0] - logits[1]) - float(direction @ state.float()))


def head_norms(context: ItemContext) -> list[Tensor]:
    """The norm of what each head writes from the audio: one float32 [H] per layer."""
    trace = context.last_token_trace
    per_layer = []
    for layer in context.layers:
        projection = output_projection(context.lalm.structure.attention[layer])
        audio_output = _audio_output(context, layer)
        heads, size = audio_output.shape
        if projection is None or getattr(projection, "in_features", heads * size) != heads * size:
            raise ModelError(f"layer {layer} has no output projection that takes its heads side by side.")
        with torch.no_grad():
            call = trace.calls[layer]
            output = call.mix(call.scores(slice(-1, None)).softmax(-1))[0, :, 0]  # (H, Dv)
            expected = trace.attention_outputs[layer].detach().float()
            dtype = trace.attention_outputs[layer].dtype
            flat = torch.stack([output.flatten(), torch.zeros_like(output.flatten())]).to(dtype)
            projected, bias = projection(flat).float()
            bound = _tolerance(context) * float(expected.abs().max().clamp(min=1e-6))
            if not torch.allclose(projected, expected, rtol=0, atol=bound):
                raise ModelError(
                    f"a gate or norm stands between attention and output projection in layer {layer}, or the "
                    "projection quantises the states of all tokens together."
                )
            each_head = torch.block_diag(*audio_output)  # (H, H * Dv): row h holds head h alone
            per_layer.append((projection(each_head.to(dtype)).float() - bias).norm(dim=-1))
    return per_layer


def _audio_output(context: ItemContext, layer: int) -> Tensor:
    """The part of the deciding token's attention output that comes from the audio: float32 [H, Dv]."""
    call = context.last_token_trace.calls[layer]
    weights = call.scores(slice(-1, None)).softmax(-1)
    keys = context.audio_keys[-call.length :].to(weights.device)
    return call.mix(weights * keys)[0, :, 0]


def _require_sum(context: ItemContext, layer: int) -> None:
    """Raise ModelError unless the attention module's output is added to the residual stream unchanged."""
    trace = context.last_token_trace
    added = trace.attention_outputs[layer].detach().float()
    total = trace.states[layer][-1].float().to(added.device) + added  # of the layer before, perhaps elsewhere
    bound = _tolerance(context) * float(total.abs().max().clamp(min=1e-6))
    # a module that follows in the layer takes the sum, or the layer returns it
    candidates = (*trace.module_inputs[layer], trace.states[layer + 1][-1])
    same = [state.float().to(total.device) for state in candidates if state.shape == total.shape]
    if not any(torch.allclose(state, total, rtol=0, atol=bound) for state in same):
        raise ModelError(f"a norm or factor follows the attention of layer {layer}.")


def _tolerance(context: ItemContext) -> float:
    return TOLERANCE.get(context.lalm.dtype, 0.05)


def _layer_sums(parts: list[Tensor]) -> np.ndarray:
    return np.array([float(part.sum()) for part in parts])


@criterion(
    name="attribution",
    label="direct attribution",
    evidence="gradient",
    reads="out at the last token",
    window_rule="shares",
    unit="logits",
    formula="sum over heads of u . W_O (sum over audio j of A_ij v_j), u the direction of logit(right) - "
    "logit(best wrong)",
    source="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; value-weighted by key",
)
def attribution(context: ItemContext) -> np.ndarray:
    return _layer_sums(head_attributions(context))


@criterion(
    name="value_norm",
    label="value-weighted attention",
    evidence="attention",
    reads="out at the last token",
    window_rule="shares",
    unit="norm",
    formula="sum over heads of || W_O (sum over audio j of A_ij v_j) ||",
    source="Kobayashi et al. 2020 (arXiv 2004.10102)",
)
def value_norm(context: ItemContext) -> np.ndarray:
    return _layer_sums(head_norms(context))


CRITERIA = (attribution, value_norm)
