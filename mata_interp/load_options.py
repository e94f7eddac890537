"""How a model is loaded: one definition for Python, the command line, run folders and workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["DEVICE_MAPS", "DTYPES", "QUANTISATIONS", "LoadOptions"]

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""Short names of dtypes -> torch's."""

QUANTISATIONS = ("4bit", "8bit")
"""Names that ``quantization_config`` takes beside a configuration: those of bitsandbytes."""

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Names of device maps, as in transformers."""

_SECRET = ("proxies", "token")  # of keywords that are not recorded, parts of the name


@dataclass(frozen=True)
class LoadOptions:
    """The arguments of `LALM.from_pretrained` beside the name; None where one was not used.

    `LALM.load_options` holds those with which a model was loaded, so that another process can load the same:
    ``LALM.from_pretrained(lalm.name, **lalm.load_options.arguments())``.

    Attributes:
        device, device_map, dtype, attn_implementation, quantization_config, revision, chat_template,
            thinking, token: as in `LALM.from_pretrained`; of a chat template read from a file, its text.
        more: keywords that are passed to transformers.
    """

    device: Any = None
    device_map: Any = None
    dtype: Any = None
    attn_implementation: Any = None
    quantization_config: Any = None
    revision: str | None = None
    chat_template: str | Path | None = None
    thinking: str | None = None
    token: Any = field(default=None, repr=False)
    more: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `LALM.from_pretrained`: those that were used.

        >>> LoadOptions(device="cuda:1", more={"max_memory": {0: "20GiB"}}).arguments()
        {'device': 'cuda:1', 'max_memory': {0: '20GiB'}}
        """
        arguments = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "more"}
        return {name: value for name, value in arguments.items() if value is not None} | dict(self.more)

    def to_dict(self) -> dict[str, Any]:
        """The arguments that were used, as JSON data: no token, and of a chat template its SHA-256.

        >>> LoadOptions(dtype="bf16", token="secret").to_dict()
        {'dtype': 'bf16'}
        """
        used = {
            name: value
            for name, value in self.arguments().items()
            if not any(word in name for word in _SECRET)
        }
        if self.chat_template is not None:
            used["chat_template"] = hashlib.sha256(str(self.chat_template).encode()).hexdigest()
        return {name: _json(value) for name, value in used.items()}


def _json(value: Any) -> Any:
    """A value as JSON data; objects that JSON does not know as their dictionary or their text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    if hasattr(value, "to_dict"):  # a quantisation config of transformers
        return _json(value.to_dict())
    return str(value).removeprefix("torch.")
