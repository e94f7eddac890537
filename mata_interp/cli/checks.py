"""Checks of options that run before a model is loaded; each failure is wrong usage, exit code 2."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from ..errors import ArgumentError, RunError, unknown_name
from .options import THIS_CLUSTER, AnswerOptions, ClusterOptions

if TYPE_CHECKING:
    from ..load_options import LoadOptions

FIGURES = (".png", ".svg", ".pdf")
SECONDS = 5.0  # to reach a Ray cluster


def usage_error(message: str, option: str | None = None) -> typer.BadParameter:
    """The error of a wrong value of ``option``."""
    return typer.BadParameter(message, param_hint=option)


def check_name(kind: str, name: str | None, known: Collection[str], option: str) -> None:
    """Refuse a name that is not ``known``; None, an option that was not used, passes."""
    if name is not None and name not in known:
        raise usage_error(unknown_name(kind, name, known), option)


def check_edit(
    rule: str | None = None, keys: str | None = None, queries: str | None = None, phase: str | None = None
) -> None:
    """Refuse unknown names of an edit."""
    from ..interventions import RULES
    from ..interventions.selection import PHASES, QUERIES
    from ..lalm.prompting.groups import GROUPS, SUBGROUPS, is_subgroup

    check_name("rule", rule, RULES, "--rule")
    if keys is None or not is_subgroup(keys):
        check_name("group of tokens", keys, (*GROUPS, "text", *SUBGROUPS), "--keys")
    check_name("kind of queries", queries, QUERIES, "--queries")
    check_name("phase", phase, PHASES, "--phase")


def check_prompt(name: str | None) -> None:
    """Refuse an unknown prompt format."""
    from ..lalm import PROMPT_FORMATS

    check_name("prompt format", name, PROMPT_FORMATS, "--prompt")


def check_needs(used: Mapping[str, Any], needed: str, there: bool) -> None:
    """Refuse options that do nothing without another one.

    Args:
        used: option -> its value, None where it was not used.
        needed: what they need, as on the command line.
        there: whether it is there.
    """
    for option, value in used.items():
        if value is not None and not there:
            raise usage_error(f"it has no effect without {needed}.", option)


def check_excluded(used: Mapping[str, Any], option: str, reason: str) -> None:
    """Refuse options that cannot be used together with ``option``."""
    for other, value in used.items():
        if value is not None:
            raise usage_error(f"it cannot be used with {option}: {reason}.", other)


# ---------------------------------------------------------------------------------------- models and files
def check_model(name: str) -> str:
    """The model to load, ``~`` expanded; a folder that does not exist and a misspelt name are refused."""
    if name in _shipped():
        return name
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if name.startswith((".", "~", os.sep)) or path.is_absolute():
        raise usage_error(f"there is no folder {str(path)!r}.", "MODEL")
    close = difflib.get_close_matches(name, _shipped(), 1, cutoff=0.75) if "/" not in name else []
    if close:
        raise usage_error(
            f"there is no folder {name!r} and no model of that name ships with the package. "
            f"Did you mean {close[0]!r}?",
            "MODEL",
        )
    return name


def check_loading(name: str, options: LoadOptions) -> None:
    """Refuse values that the model cannot be loaded with on this machine.

    Args:
        name: what `model_name` returned.

    Raises:
        ModelError: a package that is needed is not installed.
    """
    from ..lalm import load_values

    if options.device is not None and options.device_map is not None:
        raise usage_error("it cannot be used with --device-map, which splits the model.", "--device")
    if options.revision is not None and (name in _shipped() or Path(name).is_dir()):
        raise usage_error(f"{name!r} is a folder; revisions are those of models on the hub.", "--revision")
    template = options.chat_template
    check_file(None if template is None else Path(template), "--chat-template")
    for option, check, value in (
        ("--device", load_values.device_to_use, options.device),
        ("--attn-implementation", load_values.attention_to_use, options.attn_implementation),
        ("--device-map", lambda kind: load_values.map_to_use(None, kind), with_map(options).device_map),
    ):
        try:
            check(value)
        except ArgumentError as error:
            raise usage_error(str(error), option) from error
    load_values.check_quantization(options.quantization_config)


def with_map(options: LoadOptions) -> LoadOptions:
    """The options with the map of devices that ``--device-map FILE`` names.

    Raises:
        BadParameter: there is no such file, or it is not JSON of the form module -> device.
    """
    device_map = options.device_map
    if not isinstance(device_map, str) or not device_map.lower().endswith(".json"):
        return options
    path = Path(device_map).expanduser()
    check_file(path, "--device-map")
    try:
        devices = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise usage_error(f"cannot read {str(path)!r}: {error}.", "--device-map") from error
    if not isinstance(devices, dict):
        raise usage_error(f'{str(path)!r} must hold {{"module": "device", ...}}.', "--device-map")
    return replace(options, device_map=devices)


def _shipped() -> Collection[str]:
    from ..lalm.loading import SHIPPED

    return SHIPPED


def check_file(path: Path | None, option: str) -> None:
    """Refuse a file that does not exist; None passes."""
    if path is None:
        return
    if path.is_dir():
        raise usage_error(f"{str(path)!r} is a folder; a file is needed.", option)
    if not path.is_file():
        raise usage_error(f"there is no file {str(path)!r}.", option)


def check_folder(path: Path | None, option: str) -> None:
    """Refuse a folder that does not exist; None passes."""
    if path is not None and not path.is_dir():
        kind = "is a file; a folder is needed" if path.exists() else "does not exist"
        raise usage_error(f"{str(path)!r} {kind}.", option)


def check_out_file(path: Path | None, option: str = "--out", suffixes: tuple[str, ...] = ()) -> None:
    """Refuse a file that cannot be written; None passes."""
    if path is None:
        return
    if path.is_dir():
        raise usage_error(f"{str(path)!r} is a folder; give the name of a file.", option)
    if suffixes and path.suffix.lower() not in suffixes:
        raise usage_error(f"{str(path)!r} must end in one of {', '.join(suffixes)}.", option)
    _check_writable(path.parent, option)


def check_out_folder(path: Path, option: str = "--out") -> None:
    """Refuse a folder that cannot be written."""
    _check_writable(path, option)


def _check_writable(folder: Path, option: str) -> None:
    """The folder, or the nearest one above it that exists, must be a folder that can be written."""
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    if not existing.is_dir():
        raise usage_error(f"{str(existing)!r} is a file, not a folder.", option)
    if not os.access(existing, os.W_OK):
        raise usage_error(f"folder {str(existing)!r} cannot be written.", option)


# -------------------------------------------------------------------------------------------------- cluster
def check_cluster(address: str | None) -> None:
    """Fail soon where Ray is not installed or nothing listens at ``address``.

    Raises:
        RunError: Ray is not installed, or the address does not answer within `SECONDS`.
    """
    if address is None:
        return
    if importlib.util.find_spec("ray") is None:
        raise RunError("Ray is not installed: pip install 'mata-interp[ray]', or run without --ray.")
    if address in (THIS_CLUSTER, "auto", "local"):
        return
    try:
        place = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise usage_error(f"{address!r} is not an address: give host:port or ray://host:port.", "--ray")
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError as error:
        raise RunError(f"No Ray cluster answers at {address}: {error.strerror or error}.") from error


def check_cluster_options(cluster: ClusterOptions) -> None:
    """Refuse options that need ``--ray``, and fail soon where no cluster can be used.

    Raises:
        RunError: see `check_cluster`.
    """
    used = {"--workers": cluster.workers, "--gpus-per-worker": cluster.gpus}
    check_needs(used, "--ray", cluster.address is not None)
    check_cluster(cluster.address)


def check_answer_options(answers: AnswerOptions) -> None:
    """Refuse options that need ``--generate``, and values that make no sense."""
    sampling = {"--temperature": answers.temperature, "--top-p": answers.top_p}
    check_needs(
        {"--max-new-tokens": answers.max_new_tokens, **sampling}, "--generate", bool(answers.generate)
    )
    check_needs({"--top-p": answers.top_p}, "a --temperature above 0", bool(answers.temperature))
    if answers.top_p == 0:
        raise usage_error("it must be above 0.", "--top-p")
