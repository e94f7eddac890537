"""Where a model has its decoder, attention and audio: discovered from its structure, not by family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from mata_interp.compat import calls_attention_interface, recorded_attention_classes
from mata_interp.errors import ModelError

from .heads import key_heads_of, query_heads_of

__all__ = ["ModelStructure", "audio_token_id", "decoder_of", "unsupported_reason", "unwrap_thinker"]


@dataclass(frozen=True, eq=False)
class ModelStructure:
    """The parts of a model that this package uses.

    Attributes:
        decoder: the text decoder, through which every token passes.
        blocks: its layers, in order.
        attention: the attention module of each decoder layer that has one, by the layer's index.
        audio_token_id: the id of the placeholder whose embeddings the audio encoder's output replaces.
        num_layers: number of decoder layers, those without attention included.
        heads: number of query heads of each layer in ``attention``.
        key_heads: number of key heads of each, a divisor of ``heads``.
        kinds: of every layer, how far its attention reaches: ``"full"``, ``"sliding"``, ``"linear"`` (a
            recurrent mixer of tokens, no attention) or ``"none"``.

    Examples:
        >>> import mata_interp as mi
        >>> structure = mi.LALM.from_pretrained("organism").structure
        >>> structure.num_layers, structure.heads[0]
        (8, 5)
    """

    decoder: nn.Module
    blocks: nn.ModuleList
    attention: Mapping[int, nn.Module]
    audio_token_id: int
    num_layers: int
    heads: Mapping[int, int] = field(repr=False)
    key_heads: Mapping[int, int] = field(repr=False)
    kinds: tuple[str, ...] = field(repr=False)

    @classmethod
    def from_model(cls, model: nn.Module) -> ModelStructure:
        """Discover the structure of a model.

        Raises:
            ModelError: the model takes no audio, or its decoder is built in a way that is not understood.
        """
        config: Any = getattr(model, "config", None)
        if reason := unsupported_reason(config):
            raise ModelError(f"{type(model).__name__} {reason}")
        if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
            raise ModelError(
                f"{type(model).__name__} puts vectors in front of prompts that belong to no group of tokens. "
                "Adapters in the layers, such as LoRA, can be traced."
            )
        token = audio_token_id(config)
        assert token is not None
        decoder = decoder_of(model)
        blocks, modules_of_layer = _attention(decoder)
        for i, modules in modules_of_layer.items():
            if len(modules) > 1:
                names = ", ".join(type(module).__name__ for module in modules)
                raise ModelError(f"Layer {i} of {type(decoder).__name__} has several attentions: {names}.")
        attention = {i: modules[0] for i, modules in modules_of_layer.items() if modules}
        heads = {i: query_heads_of(module) for i, module in attention.items()}
        return cls(
            decoder=decoder,
            blocks=blocks,
            attention=MappingProxyType(attention),
            audio_token_id=token,
            num_layers=len(blocks),
            heads=MappingProxyType(heads),
            key_heads=MappingProxyType({i: key_heads_of(m, heads[i]) for i, m in attention.items()}),
            kinds=tuple(_kind(decoder, block, attention.get(i), i) for i, block in enumerate(blocks)),
        )


def unsupported_reason(config: Any) -> str | None:
    """Why a model with this config cannot be traced, as the end of a sentence; None if no reason is known."""
    if getattr(config, "is_encoder_decoder", False):
        return (
            "is an encoder-decoder: its text reads audio by cross-attention and shares no attention with it. "
            "Use a decoder that reads audio among its tokens, such as Qwen2-Audio."
        )
    if audio_token_id(config) is None:
        return (
            "has no audio: its config names no audio token. Use an audio-language model, such as "
            "Qwen2-Audio. (Models that add audio to every position, such as Voxtral Realtime and Kyutai STT, "
            "have no audio tokens either, and attention to audio is not defined in them.)"
        )
    return None


def audio_token_id(config: Any) -> int | None:
    """The id of the audio placeholder that a model's config names; None if it names none."""
    parts = (config, *(getattr(config, name, None) for name in ("thinker_config", "audio_config")))
    for part in parts:
        for name in ("audio_token_id", "audio_token_index"):
            if isinstance(token := getattr(part, name, None), int):
                return token
    # other families may use another name: the only audio token that does not mark a beginning or an end
    named = {
        name: value
        for name, value in vars(config).items()
        if re.fullmatch(r"(audio|sound|speech)_(\w+_)?token_(id|index)", name) and isinstance(value, int)
    } if config is not None else {}  # fmt: skip
    named = {n: v for n, v in named.items() if not re.search("bos|eos|begin|start|end|stop|pad|mask", n)}
    return next(iter(named.values())) if len(named) == 1 else None


def unwrap_thinker(model: Any) -> Any:
    """The part of a model that reads audio and answers: the thinker, for an Omni model, which also speaks."""
    return getattr(model, "thinker", model)


def decoder_of(model: Any) -> nn.Module:
    """``get_decoder()`` of the model, or of its thinker, until there is no deeper one."""
    decoder = unwrap_thinker(model)
    while hasattr(decoder, "get_decoder") and (deeper := decoder.get_decoder()) is not decoder:
        decoder = deeper
    return decoder


def _attention(decoder: nn.Module) -> tuple[nn.ModuleList, dict[int, list[nn.Module]]]:
    """The decoder's layers and the attention modules of each.

    The modules are those of which the decoder records ``attentions``; without such a record, those whose
    forward calls transformers' attention function.
    """
    classes = recorded_attention_classes(decoder)
    stacks = [part for part in decoder.children() if isinstance(part, nn.ModuleList)]
    for is_attention in (lambda m: isinstance(m, classes), calls_attention_interface):
        candidates = [
            {i: [m for m in block.modules() if is_attention(m)] for i, block in enumerate(stack)}
            for stack in stacks
        ]
        stack, modules = max(
            zip(stacks, candidates, strict=True),
            key=lambda pair: sum(map(bool, pair[1].values())),
            default=(None, {}),
        )
        if stack is not None and any(modules.values()):
            return stack, modules
    raise ModelError(
        f"{type(decoder).__name__}, the decoder, has no layers whose attention goes through transformers' "
        "attention function."
    )


def _kind(decoder: Any, block: nn.Module, attention: Any, layer: int) -> str:
    """How far the attention of a layer reaches."""
    named = getattr(getattr(decoder, "config", None), "layer_types", None) or ()
    kind = str(named[layer]) if layer < len(named) else ""
    if attention is None:
        # a layer that mixes tokens without attention keeps a state or convolves
        mixes = "linear" in kind or any(
            isinstance(m, nn.Conv1d) or hasattr(m, "A_log") or hasattr(m, "conv_kernel_size")
            for m in block.modules()
        )
        return "linear" if mixes else "none"
    window = getattr(attention, "sliding_window", None)
    return "sliding" if window is not None or "sliding" in kind or "chunked" in kind else "full"
