"""Which models `mi.check` has verified: kept in this process and, by fingerprint, in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import platformdirs

from mata_interp.compat import loaded_from
from mata_interp.errors import UncheckedWarning
from mata_interp.version import __version__

from .loading import SHIPPED, shipped_weights

if TYPE_CHECKING:
    from .model import LALM

__all__ = ["being_checked", "in_check", "note_unchecked", "remember_check", "was_checked"]

_results: dict[str, bool] = {}  # key of a model -> whether all checks passed
_in_check: WeakSet[Any] = WeakSet()
_warned: set[str] = set()  # keys of the models about which this process has warned
_told: WeakSet[Any] = WeakSet()  # of which LALMs: what is warned of need not be read again


def was_checked(lalm: LALM) -> bool | None:
    """True if `mi.check` found nothing wrong, False if it did, None if it never ran on this model.

    What counts is the model: the same weights, hooks, adapters, config, dtype and attention under the same
    versions. Models that ship with the package are checked by its tests, and count as checked while they are
    as they were loaded.
    """
    return _was_checked(lalm, lalm.fingerprint())


def _was_checked(lalm: LALM, fingerprint: dict[str, Any]) -> bool | None:
    if _is_shipped(lalm, fingerprint):
        return True
    key = _key(lalm, fingerprint)
    if key not in _results:
        with suppress(OSError, ValueError, KeyError):
            _results[key] = bool(json.loads(_file(key).read_text(encoding="utf-8"))["ok"])
    return _results.get(key)


def _is_shipped(lalm: LALM, fingerprint: dict[str, Any]) -> bool:
    """Whether this is a model that ships with the package, unchanged."""
    folder = SHIPPED.get(lalm.name)
    if folder is None or loaded_from(lalm.model.config) != str(folder):
        return False
    changed = fingerprint["adapters"] or fingerprint["changes"]
    return not changed and fingerprint["weights_sha256"] == shipped_weights(lalm.model)


def remember_check(lalm: LALM, report: dict[str, Any]) -> None:
    """Store a report, with its ``ok``, in the user's cache folder for later processes."""
    key = _key(lalm, lalm.fingerprint())
    _results[key] = bool(report["ok"])
    file = _file(key)
    with suppress(OSError):  # without a writable cache the next process warns again, and no more
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(report, indent=1), encoding="utf-8")
        part.replace(file)


@contextmanager
def being_checked(lalm: LALM) -> Iterator[None]:
    """Inside, what the check itself traces and sweeps causes no warning."""
    _in_check.add(lalm.model)
    try:
        yield
    finally:
        _in_check.discard(lalm.model)


def in_check(lalm: LALM) -> bool:
    """Whether `mi.check` is running on this model."""
    return lalm.model in _in_check


def note_unchecked(lalm: LALM, stacklevel: int = 3, fingerprint: dict[str, Any] | None = None) -> None:
    """Warn, once for a model and process, that `mi.check` has not verified it.

    Silence it with ``warnings.simplefilter("ignore", mi.errors.UncheckedWarning)``, or for scripts with
    ``MATA_UNCHECKED=ignore`` in the environment.

    Args:
        lalm: the model.
        stacklevel: of the warning.
        fingerprint: of the model as it is, for callers that need it, too: it takes a pass over the weights.
    """
    if os.environ.get("MATA_UNCHECKED") == "ignore" or lalm.model in _in_check or lalm in _told:
        return
    fingerprint = fingerprint or lalm.fingerprint()
    ok, key = _was_checked(lalm, fingerprint), _key(lalm, fingerprint)
    if ok:
        return
    _told.add(lalm)
    if key in _warned:
        return
    _warned.add(key)
    state = "did not pass its check" if ok is False else "has not been checked"
    warnings.warn(
        UncheckedWarning(
            f"{lalm.name} {state}; results may be wrong. `mata-interp check` or mi.check(lalm) tests in a "
            "few forward passes whether attention is read and edited correctly on it."
        ),
        stacklevel=stacklevel,
    )


def _key(lalm: LALM, fingerprint: dict[str, Any]) -> str:
    identity = {name: value for name, value in fingerprint.items() if name not in ("name", "revision")}
    identity |= {"device": lalm.device.type, "mata_interp": __version__}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _file(key: str) -> Path:
    cache = os.environ.get("MATA_CACHE") or platformdirs.user_cache_dir("mata_interp", appauthor=False)
    return Path(cache) / "checked" / f"{key[:32]}.json"
