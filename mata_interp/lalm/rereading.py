"""Edits of the text after the audio share the audio: the text alone is read again under each edit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from .discovery.output_head import last_position_only
from .discovery.structure import decoder_of
from .prompting.prompts import Prompt
from .rows.caches import has_state_layers, preallocate, set_prompt_positions, shortened

__all__ = ["EXACT", "keeps_states", "per_token_inputs", "reread", "without_last_token"]

EXACT = (torch.float32, torch.float64)
"""Dtypes in which text read on a cache is what it is in a whole prompt but for the last digits. In half
precision, two exact ways to compute the same logits can differ by tenths of a nat."""


def reread(model: Any, prompt: Prompt, cache: Any, first: int, room: int, dtype: torch.dtype) -> Any:
    """The cache of all prompt tokens but the last, those from ``first`` on read again.

    Edits are in force around this function; their first edited query is ``first``, so that the keys and
    values of what comes before it are those of the cache.

    Args:
        model: a transformers model.
        prompt: B left-padded prompts of P tokens on the model's device.
        cache: of all their tokens but the last, without an edit; it stays unchanged.
        first: position of the first token that is read again.
        room: number of tokens to allocate space for.
        dtype: in which the model computes.

    Returns:
        None where the text cannot be read by itself: in half precision, where a row still has audio from
        ``first`` on, where the model takes more than ids and a mask for each token, and where the cache does
        not keep all keys.
    """
    if dtype not in EXACT or prompt.groups["audio"][:, first:].any() or per_token_inputs(prompt):
        return None
    past = shortened(cache, first)
    if past is None:
        return None
    tokens, more = prompt.inputs["input_ids"][:, first:-1], {}
    mask = prompt.inputs.get("attention_mask")
    positions: Tensor | None = getattr(cache, "prompt_positions", None)
    if mask is not None:
        more["attention_mask"] = mask[:, :-1]
    if positions is not None:
        more["position_ids"] = positions[..., first:-1]
    with last_position_only(model):
        grown = model(input_ids=tokens, past_key_values=past, use_cache=True, **more).past_key_values
    return preallocate(set_prompt_positions(grown, positions), room)


def per_token_inputs(prompt: Prompt) -> set[str]:
    """Names of the inputs, ids and mask aside, that have an entry for each token."""
    tensors = {name: x for name, x in prompt.inputs.items() if isinstance(x, Tensor)}
    names = {name for name, x in tensors.items() if x.dim() > 1 and x.shape[-1] == prompt.width}
    return names - {"input_ids", "attention_mask"}


def keeps_states(model: Any) -> bool:
    """Whether some layer of the decoder keeps a state instead of keys and values, so that its cache cannot
    step back by a token."""
    decoder: Any = decoder_of(model)
    return has_state_layers(DynamicCache(config=decoder.config))


def without_last_token(prompt: Prompt) -> dict[str, Any] | None:
    """The inputs of all tokens but the last; None where the model takes more than ids and a mask for each."""
    if per_token_inputs(prompt):
        return None
    shorter = dict(prompt.inputs)
    for name in {"input_ids", "attention_mask"} & set(shorter):
        shorter[name] = shorter[name][:, :-1]
    return shorter
