"""Read and edit attention calls while a model runs. The one file that knows nnsight (0.8).

The site is the call of the attention function inside the attention module's forward: queries and keys are
rotated, normalised and cached there, and the model stays on SDPA or FlashAttention. nnsight reaches it as
``<attention module>.source.attention_interface_1``; the label is looked up, because its number counts
mentions.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from operator import call as invoke
from typing import Any, TypeVar

from nnsight import NNsight
from nnsight.intervention.interleaver import OutOfOrderError
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError

from .anatomy import Anatomy
from .interposed import interposable, interposed

__all__ = ["Instrument", "Visit", "attention_call"]

Visit = Callable[[int, AttentionCall, int], "tuple[slice, Tensor] | None"]
"""``visit(layer, call, total)``: rows of the call and what to add to their output [B, R, H, Dv], or None."""

Result = TypeVar("Result")

# Keywords of an attention call that leave the scores alone, or say what the mask says already. Whatever is
# not known may change the scores, and is refused.
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


class Instrument:
    """nnsight around a decoder, built once for a model and silent unless :meth:`run` is running."""

    def __init__(self, anatomy: Anatomy) -> None:
        names = {module: name for name, module in anatomy.decoder.named_modules()}
        self._decoder: Any = NNsight(anatomy.decoder)
        self._anatomy, self._heads = anatomy, anatomy.heads
        self._envoys = {i: self._decoder.get(names[module]) for i, module in anatomy.attention.items()}
        self._sites: dict[int, Any] = {}

    def run(self, forward: Callable[[], Result], layers: Iterable[int], visit: Visit) -> Result:
        """Run ``forward()`` and visit the attention of ``layers`` whenever the decoder passes it.

        Args:
            forward: runs the model, once or many times (generation), in any way.
            layers: whose attention to visit; with none of them, this is a plain ``forward()``.
            visit: gets the layer, its attention call, and the number of tokens so far, these included.

        Returns:
            What ``forward()`` returns.

        Raises:
            ModelError: an attention call was not made, or has a term of the scores that is not understood.
        """
        return self._traced(forward, layers, visit, stop=False)[0]

    def edit(self, forward: Callable[[], Result], layers: Iterable[int], visit: Visit) -> Result:
        """The same as :meth:`run`, to the bit, in less time where the attention function has a name.

        So edits cost a token little; eager attention, which has none, is edited by way of nnsight.
        """
        modules = {self._anatomy.attention[layer]: layer for layer in layers}
        if not modules or not interposable(modules):
            return self.run(forward, modules.values(), visit)
        passes: list[int] = []  # tokens so far, of each pass

        def begin(args: tuple, kwargs: dict) -> None:
            passes.append(_total(args, kwargs))

        def on_call(layer: int, args: tuple, kwargs: dict) -> tuple[slice, Tensor] | None:
            return visit(layer, self._call(layer, args, kwargs, passes[-1]), passes[-1])

        with interposed(self._anatomy.decoder, modules, begin, on_call):
            result = forward()
        if not passes:
            raise ModelError(_missed(min(modules.values())))
        return result

    def look(self, forward: Callable[[], object], layers: Iterable[int], visit: Visit) -> None:
        """As :meth:`run`, but the model is left once the last of ``layers`` was visited."""
        self._traced(forward, layers, visit, stop=True)

    def _traced(
        self, forward: Callable[[], Result], layers: Iterable[int], visit: Visit, stop: bool
    ) -> list[Result]:
        """What ``forward()`` returned, if it did."""
        sites = [(layer, self._site(layer)) for layer in sorted(layers)]
        if not sites:
            return [forward()]
        returned: list[Result] = []
        owed = [layer for layer, _ in sites]  # visits still to come in this pass of the decoder
        with warnings.catch_warnings(), suppress(OutOfOrderError):
            # How many passes a generation makes is not known before; the loop ends when the run does.
            warnings.filterwarnings("ignore", message=".*the loop asked for a step the run did not make")
            with self._decoder.trace(lambda: returned.append(forward()), fn=invoke) as tracer:
                for _ in tracer.iter[:]:
                    total = _total(*self._decoder.inputs)
                    owed[:] = [layer for layer, _ in sites]
                    for layer, site in sites:
                        change = visit(layer, self._call(layer, *site.inputs, total), total)
                        if change is not None:
                            rows, delta = change
                            site.output[0][:, rows] += delta  # (B, R, H, Dv), summed in float32
                        owed.pop(0)
                    if stop:
                        tracer.stop()
        if owed:
            raise ModelError(_missed(owed[0]))
        return returned

    def _call(self, layer: int, args: tuple, kwargs: dict, total: int) -> AttentionCall:
        call = attention_call(layer, args, kwargs, total)
        if call.query.shape[1] != self._heads[layer]:
            raise ModelError(
                f"The attention of layer {layer} has {call.query.shape[1]} heads, and "
                f"{self._heads[layer]} were found in its module."
            )
        return call

    def _site(self, layer: int) -> Any:
        if layer not in self._sites:
            source = self._envoys[layer].source
            labels = [name for name in source.names if re.fullmatch(r"attention_interface_\d+", name)]
            if not labels:
                module = type(self._envoys[layer]._module).__name__
                raise ModelError(
                    f"{module}, the attention of layer {layer}, makes no `attention_interface` call."
                )
            self._sites[layer] = getattr(source, labels[-1])
        return self._sites[layer]


def _missed(layer: int) -> str:
    return f"The model ran without calling the attention of decoder layer {layer}."


def _total(args: tuple, kwargs: dict) -> int:
    """Tokens the decoder has seen when this call of it ends: those in its cache and those it is given now."""
    given = next(t for t in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args) if t is not None)
    cache = kwargs.get("past_key_values")
    return given.shape[1] + (0 if cache is None else int(cache.get_seq_length()))


def attention_call(layer: int, args: tuple, kwargs: dict, total: int | None = None) -> AttentionCall:
    """The arguments of one call of an attention function, as the mathematics needs them.

    Args:
        layer: to name in errors.
        args, kwargs: of the call.
        total: tokens so far, these included; keys beyond them are the empty end of a static cache.

    Raises:
        ModelError: a term is not understood, or the attention is not causal.
    """
    named = ("query", "key", "value", "attention_mask")
    module, *given = args
    query, key, value, mask = given + [kwargs.get(name) for name in named[len(given) :]]
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
    """Whether a bias is one number for each score, or for many of them."""
    scores = (*query.shape[:3], key.shape[2])
    return (
        isinstance(bias, Tensor)
        and bias.dim() == 4
        and all(size in (1, whole) for size, whole in zip(bias.shape, scores, strict=True))
    )
