"""Models from a folder, from the hub, or from those that ship, by the path any transformers model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoProcessor

from mata_interp.errors import ModelError

from .anatomy import audio_token_id

__all__ = ["SHIPPED", "load"]

SHIPPED = {
    name: Path(__file__).parents[1] / "organism" / "weights" / name
    for name in ("organism", "organism-unbiased")
}
"""Models that come with the package, by the names they load under."""


def load(
    name: str | Path,
    dtype: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    token: Any = None,
) -> tuple[Any, Any]:
    """A model in eval mode and its processor.

    safetensors only, no code from the hub. Without ``dtype`` the config's own is taken.

    Raises:
        ModelError: there is no such model, or it takes no audio.
    """
    where = SHIPPED.get(str(name), name)
    if not Path(where).is_dir() and (where in SHIPPED.values() or _looks_like_a_path(str(name))):
        raise ModelError(f"No model folder {str(where)!r}.")
    hub: dict[str, Any] = {"revision": revision, "token": token}
    config = _attempt("config", name, AutoConfig, where, hub)
    architecture = (getattr(config, "architectures", None) or [None])[0]
    if audio_token_id(config) is None:
        raise ModelError(
            f"{str(name)!r} ({architecture or config.model_type}) has no audio: it names no audio token."
        )
    family = getattr(transformers, architecture or "", None)
    if family is None:
        raise ModelError(f"{str(name)!r} is a {architecture!r}, which this transformers does not have.")
    given = {
        key: value for key, value in {"dtype": dtype, "device_map": device_map}.items() if value is not None
    }
    model = _attempt("weights", name, family, where, hub | given | {"use_safetensors": True})
    return model.eval(), _attempt("processor", name, AutoProcessor, where, hub)


def _attempt(part: str, name: str | Path, kind: Any, where: str | Path, options: dict[str, Any]) -> Any:
    """``kind.from_pretrained``, its many-line errors made one line."""
    try:
        return kind.from_pretrained(where, **options)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise ModelError(f"No {part} of a model {str(name)!r}: {reason}.") from error


def _looks_like_a_path(name: str) -> bool:
    """A hub id is ``name`` or ``owner/name`` and never starts with a dot, a slash or a tilde."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
