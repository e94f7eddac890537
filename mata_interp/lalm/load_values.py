"""Values of the arguments of `LALM.from_pretrained`, checked before anything is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from mata_interp.compat import attention_function_table
from mata_interp.errors import ArgumentError, ModelError, unknown_name
from mata_interp.load_options import DEVICE_MAPS, DTYPES, QUANTISATIONS

__all__ = [
    "attention_to_use",
    "available_devices",
    "check_quantization",
    "device_to_use",
    "dtype_to_use",
    "map_to_use",
    "quantization_to_use",
    "template_text",
]


def available_devices() -> list[str]:
    """The devices of this machine, those that are used first by default in front: ``["cuda:0", "cpu"]``."""
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps:0")
    other = torch.accelerator.current_accelerator(check_available=True)
    if other is not None and other.type not in ("cuda", "mps"):
        devices += [f"{other.type}:{number}" for number in range(torch.accelerator.device_count())]
    return [*devices, "cpu"]


def device_to_use(device: Any = None) -> torch.device:
    """The device of a model.

    Args:
        device: a name such as ``"cuda:1"``, or a torch.device. None: the accelerator if there is one (CUDA,
            then MPS), else the CPU. Other accelerators are used where they are named.

    Raises:
        ArgumentError: there is no such device.
    """
    names = available_devices()
    if device is None:
        if names[0].startswith("cuda"):
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device(names[0] if names[0].startswith("mps") else "cpu")
    try:
        choice = torch.device(device)
    except (RuntimeError, TypeError):
        choice = None
    if choice is None or not _is_there(choice, names):
        raise ArgumentError(unknown_name("device", str(device), names))
    return choice


def _is_there(device: torch.device, names: list[str]) -> bool:
    if device.type == "cpu":
        return True
    return f"{device.type}:{device.index or 0}" in names


def map_to_use(device: Any, device_map: Any) -> Any:
    """What transformers takes as ``device_map``.

    Args:
        device: that of a whole model.
        device_map: as in transformers; at most one of the two is not None.

    Raises:
        ArgumentError: both are used, or there is no such device or kind of map.
    """
    if device_map is None:
        return {"": device_to_use(device)}
    if device is not None:
        raise ArgumentError(
            f"device={device!r} puts the whole model on one device and device_map={device_map!r} splits it: "
            "use one of the two."
        )
    if isinstance(device_map, dict):
        for place in device_map.values():
            if place != "disk":
                device_to_use(place)
    elif device_map not in DEVICE_MAPS:
        try:
            return {"": device_to_use(device_map)}
        except ArgumentError:
            names = [*DEVICE_MAPS, *available_devices()]
            raise ArgumentError(unknown_name("device map", str(device_map), names)) from None
    return device_map


def dtype_to_use(dtype: Any) -> Any:
    """A torch.dtype, or None for the checkpoint's own.

    Args:
        dtype: None, ``"auto"``, ``"bf16"``, ``"fp16"``, ``"fp32"``, torch's names, a torch.dtype, or as in
            transformers a dictionary with one for each part of the config.

    Raises:
        ArgumentError: there is no such floating-point dtype.
    """
    if dtype is None or dtype == "auto":
        return None
    if isinstance(dtype, dict):
        return {part: dtype_to_use(one) for part, one in dtype.items()}
    result = dtype
    if isinstance(dtype, str):
        name = dtype.lower().removeprefix("torch.")
        result = getattr(torch, DTYPES.get(name, name), None)
    if not isinstance(result, torch.dtype) or not result.is_floating_point:
        raise ArgumentError(unknown_name("dtype", str(dtype), [*DTYPES, "auto", *DTYPES.values()]))
    return result


def attention_to_use(name: Any) -> Any:
    """The name of an attention function of transformers, of a kernel on the hub (``owner/name``), or a dict.

    Raises:
        ArgumentError: there is no such attention function.
    """
    names = ["eager", *attention_function_table()]
    if isinstance(name, str) and name not in names and "/" not in name:
        raise ArgumentError(unknown_name("attention", name, names))
    return name


def check_quantization(quantization: Any) -> None:
    """Check the name of a quantisation, and that the package that computes it is installed.

    Raises:
        ArgumentError: there is no such name.
        ModelError: bitsandbytes is not installed.
    """
    if isinstance(quantization, str) and quantization not in QUANTISATIONS:
        raise ArgumentError(unknown_name("quantisation", quantization, QUANTISATIONS))
    if (
        isinstance(quantization, str | BitsAndBytesConfig)
        and importlib.util.find_spec("bitsandbytes") is None
    ):
        raise ModelError("bitsandbytes, which quantises models, is not installed: pip install bitsandbytes.")


def quantization_to_use(quantization: Any, dtype: Any, config: Any) -> Any:
    """What transformers takes as ``quantization_config``.

    Args:
        quantization: ``"8bit"`` or ``"4bit"`` (NF4), those of bitsandbytes, or as in transformers; see
            `check_quantization`.
        dtype: that of the weights that are not quantised, in which 4-bit layers compute; None: that of
            ``config``, the model's, or bfloat16 where it states none.
    """
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if quantization == "4bit":
        compute = dtype if isinstance(dtype, torch.dtype) else getattr(config, "dtype", None)
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute or torch.bfloat16
        )
    return quantization


def template_text(template: str | Path | None) -> str | None:
    """A chat template; a text without any Jinja in it names a file.

    Raises:
        ModelError: there is no such file.
    """
    if template is None or (isinstance(template, str) and ("{{" in template or "{%" in template)):
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ModelError(
            f"No chat template {str(template)!r}: it is neither Jinja text nor an existing file."
        ) from error
