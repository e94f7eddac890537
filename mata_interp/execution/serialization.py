"""The same model in another process: loaded there by its name, or sent there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..compat import model_from_config
from ..errors import ModelError
from ..lalm.loading import SHIPPED
from ..lalm.prompting.thinking import DEFAULT_THINKING
from ..load_options import LoadOptions
from .comparison import first_difference

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["deserialize_model", "loading_arguments", "refuse_other_model", "serialize_model"]


def loading_arguments(lalm: LALM) -> dict[str, Any] | None:
    """Arguments with which `LALM.from_pretrained` may load the same model; compare fingerprints afterwards.

    They are those that loaded it here, but for its place: a worker uses the devices that Ray assigns to it,
    and a model that is split over devices here is split there, too. None where the model cannot be loaded by
    its name.
    """
    if lalm.name not in SHIPPED and "/" not in lalm.name and not Path(lalm.name).is_dir():
        return None
    options = lalm.load_options or LoadOptions(revision=lalm.revision, dtype=lalm.dtype)
    places = getattr(lalm.model, "hf_device_map", None) or {}
    split = "auto" if len(set(places.values())) > 1 else None
    thinking = None if lalm.thinking == DEFAULT_THINKING else lalm.thinking  # it may have been set since
    options = replace(options, device=None, device_map=split, thinking=thinking)
    return {"name": lalm.name, **options.arguments()}


def serialize_model(lalm: LALM) -> dict[str, Any]:
    """Class, configs, processor and weights as numpy bytes, which Ray shares on a node without copies."""
    model = lalm.model
    return {
        "class": type(model),
        "config": model.config,
        "generation_config": model.generation_config,
        "dtype": model.dtype,
        "processor": lalm.processor,
        "name": lalm.name,
        "revision": lalm.revision,
        "thinking": lalm.thinking,
        "weights": {name: _bytes(tensor) for name, tensor in model.state_dict().items()},
    }


def deserialize_model(payload: dict[str, Any]) -> LALM:
    """The model of `serialize_model`, with its own copy of the weights, on the CPU."""
    from ..lalm import LALM

    model = model_from_config(payload["class"], payload["config"], payload["dtype"])
    weights = {
        name: torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
        for name, (data, dtype, shape) in payload["weights"].items()
    }
    model.load_state_dict(weights)
    model.generation_config = payload["generation_config"]
    named = {key: payload[key] for key in ("name", "revision", "thinking")}
    return LALM(model, payload["processor"], **named)


def refuse_other_model(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise a ModelError that names the first field in which two fingerprints differ."""
    ignored = ("name", "revision")
    local, remote = ({k: v for k, v in one.items() if k not in ignored} for one in (here, there))
    if difference := first_difference(remote, local):
        field, old, new = difference
        raise ModelError(
            f"A worker has another model: its {field} is {old!r}, here it is {new!r}. Install the same "
            "versions on all machines."
        )


def _bytes(tensor: torch.Tensor) -> tuple[Any, torch.dtype, tuple[int, ...]]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy(), flat.dtype, tuple(tensor.shape)
