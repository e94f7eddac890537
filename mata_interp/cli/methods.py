"""``--method``, ``--set`` and ``--list-methods``: methods of the catalogue and of installed packages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from ..errors import InterventionError, unknown_name
from .checks import check_name, usage_error
from .output import print_result

__all__ = ["check_method", "make_method", "parse_setting", "print_methods", "setting_names"]


def parse_setting(text: str) -> tuple[str, Any]:
    """``strength=0.5`` -> ``("strength", 0.5)``: a value is JSON, or else a text."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip().isidentifier():
        raise usage_error(f"{text!r} is not of the form key=value, such as strength=0.5.", "--set")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()


def setting_names(cls: type) -> list[str]:
    """The settings of a class of methods, layers aside, which ``--layers`` says."""
    return [field.name for field in fields(cls) if field.name != "layers"]


def check_method(name: str | None, settings: Sequence[str] | None) -> None:
    """Refuse a method or a setting that does not exist, before a model is loaded."""
    from ..interventions import all_methods, find_method

    if name is None:
        return
    check_name("method", name, [method for method in all_methods() if method != "AttentionEdit"], "--method")
    names = setting_names(find_method(name))
    for setting in dict(map(parse_setting, settings or ())):
        if setting not in names:
            raise usage_error(unknown_name(f"setting of {name}", setting, names), "--set")


def make_method(name: str, settings: Sequence[str] | None, layers: Iterable[int]) -> Any:
    """The method that the options describe.

    Args:
        name: of its class.
        settings: texts of the form key=value.
        layers: of the model; of no use to methods at the logits.

    Raises:
        InterventionError: a value makes no sense, or one that is needed is missing.
    """
    from ..interventions import find_method

    cls = find_method(name)
    values = dict(map(parse_setting, settings or ()))
    if any(field.name == "layers" for field in fields(cls)):
        values = {"layers": tuple(layers), **values}
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    missing = [setting for setting in missing if setting not in values]
    if missing:
        raise InterventionError(f"{name} needs --set {missing[0]}=...; --list-methods lists its settings.")
    return cls(**{setting: _tuples(value) for setting, value in values.items()})


def print_methods(as_json: bool) -> None:
    """Print every method with its formula, settings and source."""
    from ..interventions import all_methods

    rows = [_row(name, cls) for name, cls in sorted(all_methods().items()) if name != "AttentionEdit"]
    if as_json:
        print_result("run --list-methods", {"methods": rows})
        return
    for row in rows:
        settings = ", ".join(f"{name}={value}" for name, value in row["settings"].items())
        print(f"{row['name']}\n  formula   {row['formula']}\n  settings  {settings or 'none'}")
        print(f"  source    {row['source']}")
    print("\nMATA and knockout are edits of their own: --rule, --alpha, --heads, --keys, --queries, --phase.")


def _row(name: str, cls: type) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(cls) if field.name != "layers"}
    settings = {key: "needed" if value is MISSING else _shown(value) for key, value in defaults.items()}
    formula, source = (str(getattr(cls, key, "")) for key in ("formula", "source"))
    return {"name": name, "formula": formula, "settings": settings, "source": source}


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value, default=str)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
