"""The same model in another process: loaded there by its name, or sent there as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..compat import model_from_config
from ..errors import ModelError
from ..lalm.loading import SHIPPED
from .identity import first_difference

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["by_name", "packed", "refuse_other_model", "unpacked"]


def by_name(lalm: LALM) -> dict[str, Any] | None:
    """What `LALM.from_pretrained` may give the same model for; whether it does, its fingerprint tells.

    None where the model's name is none to load it by.
    """
    if lalm.name not in SHIPPED and "/" not in lalm.name and not Path(lalm.name).is_dir():
        return None
    spread = len(set(getattr(lalm.model, "hf_device_map", None) or {})) > 1
    return {
        "name": lalm.name,
        "revision": lalm.revision,
        "dtype": lalm.dtype,
        "device_map": "auto" if spread else None,
    }


def packed(lalm: LALM) -> dict[str, Any]:
    """Class, configs, processor and weights as plain numpy bytes, which Ray shares on a node uncopied."""
    model = lalm.model
    return {
        "class": type(model),
        "config": model.config,
        "generation_config": model.generation_config,
        "dtype": model.dtype,
        "processor": lalm.processor,
        "name": lalm.name,
        "revision": lalm.revision,
        "weights": {name: _bytes(tensor) for name, tensor in model.state_dict().items()},
    }


def unpacked(parcel: dict[str, Any]) -> LALM:
    """The model of `packed`, with weights of its own, on the CPU."""
    from ..lalm import LALM

    model = model_from_config(parcel["class"], parcel["config"], parcel["dtype"])
    weights = {
        name: torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
        for name, (data, dtype, shape) in parcel["weights"].items()
    }
    model.load_state_dict(weights)
    model.generation_config = parcel["generation_config"]
    return LALM(model, parcel["processor"], name=parcel["name"], revision=parcel["revision"])


def refuse_other_model(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Compare two fingerprints; ModelError, naming the first field that differs."""
    passing = ("name", "revision")
    ours, theirs = ({k: v for k, v in one.items() if k not in passing} for one in (here, there))
    if found := first_difference(theirs, ours):
        field, old, new = found
        raise ModelError(
            f"A worker's model is another: its {field} is {old!r}, here it is {new!r}. Install the same "
            "versions on all machines."
        )


def _bytes(tensor: torch.Tensor) -> tuple[Any, torch.dtype, tuple[int, ...]]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy(), flat.dtype, tuple(tensor.shape)
