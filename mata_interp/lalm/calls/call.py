"""The arguments of an attention function, as an :class:`AttentionCall`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError

__all__ = ["attention_call"]

# Keywords of an attention call that do not change the scores, or repeat what the mask contains. Unknown
# keywords may change the scores, and are refused.
_NEUTRAL = {
    "cache_position",
    "deterministic",
    "dropout",
    "logits_to_keep",
    "num_items_in_batch",
    "position_ids",
}
_NEUTRAL |= {"output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "use_cache"}
_BIAS = ("position_bias", "attention_bias", "attn_bias", "relative_bias", "alibi")  # added to the scores


def attention_call(layer: int, args: tuple, kwargs: dict, total: int | None = None) -> AttentionCall:
    """One call of an attention function as queries, keys, values and the other terms of its scores.

    Args:
        layer: named in errors.
        args: positional arguments of the call: module, query, key, value, mask.
        kwargs: keyword arguments of the call.
        total: tokens so far, these included; keys after them are the unused end of a static cache.

    Raises:
        ModelError: a term is not understood, or the attention is not causal.
    """
    named = ("query", "key", "value", "attention_mask")
    module, *tensors = args
    query, key, value, mask = tensors + [kwargs.get(name) for name in named[len(tensors) :]]
    terms: dict[str, Any] = {
        n: x for n, x in kwargs.items() if n not in (*_NEUTRAL, *named) and x is not None
    }
    scaling, softcap, window = (terms.pop(name, None) for name in ("scaling", "softcap", "sliding_window"))
    causal = terms.pop("is_causal", getattr(module, "is_causal", True))
    bias = next((terms.pop(name) for name in _BIAS if name in terms), None)
    unknown = list(terms)
    if kwargs.get("scaling") is None:
        unknown.append("no scaling")
    if mask is not None and not isinstance(mask, Tensor):
        unknown.append(f"a mask of type {type(mask).__name__}")
    if mask is None and not causal:
        unknown.append("no mask and sees the tokens to come")
    if bias is not None and not _fits(bias, query, key):
        unknown.append(f"a bias of shape {getattr(bias, 'shape', type(bias).__name__)}")
    if unknown:
        raise ModelError(f"The attention of layer {layer} has {', '.join(unknown)}, which is not understood.")
    if total is not None and key.shape[2] > total:
        key, value = key[:, :, :total], value[:, :, :total]
        mask = mask if mask is None else mask[..., :total]
        bias = bias if bias is None else bias[..., :total]
    call = AttentionCall(query, key, value, mask, scaling, softcap, window)
    return call if bias is None else call.biased(bias)


def _fits(bias: Any, query: Tensor, key: Tensor) -> bool:
    """Whether a bias broadcasts to one number for each score."""
    scores = (*query.shape[:3], key.shape[2])
    return (
        isinstance(bias, Tensor)
        and bias.dim() == 4
        and all(size in (1, whole) for size, whole in zip(bias.shape, scores, strict=True))
    )
