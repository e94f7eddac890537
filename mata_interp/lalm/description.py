"""Where and how a model runs: its devices, attention functions and quantisation, read from the model."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from mata_interp.compat import attention_name, attention_names
from mata_interp.errors import SlowDeviceWarning

from .discovery.structure import decoder_of

__all__ = [
    "attention_of",
    "describe",
    "devices_of",
    "encoder_attention_of",
    "quantisation_of",
    "template_sha256",
    "warn_of_slow_device",
]

LARGE_ON_CPU = 1_000_000_000  # parameters, above which a model on the CPU is warned about


def devices_of(model: Any) -> list[str]:
    """The devices that hold a model's weights, sorted: ``["cuda:0", "cuda:1"]``.

    Weights that accelerate keeps elsewhere between their uses are on ``"cpu"`` or ``"disk"``.
    """
    names = {str(parameter.device) for parameter in model.parameters()}
    if "meta" in names:
        of_map = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
        names = (names - {"meta"}) | ({"cpu", "disk"} & of_map)
    return sorted(names, key=lambda name: (name in ("cpu", "disk"), name))


def attention_of(model: Any) -> str | None:
    """The name of the attention function of a model's decoder: ``"sdpa"``."""
    return attention_name(decoder_of(model).config)


def encoder_attention_of(model: Any) -> dict[str, str]:
    """The attention functions of the other parts of a model, by config, where not that of the decoder."""
    decoder = decoder_of(model).config
    names = attention_names(model.config, skip=decoder)
    return {part: name for part, name in sorted(names.items()) if name not in (None, attention_name(decoder))}


def quantisation_of(model: Any) -> str | None:
    """How a model's weights are quantised, as its config says: ``"bitsandbytes 8-bit"``; None if not."""
    config = model.config
    quantised = getattr(config, "quantization_config", None)
    if quantised is None and hasattr(config, "get_text_config"):
        quantised = getattr(config.get_text_config(decoder=True), "quantization_config", None)
    if quantised is None:
        return None
    values = quantised if isinstance(quantised, dict) else quantised.to_dict()
    method = values.get("quant_method", "unknown")
    method = str(getattr(method, "value", method))
    bits = next((f"{bits}-bit" for bits in (4, 8) if values.get(f"load_in_{bits}bit")), None)
    if bits is None and isinstance(values.get("bits"), int):
        bits = f"{values['bits']}-bit"
    return " ".join(filter(None, [method.removesuffix("_4bit").removesuffix("_8bit"), bits]))


def describe(model: Any, name: str) -> str:
    """One line: ``"Qwen2-Audio-7B-Instruct on cuda:0, bfloat16, sdpa"``.

    Args:
        model: a transformers model.
        name: folders and the hub's owner are left out.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    parts = [dtype, quantisation_of(model), attention_of(model) or "no named attention"]
    short = Path(name).name or name
    return f"{short} on {' and '.join(devices_of(model))}, {', '.join(filter(None, parts))}"


def warn_of_slow_device(model: Any, name: str, stacklevel: int) -> None:
    """Warn of a model with more than `LARGE_ON_CPU` parameters whose weights are all on the CPU."""
    if devices_of(model) != ["cpu"] or (size := model.num_parameters()) <= LARGE_ON_CPU:
        return
    warnings.warn(
        SlowDeviceWarning(
            f"{Path(name).name} has {size / 1e9:.1f} billion parameters and runs on the CPU, which takes "
            "seconds for each forward pass. Name a GPU if there is one (device=...), or try few items first."
        ),
        stacklevel=stacklevel,
    )


def template_sha256(processor: Any) -> str | None:
    """SHA-256 of the processor's chat template, which may be several by name; None without one."""
    template = getattr(processor, "chat_template", None)
    if not template:
        return None
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
