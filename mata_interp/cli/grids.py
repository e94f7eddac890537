"""``--grid FILE``: edits from a JSON or TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InterventionError
from ..ranges import layers_in
from .checks import check_excluded, check_file

if TYPE_CHECKING:
    from ..interventions import InterventionLike

__all__ = ["check_grid_options", "read_grid"]

FIELDS = ("alpha", "layers", "rule", "heads", "phase", "keys", "queries")
EXAMPLE = '{"early": {"alpha": 1.0, "layers": "1-3", "rule": "abs"}}'


def check_grid_options(grid: Path | None, edit_options: Mapping[str, Any]) -> None:
    """Refuse ``--grid`` beside options that describe one edit, and a file that does not exist."""
    if grid is not None:
        check_file(grid, "--grid")
        check_excluded(edit_options, "--grid", "the file describes the edits")


def read_grid(path: Path) -> dict[str, InterventionLike]:
    """Name -> intervention, from a table of `Mata`'s fields per name, or a list of such tables.

    A table with ``method`` is that method of the catalogue or of an installed package, and its fields.

    Raises:
        InterventionError: the file cannot be read, or an entry is not an intervention; the entry is named.
    """
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise InterventionError(f"cannot read {path}: {error}. It must be a JSON or TOML file.") from error
    if not isinstance(table, Mapping) or not table:
        raise InterventionError(
            f"{path} holds no intervention: it must map names to fields, as in {EXAMPLE}."
        )
    return {str(name): _intervention(path, str(name), entry) for name, entry in table.items()}


def _intervention(path: Path, name: str, entry: Any) -> InterventionLike:
    if entry is None:
        return None
    if isinstance(entry, list):
        return tuple(_part(path, name, part) for part in entry)
    return _part(path, name, entry)


def _part(path: Path, name: str, fields: Any) -> Any:
    """A method where the entry names one, else an attention edit."""
    if not isinstance(fields, Mapping) or "method" not in fields:
        return _mata(path, name, fields)
    from ..interventions import find_method, from_dict

    values = dict(fields)
    try:
        find_method(values["method"])
        if isinstance(values.get("layers"), str):
            values["layers"] = layers_in(values["layers"])
        return from_dict(values)
    except (ValueError, TypeError) as error:
        raise InterventionError(f"{path}, {name!r}: {error}") from error


def _mata(path: Path, name: str, fields: Any) -> Any:
    from ..interventions import AttentionEdit

    if not isinstance(fields, Mapping) or not {"alpha", "layers"} <= set(fields) <= set(FIELDS):
        raise InterventionError(
            f"{path}, {name!r}: {fields!r} is not an intervention. Its fields are {', '.join(FIELDS)}; alpha "
            f"and layers are required, as in {EXAMPLE}."
        )
    layers = fields["layers"]
    try:
        return AttentionEdit.from_dict(
            {**fields, "layers": layers_in(layers) if isinstance(layers, str) else layers}
        )
    except (ValueError, TypeError) as error:
        raise InterventionError(f"{path}, {name!r}: {error}") from error
