"""What transformer-lens can be put on: the whole model where it knows it, else the decoder as a causal LM."""

from __future__ import annotations

import copy
import logging
import warnings
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from mata_interp.errors import ModelError

from ..discovery.structure import ModelStructure
from ..scoring import output_head
from .clone import clone_sharing_weights, use_eager

__all__ = ["bridge_whole", "decoder_call", "wrap_as_causal_lm"]


def bridge_whole(model: Any) -> Any:
    """A bridge over a twin of the whole model, encoder included.

    Raises:
        ModelError: transformer-lens has no adapter for it.
    """
    name = type(model).__name__
    base_model = clone_sharing_weights(model)
    use_eager(
        [
            ModelStructure.from_model(base_model).decoder,
            *ModelStructure.from_model(base_model).attention.values(),
        ]
    )
    return _bridge(base_model, name)


def wrap_as_causal_lm(model: Any, bare: bool = False) -> Any:
    """A bridge over the decoder alone, in the causal language model of its own kind: it takes embeddings.

    Args:
        bare: the logits are the output head's own, without what that language model does behind it (Granite
            divides them; Granite Speech does not).

    Raises:
        ModelError: there is no such language model, or transformer-lens has no adapter for it.
    """
    base_model = clone_sharing_weights(model)
    structure = ModelStructure.from_model(base_model)
    decoder: Any = structure.decoder
    kind = type(decoder)
    mapping: Any = AutoModelForCausalLM._model_mapping  # type: ignore[attr-defined]
    family = mapping.get(type(decoder.config), None)
    if family is None:
        raise ModelError(f"transformers has no causal language model around a {kind.__name__}.")
    with torch.device("meta"):  # its own weights are never made
        causal_lm = family(copy.deepcopy(decoder.config))
    if type(getattr(causal_lm, causal_lm.base_model_prefix)) is not kind:
        raise ModelError(f"{family.__name__} is built around another decoder than {kind.__name__}.")
    setattr(causal_lm, causal_lm.base_model_prefix, decoder)
    causal_lm.set_output_embeddings(output_head(base_model))
    causal_lm.config = decoder.config
    use_eager([decoder, *structure.attention.values()])
    if bare:
        causal_lm.forward = MethodType(_head_alone, causal_lm)
    return _bridge(causal_lm.eval(), family.__name__)


def _head_alone(self: Any, input_ids: Tensor | None = None, **kwargs: Any) -> Any:
    """A causal language model's forward with nothing behind the output head."""
    out = getattr(self, self.base_model_prefix)(input_ids=input_ids, **kwargs)
    return CausalLMOutputWithPast(logits=self.get_output_embeddings()(out.last_hidden_state))


def decoder_call(
    model: Any, structure: ModelStructure, inputs: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Any]]:
    """The embeddings that a model calls its decoder with, sound among them, and what else that needs.

    Raises:
        ModelError: the decoder is given more for each token than a causal language model takes.
    """
    calls: list[dict[str, Any]] = []
    decoder: Any = structure.decoder
    hook = decoder.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    try:
        model(**inputs, use_cache=False)
    finally:
        hook.remove()
    call = {name: value for name, value in calls[0].items() if value is not None} if len(calls) == 1 else {}
    embeds = call.pop("inputs_embeds", None)
    if embeds is None:
        raise ModelError(f"{type(decoder).__name__} is not called once, with embeddings.")
    taken = {name: call.pop(name) for name in ("attention_mask", "position_ids") if name in call}
    if more := [name for name, value in call.items() if isinstance(value, Tensor)]:
        raise ModelError(f"{type(decoder).__name__} is also given {', '.join(more)}, which embeddings lack.")
    return embeds, taken


def _bridge(base_model: Any, architecture: str) -> Any:
    """A TransformerBridge on ``base_model``, which it changes.

    Not ``boot_transformers``: that looks for a processor, and where torchvision is missing installs it with
    pip, replacing the torch that is running.
    """
    level = logging.getLogger("transformers").level
    with warnings.catch_warnings():  # its import silences transformers for the whole process
        from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
        from transformer_lens.model_bridge.sources import build_bridge_from_module
    logging.getLogger("transformers").setLevel(level)
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise ModelError(f"transformer-lens has no adapter for {architecture}.")
    try:
        return build_bridge_from_module(base_model, architecture, hf_config=copy.deepcopy(base_model.config))
    except Exception as error:  # whatever an adapter stumbles over
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"transformer-lens cannot build {architecture}: {reason}.") from error
