"""The same five methods written as hooks on an eager model, one prompt at a time and without a cache.

Nothing of the package takes part: attention is replaced by plain matrices, modules get plain hooks, and every
token is read anew with the whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2 import modeling_qwen2

Forward = Callable[[dict, Sequence[int]], Tensor]


def run(model: Any, inputs: dict, tokens: Sequence[int]) -> Tensor:
    """Logits [1 + n, V] at the last prompt token and at n tokens of an answer."""
    length = inputs["input_ids"].shape[1]
    more = torch.tensor([list(tokens)], dtype=torch.long)
    whole = inputs | {
        "input_ids": torch.cat([inputs["input_ids"], more], 1),
        "attention_mask": torch.ones(1, length + len(tokens), dtype=torch.long),
    }
    with torch.no_grad():
        return model(**whole, use_cache=False).logits[0, length - 1 :]


@contextmanager
def attention(change: Callable[[Any, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside, eager Qwen2 attention outputs what ``change(layer, weights, values)`` makes: [1, H, T, D]."""

    def forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.transpose(2, 3) * scaling
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        return change(module.layer_idx, weights, value).transpose(1, 2), weights

    plain = modeling_qwen2.eager_attention_forward
    modeling_qwen2.eager_attention_forward = forward
    try:
        yield
    finally:
        modeling_qwen2.eager_attention_forward = plain


@contextmanager
def hooks(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def instaboost(model: Any, layers: Sequence[int], factor: float, span: Tensor) -> Forward:
    def change(layer, weights, value):
        if layer in layers:
            weights = weights.clone()
            for position in span.nonzero().flatten().tolist():
                weights[..., position] *= factor
            weights = weights / weights.sum(-1, keepdim=True)
        return weights @ value

    def forward(inputs, tokens):
        with attention(change):
            return run(model, inputs, tokens)

    return forward


def adhh(
    model: Any, heads: dict[int, Sequence[int]], threshold: float, text: Tensor, prompt_length: int
) -> Forward:
    positions = text.nonzero().flatten().tolist()

    def change(layer, weights, value):
        weights = weights.clone()
        for head in heads.get(layer, ()):
            for row in range(prompt_length - 1, weights.shape[2]):
                if weights[0, head, row, positions].sum() >= threshold:
                    weights[0, head, row, positions] = 0.0
        return weights @ value

    def forward(inputs, tokens):
        with attention(change):
            return run(model, inputs, tokens)

    return forward


def seka(model: Any, raising: dict, lowering: dict, up: float, down: float, span: Tensor) -> Forward:
    blocks = model.model.language_model.layers

    def hook(layer):
        def edit(module, args, output):
            output = output.clone()
            heads = raising[layer].shape[0]
            for position in span.nonzero().flatten().tolist():
                for head, k in enumerate(output[0, position].reshape(heads, -1).clone()):
                    new = k + up * raising[layer][head] @ k + down * lowering[layer][head] @ k
                    output[0, position].reshape(heads, -1)[head] = new
            return output

        return edit

    def forward(inputs, tokens):
        with hooks([blocks[i].self_attn.k_proj.register_forward_hook(hook(i)) for i in raising]):
            return run(model, inputs, tokens)

    return forward


def vista(model: Any, directions: dict[int, Tensor], strength: float, prompt_length: int) -> Forward:
    blocks = model.model.language_model.layers

    def hook(layer):
        def edit(module, args, output):
            states = (output[0] if isinstance(output, tuple) else output).clone()
            for row in range(prompt_length - 1, states.shape[1]):
                x = states[0, row].clone()
                moved = x + strength * directions[layer]
                states[0, row] = moved / moved.norm() * x.norm()
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return edit

    def forward(inputs, tokens):
        with hooks([blocks[i].register_forward_hook(hook(i)) for i in directions]):
            return run(model, inputs, tokens)

    return forward


def aad(model: Any, without_audio: dict, strength: float) -> Forward:
    def forward(inputs, tokens):
        return (1 + strength) * run(model, inputs, tokens) - strength * run(model, without_audio, tokens)

    return forward
