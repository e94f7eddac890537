"""What tells one model from another, so that records of two are never mixed."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

import torch

__all__ = ["fingerprint"]

SAMPLED = 256  # values of each weight tensor; evenly spaced, so that training or rounding anywhere shows


def fingerprint(model: Any) -> dict[str, Any]:
    """Plain data: class, dtype, attention, versions, SHA-256 of the config and of sampled weights."""
    config = json.dumps(_settings(model.config.to_dict()), sort_keys=True, default=str)
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLED)].to("cpu", torch.float32)
        weights.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + sample.numpy().tobytes())
    return {
        "class": type(model).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "weights_sha256": weights.hexdigest(),
        "versions": {name: version(name) for name in ("torch", "transformers", "nnsight")},
    }


def _settings(value: Any) -> Any:
    """A config without what says where it came from and not what it is."""
    if not isinstance(value, dict):
        return value
    passing = ("_name_or_path", "transformers_version", "architectures", "dtype")
    return {key: _settings(inner) for key, inner in value.items() if key not in passing}
