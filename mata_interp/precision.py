"""Numbers do not depend on what surrounds a call: neither on ``torch.autocast`` nor on TF32.

Under autocast a model runs in another dtype than its weights', and so does the float32 arithmetic of this
package. With ``torch.set_float32_matmul_precision("high")`` or the like, float32 products are rounded to a
few bits. Inside `full_precision` neither is in force. Settings of convolutions, which only audio encoders
have, are left as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from mata_interp.compat import float32_products, privateuse_name, restore_float32_products, round_no_products

__all__ = ["full_precision"]


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, this thread computes in the dtypes of its tensors, and float32 products are float32.

    It is also a decorator. The setting of products is one for all threads of a process: it is put back when
    the last of them has left.

    Example:
        >>> import torch
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     rounded = x @ x
        ...     with full_precision():
        ...         exact = x @ x
        >>> rounded.dtype, exact.dtype
        (torch.bfloat16, torch.float32)
    """
    with ExitStack() as stack:
        for device in ("cpu", "cuda", "mps", "xpu", privateuse_name()):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_exact_products)
        yield


class _ExactProducts:
    """While any thread is inside, float32 products are not rounded."""

    def __init__(self) -> None:
        self._guard, self._inside, self._before = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._guard:
            self._inside += 1
            if self._inside == 1:
                self._before: Any = float32_products()
                round_no_products(self._before)

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._inside -= 1
            if self._inside == 0:
                restore_float32_products(self._before)


_exact_products = _ExactProducts()
