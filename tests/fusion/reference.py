"""Plain references of the criteria: a forward of the whole prompt for each number, eager, with autograd."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from mata_interp.fusion.item_context import ItemContext
from tests.reference import Edit, forward


def whole(context: ItemContext) -> dict[str, Tensor]:
    """The inputs of an item with its forced tokens after the prompt."""
    inputs = dict(context.prompt.inputs)
    forced = torch.tensor([context.decision.forced], dtype=torch.long).reshape(1, -1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], forced], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def margin(context: ItemContext, logits: Tensor) -> Tensor:
    return logits[..., context.decision.right] - logits[..., context.decision.wrong]


def saliency(model, context: ItemContext, queries: Sequence[int]) -> list[float]:
    """The sum of |A * dL/dA| over these queries and the audio, per layer: autograd on T x T weights."""
    audio = context.prompt.groups["audio"][0].nonzero()[:, 0]
    with torch.enable_grad():
        out = model(**whole(context), output_attentions=True, use_cache=False)
        for weights in out.attentions:
            weights.retain_grad()
        margin(context, out.logits[0, -1]).backward()
    per_layer = []
    for weights in out.attentions:
        product = (weights * weights.grad).abs()[0].detach()
        per_layer.append(float(product[:, list(queries)][:, :, audio].sum().detach()))
    model.zero_grad()
    return per_layer


def knocked_out(model, context: ItemContext, layers: Collection[int], text: bool) -> float:
    """The margin of the options with the audio hidden, each option in a forward pass of its own."""
    keys = context.prompt.groups["audio"][0]
    queries = None
    if text:
        after = keys.cumsum(0) > 0
        queries = after & ~keys
    edit = Edit(1.0, list(layers), "knockout", keys, queries=queries)
    logprobs = []
    for option in context.options:
        logits = forward(model, context.prompt.inputs, [edit] if layers else [], option)[:-1].double()
        logprobs.append(float(logits.log_softmax(-1)[range(len(option)), option].sum()))
    right = context.item.choices.index(context.item.answer)
    return logprobs[right] - max(value for i, value in enumerate(logprobs) if i != right)


@torch.no_grad()
def states(model, context: ItemContext) -> list[Tensor]:
    """Hidden states before the first decoder layer and after each: [1, T + F, d]."""
    result: list[Tensor] = []
    layers = model.model.language_model.layers
    hooks = [layers[0].register_forward_pre_hook(lambda _, args: result.append(args[0]))]
    hooks += [layer.register_forward_hook(lambda _, __, out: result.append(_state(out))) for layer in layers]
    model(**whole(context), use_cache=False)
    for hook in hooks:
        hook.remove()
    return result


@torch.no_grad()
def patched(model, run: ItemContext, put: list[Tensor], where: Tensor, layer: int) -> float:
    """The margin of ``run`` with states of another run patched in before ``layer``.

    Args:
        put: states of the other run, before each layer and after the last.
        where: which tokens to patch, bool [T + F].
        layer: the layer; their number for states after the last.
    """
    layers = model.model.language_model.layers

    def hook(_, args):
        state = args[0].clone()
        state[:, where] = put[layer][:, where]
        return (state, *args[1:])

    part = layers[layer] if layer < len(layers) else model.model.language_model.norm
    handle = part.register_forward_pre_hook(hook)
    logits = model(**whole(run), use_cache=False).logits[0, -1]
    handle.remove()
    return float(margin(run, logits.double()))


def _state(out):
    return out[0] if isinstance(out, tuple) else out
