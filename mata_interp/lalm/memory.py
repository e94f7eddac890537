"""Memory of a device: how much is free, and what to do where it runs out."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from mata_interp.errors import RunError

__all__ = ["free_bytes", "in_halves", "is_out_of_memory", "memory_devices", "release_memory"]

Part = TypeVar("Part", bound=Sequence[Any])
Result = TypeVar("Result")

UNKNOWN = 2 * 2**30  # bytes, where a device does not tell
# what allocators say, besides torch's own class of error
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: torch's own class, or the message of an allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def in_halves(
    compute: Callable[[Part], Result], batch: Part, alone: Callable[[Any], str] | None = None
) -> list[Result]:
    """What ``compute`` returns for a batch; where memory runs out, for its halves, their halves, and so on.

    Args:
        compute: a function of a part of the batch.
        batch: a sequence of at least one element whose slices are sequences of the same kind.
        alone: names an element that does not fit by itself, as the subject of a sentence. None: the error is
            raised as it is, for a caller that can halve something else.

    Returns:
        The results, in the order of the batch.

    Raises:
        RunError: one element alone does not fit in memory, and ``alone`` names it.

    Examples:
        >>> def three_at_once(part):
        ...     if len(part) > 3:
        ...         raise MemoryError
        ...     return sum(part)
        >>> in_halves(three_at_once, [1, 2, 3, 4, 5])
        [6, 9]
    """
    try:
        return [compute(batch)]
    except Exception as error:
        if not is_out_of_memory(error) or (len(batch) == 1 and alone is None):
            raise
        if len(batch) == 1 and alone is not None:
            raise RunError(
                f"{alone(batch[0])} does not fit in memory by itself. Use a smaller dtype, a larger device, "
                "or device_map='auto'."
            ) from error
    # not in the except block: the error keeps the tensors of the failed attempt alive
    release_memory()
    half: Any = (len(batch) + 1) // 2
    first: Any = batch[:half]
    second: Any = batch[half:]
    return in_halves(compute, first, alone) + in_halves(compute, second, alone)


def release_memory() -> None:
    """Drop what nobody uses any more, and give what torch's allocator holds in reserve back to the device."""
    gc.collect()
    if torch.accelerator.is_available():
        module: Any = torch.get_device_module(torch.accelerator.current_accelerator())
        empty_cache = getattr(module, "empty_cache", None)
        if empty_cache is not None:
            empty_cache()


def free_bytes(*devices: torch.device) -> int:
    """Free memory in bytes: of several devices, that of the one that has least.

    Memory that torch's allocator has reserved and no tensor uses is free, too.
    """
    return min(map(_free_bytes, devices), default=UNKNOWN)


def memory_devices(parameters: Iterable[torch.Tensor]) -> tuple[torch.device, ...]:
    """The devices on which a model runs: those of its parameters, without those that are offloaded."""
    return tuple(dict.fromkeys(one.device for one in parameters if not one.is_meta))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cpu":
        return _free_bytes_of_host()
    module: Any = torch.get_device_module(device)
    if hasattr(module, "mem_get_info"):
        in_reserve = module.memory_reserved(device) - module.memory_allocated(device)
        return int(module.mem_get_info(device)[0]) + int(in_reserve)
    if hasattr(module, "recommended_max_memory"):  # MPS, which shares the memory of the host
        return int(module.recommended_max_memory()) - int(module.current_allocated_memory())
    return UNKNOWN


def _free_bytes_of_host() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # available memory, unlike free memory, counts what caches would release
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN
