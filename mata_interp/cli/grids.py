"""The configurations of `mata-interp sweep`: from its options, or from a small file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InterventionError
from ..interventions import DEFAULT_ALPHAS, RULES, AttentionEdit
from ..sweeps import by_alpha, head_configs, window_configs
from .options import parse_layers

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["from_file", "from_options"]

FIELDS = ("alpha", "layers", "rule", "heads", "phase", "keys", "queries")
Edit = AttentionEdit | tuple[AttentionEdit, ...] | None


def from_options(
    lalm: LALM,
    layers: str,
    widths: Sequence[int] | None,
    alphas: Sequence[float] | None,
    rule: str | None,
    settings: Mapping[str, Any],
) -> dict[str, AttentionEdit]:
    """Name -> configuration.

    Args:
        layers: ``windows``, ``each``, ``heads``, or sets of layers such as ``3-5;2,7``.
        widths: of windows; up to half the attention layers if not given.
        alphas: of the rules that have a strength.
        rule: knockout for single layers and heads if not given, else abs.
        settings: keys, queries, phase and heads of each `Mata`.

    Raises:
        BadParameter: the options do not go together.
    """
    alone = layers in ("each", "heads")
    rule = rule or ("knockout" if alone else "abs")
    if widths and layers != "windows":
        raise typer.BadParameter("widths are of windows: say --layers windows, too.", param_hint="--widths")
    if layers == "heads" and "heads" in settings:
        raise typer.BadParameter("--layers heads takes every head alone.", param_hint="--heads")
    if layers == "heads" and alphas and len(alphas) > 1:
        raise typer.BadParameter("a map of heads has one alpha.", param_hint="--alpha")
    strengths = tuple(alphas or DEFAULT_ALPHAS)
    if not RULES[rule].has_strength or (alone and not alphas):
        strengths = (1.0,)
    if layers == "heads":
        return head_configs(lalm, strengths[0], rule, **settings)
    if layers == "each":
        return by_alpha([[layer] for layer in lalm.attention_layers], strengths, rule, **settings)
    if layers == "windows":
        few = range(1, max(1, len(lalm.attention_layers) // 2) + 1)
        return window_configs(lalm, strengths, rule, widths or few, **settings)
    return by_alpha([parse_layers(part) for part in layers.split(";")], strengths, rule, **settings)


def from_file(path: Path) -> dict[str, Edit]:
    """Name -> configuration, of a JSON or TOML file: a table of `Mata`'s fields each, or a list of such.

    Raises:
        InterventionError: it cannot be read, or an entry is no intervention; the entry is named.
    """
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise InterventionError(f"cannot read {path}: {error}. Give a JSON or TOML file.") from error
    if not isinstance(table, Mapping) or not table:
        raise InterventionError(f"{path} names no intervention: give name -> fields, such as {EXAMPLE}.")
    return {str(name): _entry(path, str(name), entry) for name, entry in table.items()}


EXAMPLE = '{"early": {"alpha": 1.0, "layers": "1-3", "rule": "abs"}}'


def _entry(path: Path, name: str, entry: Any) -> Edit:
    if entry is None:
        return None
    if isinstance(entry, list):
        return tuple(_mata(path, name, part) for part in entry)
    return _mata(path, name, entry)


def _mata(path: Path, name: str, fields: Any) -> AttentionEdit:
    if not isinstance(fields, Mapping) or not {"alpha", "layers"} <= set(fields) <= set(FIELDS):
        raise InterventionError(
            f"{path}, {name!r}: {fields!r} is no intervention. Its fields are {', '.join(FIELDS)}; alpha and "
            f"layers must be there, as in {EXAMPLE}."
        )
    layers = fields["layers"]
    try:
        chosen = parse_layers(layers) if isinstance(layers, str) else layers
        return AttentionEdit.from_dict({**fields, "layers": chosen})
    except (typer.BadParameter, InterventionError, ValueError, TypeError) as error:
        raise InterventionError(f"{path}, {name!r}: {error}") from error
