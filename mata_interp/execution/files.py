"""Atomic writing of files, and JSON that any reader accepts."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import RunError

__all__ = ["plain", "read_json", "remove_leftovers", "write_json", "write_whole"]

_SUFFIX = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, no larger file


def write_whole(
    path: Path, write: Callable[[BinaryIO], object], new: bool = False, *, resumes: bool = True
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``.

    The rename is atomic on one file system and both the file and its folder are flushed to the disk, so a
    kill or a power cut at any moment leaves either the old state or the whole new file.

    Args:
        path: The file.
        write: Fills an open binary file.
        new: Keep a file that exists already, even if another process has just written it.
        resumes: Whether the command can be run again to continue; the error about a full disk says so.

    Raises:
        RunError: the folder cannot be written (no permission, no space, a file in the way).
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        (_put_new if new else os.replace)(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        remedy = "Choose a folder that can be written (out=...)."
        if error.errno in _FULL:
            remedy = f"Make room, and run the same command again{' to continue' if resumes else ''}."
        raise RunError(f"cannot write {path}: {error}. {remedy}") from error
    finally:
        _discard(temporary)


def write_json(path: Path, value: Any, new: bool = False) -> None:
    """Write ``value`` as indented JSON, as `write_whole` does; NaN and infinities become null."""
    text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda file: file.write(text.encode()), new)


def read_json(path: Path) -> Any:
    """The JSON of ``path``; RunError if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot read {path}: {error}. Delete it or choose another folder (out=...)."
        ) from error


def plain(value: Any) -> Any:
    """The value as JSON knows it: dicts, lists, strings, numbers, None.

    NaN and infinities become None, dataclasses and objects with ``to_dict`` become dicts, and anything else
    unknown becomes its text.
    """
    if hasattr(value, "to_dict") and not isinstance(value, type):
        return plain(value.to_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def remove_leftovers(folder: Path) -> int:
    """Remove temporary files in ``folder`` whose writer, a process of this machine, is gone; how many.

    A file of another machine, or of a process still running, may be in use and is left alone: nothing ever
    reads a temporary file.
    """
    removed = 0
    for path in folder.glob(f".*{_SUFFIX}"):
        host, _, process = path.name.removesuffix(_SUFFIX).rpartition(".")
        if host.endswith("." + socket.gethostname()) and process.isdigit() and not _is_running(int(process)):
            _discard(path)
            removed += 1
    return removed


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):  # if the folder itself is the problem, the write has reported it
        path.unlink(missing_ok=True)


def _put_new(temporary: Path, path: Path) -> None:
    """Give the file its name unless another has it; a plain rename where there are no hard links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno in _FULL:
            raise
        os.replace(temporary, path)


def _flush_folder(folder: Path) -> None:
    """Flush the folder's entry for a renamed file, where the file system can.

    Windows does not open folders, and some network and shared drives refuse to flush one. The file is written
    there all the same; it may only be lost by a power cut.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (*_FULL, errno.EIO):
            raise
    finally:
        os.close(descriptor)
