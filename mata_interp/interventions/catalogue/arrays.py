"""Numbers that belong to a method (directions, projections, masks): hashable, and written as JSON."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import InterventionError

__all__ = ["Array"]


class Array:
    """A float32 tensor that is compared and hashed by its content.

    Args:
        values: a tensor, or what `torch.as_tensor` takes; it is copied to the CPU.

    Attributes:
        tensor: float32, on the CPU.
        digest: SHA-256 of shape and content.

    Example:
        >>> from mata_interp.interventions.catalogue import Array
        >>> Array([1.0, 2.0]) == Array([1.0, 2.0])
        True
        >>> Array.from_dict(Array([1.0, 2.0]).to_dict()).tensor
        tensor([1., 2.])
    """

    def __init__(self, values: Any) -> None:
        self.tensor = torch.as_tensor(values).detach().to("cpu", torch.float32).contiguous().clone()
        content = str(tuple(self.tensor.shape)).encode() + self._bytes()
        self.digest = hashlib.sha256(content).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Array {'x'.join(map(str, self.tensor.shape))} {self.digest[:8]}>"

    def on(self, x: Tensor) -> Tensor:
        """The numbers on the device of ``x``."""
        return self.tensor.to(x.device)

    def to_dict(self) -> dict[str, Any]:
        """Shape, and the content as base64 of little-endian float32."""
        return {"shape": list(self.tensor.shape), "float32": base64.b64encode(self._bytes()).decode()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Array:
        """Rebuild from `to_dict`.

        Raises:
            InterventionError: the content does not have the shape.
        """
        try:
            flat = np.frombuffer(base64.b64decode(data["float32"], validate=True), dtype="<f4")
            return cls(torch.tensor(flat).reshape(list(data["shape"])))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InterventionError(f"An array cannot be read: {error}") from error

    def _bytes(self) -> bytes:
        return self.tensor.numpy().astype("<f4").tobytes()
