"""TransformerBridges: over the whole model where transformer-lens knows it, else over its decoder."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from mata_interp.compat import build_transformer_lens_bridge, class_for_config
from mata_interp.errors import ModelError

from ..discovery.hooks import temporary_hooks
from ..discovery.output_head import output_head
from ..discovery.structure import ModelStructure
from .clone import clone_sharing_weights, use_eager

__all__ = ["bridge_whole", "decoder_call", "wrap_as_causal_lm"]


def bridge_whole(model: Any) -> Any:
    """A bridge over a clone of the whole model, encoder included.

    Raises:
        ModelError: transformer-lens has no adapter for it.
    """
    name = type(model).__name__
    base_model = clone_sharing_weights(model)
    structure = ModelStructure.from_model(base_model)
    use_eager([structure.decoder, *structure.attention.values()])
    return _bridge(base_model, name)


def wrap_as_causal_lm(model: Any, bare: bool = False) -> Any:
    """A bridge over a clone of the decoder, in the causal language model of its kind; it takes embeddings.

    Args:
        model: a transformers model.
        bare: the logits are those of the output head, without what that language model does after it (Granite
            divides them; Granite Speech does not).

    Raises:
        ModelError: there is no such language model, or transformer-lens has no adapter for it.
    """
    base_model = clone_sharing_weights(model)
    structure = ModelStructure.from_model(base_model)
    decoder: Any = structure.decoder
    kind = type(decoder)
    family: Any = class_for_config(AutoModelForCausalLM, decoder.config)
    if family is None:
        raise ModelError(f"transformers has no causal language model around a {kind.__name__}.")
    with torch.device("meta"):  # weights of its own are never allocated
        causal_lm = family(copy.deepcopy(decoder.config))
    if type(getattr(causal_lm, causal_lm.base_model_prefix)) is not kind:
        raise ModelError(f"{family.__name__} is built around another decoder than {kind.__name__}.")
    setattr(causal_lm, causal_lm.base_model_prefix, decoder)
    causal_lm.set_output_embeddings(output_head(base_model))
    causal_lm.config = decoder.config
    use_eager([decoder, *structure.attention.values()])
    if bare:
        causal_lm.forward = MethodType(_forward_to_head, causal_lm)
    return _bridge(causal_lm.eval(), family.__name__)


def _forward_to_head(self: Any, input_ids: Tensor | None = None, **kwargs: Any) -> Any:
    """A causal language model's forward with nothing after the output head."""
    out = getattr(self, self.base_model_prefix)(input_ids=input_ids, **kwargs)
    return CausalLMOutputWithPast(logits=self.get_output_embeddings()(out.last_hidden_state))


def decoder_call(
    model: Any, structure: ModelStructure, inputs: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Any]]:
    """The embeddings with which a model calls its decoder, audio among them, and the other arguments.

    Raises:
        ModelError: the decoder takes more for each token than a causal language model does.
    """
    calls: list[dict[str, Any]] = []
    decoder: Any = structure.decoder
    with temporary_hooks([(decoder, lambda args, kwargs: calls.append(kwargs))]):
        model(**inputs, use_cache=False)
    call = {name: value for name, value in calls[0].items() if value is not None} if len(calls) == 1 else {}
    embeds = call.pop("inputs_embeds", None)
    if embeds is None:
        raise ModelError(f"{type(decoder).__name__} is not called once, with embeddings.")
    arguments = {name: call.pop(name) for name in ("attention_mask", "position_ids") if name in call}
    if more := [name for name, value in call.items() if isinstance(value, Tensor)]:
        raise ModelError(f"{type(decoder).__name__} also takes {', '.join(more)}, which embeddings lack.")
    return embeds, arguments


def _bridge(base_model: Any, architecture: str) -> Any:
    """A TransformerBridge on ``base_model``, which it changes."""
    config = copy.deepcopy(base_model.config)
    try:
        bridge = build_transformer_lens_bridge(base_model, architecture, config)
    except Exception as error:  # whatever an adapter of transformer-lens fails on
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"transformer-lens cannot build {architecture}: {reason}.") from error
    if bridge is None:
        raise ModelError(f"transformer-lens has no adapter for {architecture}.")
    return bridge
