"""A pretend accelerator on the CPU; see the docstring of `tests.second_device`."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

__all__ = [
    "DEVICES",
    "Counts",
    "allocated",
    "allow_float64",
    "compiler",
    "counting",
    "install",
    "limit_memory",
    "peak_memory",
    "reset_peak_memory",
    "sum_in_any_order",
]

DEVICES = ("accel:0", "accel:1")

SOURCE = Path(__file__).with_name("accelerator.cpp")
BUILD = Path(__file__).with_name("build")  # git leaves it out


@dataclass
class Counts:
    """What was done on all devices together.

    Attributes:
        kernels: operators that compute something; views and allocations do not.
        copies_to_device: from the CPU, those of indices on the CPU included.
        copies_to_host: to the CPU. Each is a synchronisation, too.
        copies_between: from one device to the other.
        synchronisations: places where the host needs a value of the device: copies to the CPU, ``item()``,
            ``bool()`` and the like, and results whose shape depends on values, such as ``nonzero`` or a mask
            as an index. (On a GPU, copies from memory that is not pinned wait as well. They are
            ``copies_to_device`` here.)
        by_name: number of kernels by name of the operator.
    """

    kernels: int = 0
    copies_to_device: int = 0
    copies_to_host: int = 0
    copies_between: int = 0
    synchronisations: int = 0
    by_name: dict[str, int] | None = None


_KINDS = ("kernels", "copies_to_device", "copies_to_host", "copies_between", "synchronisations")


def compiler() -> str | None:
    """The C++ compiler that would be used: ``$CXX``, c++, g++ or clang++; None if there is none."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((result for name in names if name and (result := shutil.which(name))), None)


@cache
def install() -> None:
    """Make torch know the device type ``accel``, in this process, for good.

    Call it before the first backward pass of the process: autograd counts the devices then.

    Raises:
        RuntimeError: there is no compiler, or it refuses the source.
    """
    library = ctypes.CDLL(str(_build()))
    library.accel_count.restype = ctypes.c_int64
    library.accel_kernels.restype = ctypes.c_char_p
    library.accel_allocated.restype = library.accel_peak.restype = ctypes.c_int64
    library.accel_limit_memory.argtypes = [ctypes.c_int64]
    torch.utils.rename_privateuse1_backend("accel")
    library.accel_register()
    torch._register_device_module("accel", _device_module())
    _libraries.append(library)


_libraries: list[ctypes.CDLL] = []


def _library() -> ctypes.CDLL:
    install()
    return _libraries[0]


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what is done inside; the numbers are there once the block has ended."""
    counts, before, names = Counts(), _counts(), _kernels()
    yield counts
    for kind, now, old in zip(_KINDS, _counts(), before, strict=True):
        setattr(counts, kind, now - old)
    more = {name: number - names.get(name, 0) for name, number in _kernels().items()}
    counts.by_name = {name: number for name, number in more.items() if number}


def _counts() -> list[int]:
    return [_library().accel_count(kind) for kind in range(len(_KINDS))]


def _kernels() -> dict[str, int]:
    lines = _library().accel_kernels().decode().splitlines()
    return {name: int(number) for name, number in (line.split() for line in lines)}


@contextmanager
def limit_memory(limit: int) -> Iterator[None]:
    """Inside, each device has so many bytes: more is a ``torch.OutOfMemoryError``."""
    _library().accel_limit_memory(limit)
    try:
        yield
    finally:
        _library().accel_limit_memory(-1)


def allocated(device: int = 0) -> int:
    """Bytes of all tensors on a device."""
    return _library().accel_allocated(device)


def peak_memory(device: int = 0) -> int:
    """The most bytes that a device had to hold since `reset_peak_memory`."""
    return _library().accel_peak(device)


def reset_peak_memory(device: int = 0) -> None:
    """Begin anew with `peak_memory`."""
    _library().accel_reset_peak(device)


@contextmanager
def allow_float64() -> Iterator[None]:
    """Inside, the device has float64, as CUDA does."""
    _library().accel_refuse_float64(False)
    try:
        yield
    finally:
        _library().accel_refuse_float64(True)


@contextmanager
def sum_in_any_order() -> Iterator[None]:
    """Inside, each product of float32 matrices is rounded anew, as by kernels that sum in any order."""
    _library().accel_sum_in_any_order(True)
    try:
        yield
    finally:
        _library().accel_sum_in_any_order(False)


def _device_module() -> types.ModuleType:
    """``torch.accel``: what torch asks a backend's module for."""
    module = types.ModuleType("torch.accel")
    module.is_available = lambda: True
    module.is_initialized = lambda: True
    module.device_count = lambda: len(DEVICES)
    module.current_device = torch.accelerator.current_device_index
    module.set_device = torch.accelerator.set_device_index
    module.synchronize = lambda device=None: None
    module.empty_cache = lambda: None
    module.manual_seed = module.manual_seed_all = lambda seed: None  # random numbers are the CPU's
    module.get_rng_state = lambda device=None: torch.get_rng_state()
    module.set_rng_state = lambda state, device=None: None
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    module._is_in_bad_fork = lambda: False
    module._lazy_init = lambda: None
    return module


def _build() -> Path:
    """The compiled library, made once for each source and each torch."""
    identity = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    library = _build_folder() / f"accelerator-{identity}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder, library.name)
            _compile(made)
            os.replace(made, library)
    return library


def _build_folder() -> Path:
    try:
        BUILD.mkdir(exist_ok=True)
    except OSError:  # the tests are not ours to write to
        folder = Path(tempfile.gettempdir(), f"mata-second-device-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder
    return BUILD


def _compile(library: Path) -> None:
    torch_folder = Path(torch.__file__).parent
    command = [str(compiler()), "-std=c++20", "-O1", "-fPIC", "-shared", str(SOURCE), "-o", str(library)]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    command += [f"-I{torch_folder}/include", f"-L{torch_folder}/lib", "-ltorch_cpu", "-lc10"]
    if compiler() is None:
        raise RuntimeError("The pretend accelerator needs a C++ compiler, and there is none: set CXX.")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
