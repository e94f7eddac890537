"""Which models were checked: remembered in this process and, by fingerprint and versions, beyond it."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import mata_interp
from mata_interp.errors import UncheckedWarning

from .loading import SHIPPED

if TYPE_CHECKING:
    from .model import LALM

__all__ = ["being_checked", "in_check", "note_unchecked", "remember_check", "was_checked"]

_known: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # model -> whether all checks passed
_in_check: WeakSet[Any] = WeakSet()
_told: set[str] = set()  # of the models that were not, who has been told of in this process


def was_checked(lalm: LALM) -> bool | None:
    """True if `mi.check` found nothing wrong, False if it did, None if it never ran on this model.

    What counts is the model: the same weights, config, dtype and attention under the same versions. Models
    that ship with the package are checked by its tests.
    """
    if lalm.model not in _known:
        where = SHIPPED.get(lalm.name)
        if where is not None and getattr(lalm.model.config, "_name_or_path", "") == str(where):
            return True
        with suppress(OSError, ValueError, KeyError):
            _known[lalm.model] = bool(json.loads(_place(lalm).read_text(encoding="utf-8"))["ok"])
    return _known.get(lalm.model)


def remember_check(lalm: LALM, report: dict[str, Any]) -> None:
    """Keep a report, with its ``ok``, for later processes: in the user's cache folder, if there is one."""
    _known[lalm.model] = bool(report["ok"])
    place = _place(lalm)
    with suppress(OSError):  # a home that cannot be written to costs a note, no more
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(report, indent=1), encoding="utf-8")
        part.replace(place)


@contextmanager
def being_checked(lalm: LALM) -> Iterator[None]:
    """Inside, what the check itself traces and sweeps is not complained about."""
    _in_check.add(lalm.model)
    try:
        yield
    finally:
        _in_check.discard(lalm.model)


def in_check(lalm: LALM) -> bool:
    """Whether `mi.check` is running on this model."""
    return lalm.model in _in_check


def note_unchecked(lalm: LALM, stacklevel: int = 3) -> None:
    """Say, once for a model and process, that nobody has checked the instruments on it.

    Silence it with ``warnings.simplefilter("ignore", mi.errors.UncheckedWarning)``, or for scripts with
    ``MATA_UNCHECKED=ignore`` in the environment.
    """
    if os.environ.get("MATA_UNCHECKED") == "ignore" or lalm.model in _in_check:
        return
    ok = was_checked(lalm)
    if ok:
        return
    key = _key(lalm)
    if key in _told:
        return
    _told.add(key)
    which = "did not pass its check" if ok is False else "was never checked"
    warnings.warn(
        UncheckedWarning(
            f"{lalm.name} {which} here: `mata-interp check` or mi.check(lalm) says in a few forward passes "
            "whether attention is read and edited correctly on it."
        ),
        stacklevel=stacklevel,
    )


def _key(lalm: LALM) -> str:
    told = {k: v for k, v in lalm.fingerprint().items() if k not in ("name", "revision")}
    told |= {"device": lalm.device.type, "mata_interp": mata_interp.__version__}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _place(lalm: LALM) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mata_interp"
    return Path(os.environ.get("MATA_CACHE") or cache) / "checked" / f"{_key(lalm)[:32]}.json"
