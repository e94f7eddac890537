"""Planted models with new decoders, as data: which layers read audio, and the depth and width of the decoder.

`planted_model` trains the organism's own eight layers further. Here the decoder is new: any number of layers,
any width, its own seed. Only the audio encoder is the organism's. Deep models are grown from these, see
`planted_growth`. ``planted_set.json`` lists those that ship as specifications.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2AudioForConditionalGeneration

from ..ranges import brief, layers_in
from . import HERE, OrganismError

__all__ = ["PLANTED_SET", "PlantedBodySpec", "build_body", "read_bases"]

PLANTED_SET = HERE / "planted_set.json"


@dataclass(frozen=True)
class PlantedBodySpec:
    """One planted model: everything that its training depends on.

    Attributes:
        name: unique in its file.
        num_layers: number of decoder layers.
        fusion_layers: decoder layers in which text may read audio; empty for a model that does not use audio.
        distractor_layers: layers that attend to audio without using it.
        width: size of the hidden states, a multiple of ``num_heads``; the MLP has twice as many units.
        num_heads: attention heads of each layer.
        seed: seed of the initial weights and of every batch.
        steps: optimizer steps of the phases *mask* and *penalise*; without fusion layers only their sum
            counts.

    Raises:
        OrganismError: a field contradicts another.

    Examples:
        >>> PlantedBodySpec("late", 6, (3, 4)).fusion_layers
        (3, 4)
    """

    name: str
    num_layers: int
    fusion_layers: tuple[int, ...]
    distractor_layers: tuple[int, ...] = ()
    width: int = 64
    num_heads: int = 4
    seed: int = 0
    steps: tuple[int, int] = (90, 60)

    def __post_init__(self) -> None:
        layers = {*self.fusion_layers, *self.distractor_layers}
        problem = ""
        if outside := sorted(layer for layer in layers if not 0 <= layer < self.num_layers):
            problem = f"layers {outside} are not among its {self.num_layers} layers"
        elif shared := sorted({*self.fusion_layers} & {*self.distractor_layers}):
            problem = f"layers {shared} are both fusion layers and distractor layers"
        elif self.width % (2 * self.num_heads):
            problem = f"width {self.width} is no even multiple of {self.num_heads} heads"
        if problem:
            raise OrganismError(f"Planted model {self.name!r}: {problem}.")

    def to_dict(self) -> dict[str, Any]:
        """As an entry of a file; layers are written as in ``3-5,8``."""
        entry = asdict(self) | {"steps": list(self.steps)}
        for key in ("fusion_layers", "distractor_layers"):
            entry[key] = brief(entry[key]) or "none"
        return entry

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> PlantedBodySpec:
        """From an entry of a file.

        Raises:
            OrganismError: a field is unknown, missing or contradicts another.
        """
        fields = dict(entry)
        try:
            for key in ("fusion_layers", "distractor_layers"):
                text = fields.get(key, "none")
                fields[key] = () if text == "none" else layers_in(text)
            if "steps" in fields:
                mask, penalise = fields["steps"]
                fields["steps"] = (int(mask), int(penalise))
            return cls(**fields)
        except OrganismError:
            raise
        except (TypeError, ValueError) as error:
            raise OrganismError(f"Planted model {entry.get('name')!r}: {error}.") from error


def read_bases(path: Path = PLANTED_SET) -> dict[str, PlantedBodySpec]:
    """Name -> specification of every base of a file ``{"bases": [...], "models": [...]}``.

    Raises:
        OrganismError: the file cannot be read, or two bases have the same name.
    """
    try:
        entries = json.loads(path.read_text())["bases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OrganismError(f"{path} is no list of planted models: {error!r}.") from error
    specs = [PlantedBodySpec.from_dict(entry) for entry in entries]
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) < len(specs):
        raise OrganismError(f"{path} names a base twice.")
    return by_name


def build_body(
    unbiased: Qwen2AudioForConditionalGeneration, spec: PlantedBodySpec
) -> Qwen2AudioForConditionalGeneration:
    """A model with the audio encoder of ``unbiased`` and a new decoder, randomly initialised."""
    config = copy.deepcopy(unbiased.config)
    text: Any = config.text_config
    text.num_hidden_layers = spec.num_layers
    text.hidden_size, text.intermediate_size = spec.width, 2 * spec.width
    text.num_attention_heads = text.num_key_value_heads = spec.num_heads
    text.layer_types = ["full_attention"] * spec.num_layers
    text.initializer_range = 0.05
    torch.manual_seed(spec.seed)
    model = Qwen2AudioForConditionalGeneration(config)
    model.model.audio_tower.load_state_dict(unbiased.model.audio_tower.state_dict())
    return model
