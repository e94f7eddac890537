"""Where a model keeps its decoder, attention and audio: discovered from its structure, not by family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from mata_interp.errors import ModelError

__all__ = ["Anatomy", "audio_token_id"]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of a model that this toolkit touches.

    Attributes:
        decoder: the text decoder, which every token passes through.
        attention: the attention module of each decoder layer that has one, by the layer's index.
        audio_token_id: the id of the placeholder whose embeddings the audio encoder's output replaces.
        layers: number of decoder layers, those without attention included.
        heads: number of query heads of each layer in ``attention``.
    """

    decoder: nn.Module
    attention: Mapping[int, nn.Module]
    audio_token_id: int
    layers: int
    heads: Mapping[int, int] = field(repr=False)

    @classmethod
    def of(cls, model: nn.Module) -> Anatomy:
        """Discover it.

        Raises:
            ModelError: the model takes no audio, or its decoder is built in a way that is not understood.
        """
        config: Any = getattr(model, "config", None)
        token = audio_token_id(config)
        if token is None:
            raise ModelError(
                f"{type(model).__name__} has no audio: its config names no audio token. "
                "Give an audio-language model, such as Qwen2-Audio."
            )
        decoder = _decoder(model)
        layers = getattr(decoder, "layers", None)
        recorded = getattr(decoder, "_can_record_outputs", None) or {}
        classes = _classes(recorded.get("attentions"))
        if layers is None or not classes:
            raise ModelError(
                f"{type(decoder).__name__}, the decoder, does not say which modules are its attention."
            )
        found = {i: [m for m in layer.modules() if isinstance(m, classes)] for i, layer in enumerate(layers)}
        attention = {i: modules[0] for i, modules in found.items() if modules}
        if not attention or any(len(modules) > 1 for modules in found.values()):
            raise ModelError(
                f"{type(decoder).__name__} has not one attention module in each layer, or none at all."
            )
        heads = {i: int(module.config.num_attention_heads) for i, module in attention.items()}
        return cls(decoder, MappingProxyType(attention), token, len(layers), MappingProxyType(heads))


def audio_token_id(config: Any) -> int | None:
    """The id of the audio placeholder that a model's config names; None if it names none."""
    for part in (config, getattr(config, "thinker_config", None), getattr(config, "audio_config", None)):
        if (token := getattr(part, "audio_token_id", None)) is not None:
            return int(token)
    return None


def _decoder(model: Any) -> nn.Module:
    """``get_decoder()`` of the model, or of its thinker, until there is no deeper one."""
    decoder = getattr(model, "thinker", model)
    while hasattr(decoder, "get_decoder") and (deeper := decoder.get_decoder()) is not decoder:
        decoder = deeper
    return decoder


def _classes(recorded: Any) -> tuple[type, ...]:
    """The module classes that an entry of ``_can_record_outputs`` names: a class, a recorder, or several."""
    several = recorded if isinstance(recorded, list | tuple) else [recorded]
    classes = [getattr(entry, "target_class", entry) for entry in several]
    return tuple(entry for entry in classes if isinstance(entry, type))
