"""Deep planted models, grown from shallow ones: the trained layers, spread over a deeper decoder.

Training costs more with every layer, so that the trained part is shallow, four to ten layers. A deep model
holds the trained layers of such a *base* in their order, and random layers between them, whose outputs are
scaled to a small part of the hidden states (as block expansion does with zeros: LLaMA Pro, arXiv 2401.02415).
The random layers attend to the audio and pass some of it on, so that what they add to an answer is noise of a
small, unknown mean. Which layers of the deep model need the audio is therefore measured, not assumed.

Distractor layers have the queries and keys of the base's first fusion layer, and random values: they attend
to the audio as strongly as a layer that uses it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration

from ..ranges import brief, layers_in
from . import OrganismError
from .planted_body import PLANTED_SET, PlantedBodySpec, read_bases

__all__ = ["ROLES", "GrownModelSpec", "grow_model", "read_planted_set"]

ROLES = ("development", "retired", "held-out")


@dataclass(frozen=True)
class GrownModelSpec:
    """One deep planted model.

    Attributes:
        name: unique in its file.
        role: one of ``ROLES``. *Development* models may be looked at while a rule is designed, *held-out*
            models only after the rule is frozen. *Retired* models were held out for an earlier rule, and
            the present one was designed on them.
        base: the trained base.
        num_layers: number of decoder layers.
        positions: the layer of the deep model that each layer of the base becomes, in order.
        distractor_layers: layers that attend to audio as the base's first fusion layer does, in vain.
        noise: size of what attention, and the MLP, of each random layer add to the hidden states, relative to
            these.
        seed: seed of the random layers.

    Raises:
        OrganismError: a field contradicts another.
    """

    name: str
    role: str
    base: PlantedBodySpec
    num_layers: int
    positions: tuple[int, ...]
    distractor_layers: tuple[int, ...] = ()
    noise: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        problem = ""
        if self.role not in ROLES:
            problem = f"role {self.role!r} is not one of {', '.join(ROLES)}"
        elif len(self.positions) != self.base.num_layers or list(self.positions) != sorted({*self.positions}):
            problem = f"positions {brief(self.positions)} do not name {self.base.num_layers} layers in order"
        elif outside := sorted(
            x for x in (*self.positions, *self.distractor_layers) if not 0 <= x < self.num_layers
        ):
            problem = f"layers {outside} are not among its {self.num_layers} layers"
        elif shared := sorted({*self.positions} & {*self.distractor_layers}):
            problem = f"layers {shared} are both trained layers and distractor layers"
        elif self.distractor_layers and not self.base.fusion_layers:
            problem = f"base {self.base.name!r} has no fusion layer for its distractor layers to copy"
        if problem:
            raise OrganismError(f"Planted model {self.name!r}: {problem}.")

    @property
    def fusion_layers(self) -> tuple[int, ...]:
        """The layers in which text was trained to read the audio."""
        return tuple(self.positions[layer] for layer in self.base.fusion_layers)

    def to_dict(self) -> dict[str, Any]:
        """As an entry of a file; layers are written as in ``3-5,8``."""
        entry = asdict(self) | {"base": self.base.name, "positions": brief(self.positions)}
        entry["distractor_layers"] = brief(self.distractor_layers) or "none"
        return entry

    @classmethod
    def from_dict(cls, entry: dict[str, Any], bases: dict[str, PlantedBodySpec]) -> GrownModelSpec:
        """From an entry of a file.

        Raises:
            OrganismError: a field is unknown, missing or contradicts another.
        """
        fields = dict(entry)
        try:
            fields["base"] = bases[fields["base"]]
            fields["positions"] = layers_in(fields["positions"])
            text = fields.get("distractor_layers", "none")
            fields["distractor_layers"] = () if text == "none" else layers_in(text)
            return cls(**fields)
        except OrganismError:
            raise
        except (TypeError, ValueError, KeyError) as error:
            raise OrganismError(f"Planted model {entry.get('name')!r}: {error!r}.") from error


def read_planted_set(path: Path = PLANTED_SET) -> dict[str, GrownModelSpec]:
    """Name -> every deep planted model of a file ``{"bases": [...], "models": [...]}``.

    Raises:
        OrganismError: the file cannot be read, or two models have the same name.
    """
    bases = read_bases(path)
    try:
        entries = json.loads(path.read_text())["models"]
    except KeyError as error:
        raise OrganismError(f"{path} has no models.") from error
    specs = [GrownModelSpec.from_dict(entry, bases) for entry in entries]
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) < len(specs):
        raise OrganismError(f"{path} names a planted model twice.")
    return by_name


def grow_model(
    base: Qwen2AudioForConditionalGeneration, spec: GrownModelSpec, inputs: dict[str, Tensor]
) -> Qwen2AudioForConditionalGeneration:
    """The deep model.

    Args:
        base: the trained base.
        spec: where its layers go.
        inputs: inputs of the model on which the sizes of hidden states are measured.
    """
    config = copy.deepcopy(base.config)
    text: Any = config.text_config
    text.num_hidden_layers, text.layer_types = spec.num_layers, ["full_attention"] * spec.num_layers
    torch.manual_seed(spec.seed)
    model = Qwen2AudioForConditionalGeneration(config).eval()
    weights = base.state_dict()
    inner = {name: value for name, value in weights.items() if ".language_model.layers." not in name}
    model.load_state_dict(inner, strict=False)
    old, new = base.model.language_model.layers, model.model.language_model.layers
    for layer, place in enumerate(spec.positions):
        new[place].load_state_dict(old[layer].state_dict())
    for place in spec.distractor_layers:
        reader = old[spec.base.fusion_layers[0]]
        new[place].input_layernorm.load_state_dict(reader.input_layernorm.state_dict())
        for name in ("q_proj", "k_proj"):
            getattr(new[place].self_attn, name).load_state_dict(getattr(reader.self_attn, name).state_dict())
    _scale_random_layers(model, spec, inputs)
    return model


@torch.no_grad()
def _scale_random_layers(
    model: Qwen2AudioForConditionalGeneration, spec: GrownModelSpec, inputs: dict[str, Tensor]
) -> None:
    """Scale what each random layer adds, relative to hidden states of the trained layers alone."""
    layers = model.model.language_model.layers
    random = [place for place in range(spec.num_layers) if place not in spec.positions]
    outputs = [(place, part) for place in random for part in ("self_attn.o_proj", "mlp.down_proj")]
    weights = {key: layers[key[0]].get_submodule(key[1]).weight for key in outputs}
    original = {key: weight.clone() for key, weight in weights.items()}
    sizes: dict[Any, Tensor] = {}
    text = inputs["attention_mask"].bool() & (inputs["input_ids"] != model.config.audio_token_id)
    with _measuring(layers, outputs, original, text, sizes):
        for weight in weights.values():
            weight.zero_()
        model(**inputs, use_cache=False)
    for key, weight in weights.items():
        weight.copy_(original[key] * (spec.noise * sizes[key[0]] / sizes[key]))


@contextmanager
def _measuring(
    layers: Any,
    outputs: list[tuple[int, str]],
    original: dict[Any, Tensor],
    text: Tensor,
    sizes: dict[Any, Tensor],
) -> Iterator[None]:
    """Inside, ``sizes`` gets the root mean square of each layer's input, and of what its parts would add.

    At text tokens alone, bool [B, T]: states of audio tokens are larger.
    """

    def size(states: Tensor) -> Tensor:
        return states[text].pow(2).mean().sqrt()

    def before(place: int) -> Any:
        def hook(module: Any, args: tuple, kwargs: dict) -> None:
            sizes[place] = size(args[0] if args else kwargs["hidden_states"])

        return hook

    def would_add(key: tuple[int, str]) -> Any:
        return lambda module, args: sizes.update({key: size(args[0] @ original[key].T)})

    handles = [
        layers[place].register_forward_pre_hook(before(place), with_kwargs=True) for place, _ in outputs
    ]
    handles += [
        layers[key[0]].get_submodule(key[1]).register_forward_pre_hook(would_add(key)) for key in outputs
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
