"""The edit that the options of a command describe: MATA and its settings, or a method of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checks import check_edit, check_excluded, check_needs, usage_error
from .grids import check_grid_options
from .inputs import read_layers
from .methods import check_method, make_method
from .options import (
    DEFAULT_ALPHA,
    DEFAULT_RULE,
    Alpha,
    GridFile,
    Heads,
    Keys,
    Layers,
    MethodName,
    Phase,
    Queries,
    Rule,
    Settings,
    with_options,
)
from .output import print_note

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = [
    "NO_EDIT",
    "EditOptions",
    "check_edit_options",
    "check_single_edit",
    "make_edits",
    "with_edit_options",
]


@dataclass(frozen=True)
class EditOptions:
    """The options that describe the edit of a command; None where an option was not used.

    Attributes:
        layers: ``--layers``; what `read_layers` returns once they are checked.
        alpha: strengths.
        rule, heads, keys, queries, phase: settings of an AttentionEdit.
        grid: file with several edits.
        method: name of a method of the catalogue, in place of MATA.
        settings: its settings, texts of the form key=value.
    """

    layers: Any = None
    alpha: tuple[float, ...] | None = None
    rule: str | None = None
    heads: tuple[int, ...] | None = None
    keys: str | None = None
    queries: str | None = None
    phase: str | None = None
    grid: Path | None = None
    method: str | None = None
    settings: list[str] | None = None

    @property
    def edited(self) -> bool:
        """Whether any of the options was used."""
        return any(getattr(self, field.name) is not None for field in fields(self))


NO_EDIT = EditOptions()
_OPTIONS: dict[str, Any] = {
    "layers": Layers,
    "alpha": Alpha,
    "rule": Rule,
    "heads": Heads,
    "keys": Keys,
    "queries": Queries,
    "phase": Phase,
    "grid": GridFile,
    "method": MethodName,
    "settings": Settings,
}


def with_edit_options(*, grid: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of an edit, in place of its parameter ``edit``.

    The parameter receives `EditOptions`; pass it to `check_edit_options` before a model is loaded.

    Args:
        grid: whether the command takes several edits in a file (``--grid``).
    """
    options = {name: option for name, option in _OPTIONS.items() if grid or name != "grid"}
    return lambda command: with_options(command, "edit", options, EditOptions)


def check_edit_options(options: EditOptions) -> EditOptions:
    """The options with layers read from their file, before a model is loaded.

    Raises:
        BadParameter: values or combinations make no sense.
        RunError: the file of the layers holds none.
    """
    options = replace(options, layers=read_layers(options.layers), settings=options.settings or None)
    check_edit(options.rule, options.keys, options.queries, options.phase)
    check_needs({"--set": options.settings}, "--method", options.method is not None)
    of_mata = {
        "--alpha": options.alpha,
        "--rule": options.rule,
        "--heads": options.heads,
        "--keys": options.keys,
        "--queries": options.queries,
        "--phase": options.phase,
    }
    if options.method is not None:
        check_excluded(of_mata, "--method", "--set says the method's settings")
        check_method(options.method, options.settings)
    named = {"--layers": options.layers, **of_mata, "--method": options.method}
    check_grid_options(options.grid, named)
    return options


def check_single_edit(options: EditOptions) -> None:
    """Refuse several strengths in a command that applies one edit."""
    if options.alpha is not None and len(options.alpha) > 1:
        raise usage_error("this command applies one edit: give one number.", "--alpha")


def make_edits(lalm: LALM, layers: Any, options: EditOptions) -> dict[str, Any]:
    """The edit "mata", one edit for each of several strengths, or the method under its name.

    Args:
        lalm: the model.
        layers: layers or a FusionProfile, as `resolve_layers` returned them; None: the published ones.
        options: of the command.

    Raises:
        InterventionError: a value makes no sense, or a setting of the method is missing.
    """
    from ..interventions import Mata, published_convention, published_layers
    from ..ranges import named_layers

    where = layers
    if layers is None:
        where = published_layers(lalm)
        name, convention = options.method or "MATA", published_convention(lalm)
        print_note(f"{name} edits {named_layers(where)}, the published layers ({convention}).")
    if options.method is not None:
        # a profile stands for its window, as for MATA
        indices = Mata(0.0, where).layers
        return {options.method.lower(): make_method(options.method, options.settings, indices)}
    settings = {
        name: value
        for name in ("heads", "phase", "keys", "queries")
        if (value := getattr(options, name)) is not None
    }
    alphas = options.alpha or (DEFAULT_ALPHA,)
    edits = [Mata(alpha, where, rule=options.rule or DEFAULT_RULE, **settings) for alpha in alphas]
    if len(edits) == 1:
        return {"mata": edits[0]}
    return {f"mata, alpha {edit.alpha:g}": edit for edit in edits}
