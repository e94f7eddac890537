"""What commands print: JSON for programs, plain tables for people. Progress bars and notes go to stderr."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .schemas import SCHEMAS

WIDE = 10_000  # columns of an output that is not a terminal: rows are never folded

# ------------------------------------------------------------------------------------------------- encoding
_PLAIN = str.maketrans({
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2026": "...", "\u202f": " ", "\u00a0": " ",
    "\u2192": "->", "\u25c0": "<", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
    "\u03b1": "alpha",
    **dict.fromkeys("▏▎▍", " "), **dict.fromkeys("▌▋▊▉█", "#"),
    **dict.fromkeys("▁▂", "."), **dict.fromkeys("▃▄▅", "+"), **dict.fromkeys("▆▇", "#"),
})  # fmt: skip
_ERRORS = "mata_interp_plain"


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Characters that an encoding lacks: something similar in ASCII, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(c if c.isascii() else "?" for c in text), error.end


@contextmanager
def any_encoding() -> Iterator[None]:
    """Let stdout and stderr write characters that their encoding lacks (Latin-1, cp1252) as similar ones."""
    codecs.register_error(_ERRORS, _plainer)
    changed = []
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # a replaced or closed stream
            before = stream.errors
            stream.reconfigure(errors=_ERRORS)  # type: ignore[union-attr]
            changed.append((stream, before))
    try:
        yield
    finally:
        for stream, before in changed:
            with suppress(ValueError, OSError):
                stream.reconfigure(errors=before)


# ----------------------------------------------------------------------------------------------------- JSON
def print_result(command: str, values: Mapping[str, Any]) -> None:
    """Print the result of ``command`` as JSON; its keys are those that `SCHEMAS` documents."""
    schema = SCHEMAS[command]
    assert set(values) == set(schema.keys), f"{command}: {set(values) ^ set(schema.keys)}"
    _print_json({"schema": schema.id, **values})


def print_forecast(command: str, forecast: Any, out: Any, as_json: bool) -> None:
    """Print what a command would do, and where it would write."""
    if as_json:
        print_result(command, {**forecast.to_dict(), "out": out})
    else:
        print(forecast if out is None else f"{forecast}\nTo be written: {out}")


def print_json_error(kind: str, message: str) -> None:
    """Print an error as JSON on stdout."""
    _print_json({"schema": SCHEMAS["error"].id, "error": {"type": kind, "message": message}})


def _print_json(value: Any) -> None:
    """``value`` as JSON on stdout; NaN and infinities become null."""
    from ..execution.files import plain

    text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(plain(value), indent=1, allow_nan=False)
    print(text)


# --------------------------------------------------------------------------------------------- for people
def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, the first to the left and the others to the right.

    In a terminal, long cells are folded to its width; elsewhere no row is folded and nothing is coloured.
    """
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold" if terminal else "")
    for number, name in enumerate(head):
        left = number == 0
        table.add_column(Text(name), justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for row in rows:
        table.add_row(*map(Text, row))
    console = _console(sys.stdout)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def print_note(message: str) -> None:
    """One line on stderr."""
    _print_line("note: ", "", message)


def print_status(message: str) -> None:
    """One line on stderr that says what a command works with."""
    _print_line("", "", message)


def print_error(message: str) -> None:
    """One line on stderr that says why a command failed."""
    _print_line("error: ", "bold red", message)


def _print_line(label: str, style: str, message: str) -> None:
    from rich.text import Text

    line = " ".join(option_words(message).split())
    _console(sys.stderr).print(Text(label, style=style) + Text(line, style=""), soft_wrap=True)


def _console(stream: Any) -> Any:
    """A rich console on ``stream``: colours and folding in a terminal only."""
    from rich.console import Console

    terminal = stream.isatty()
    return Console(
        file=stream, width=None if terminal else WIDE, color_system="auto" if terminal else None,
        highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip


# ------------------------------------------------------------------------ Python arguments -> option names
_OPTIONS = {
    "out": "--out", "path": "--benchmark", "audio_root": "--audio-root", "fields": "--fields",
    "device": "--device", "device_map": "--device-map", "dtype": "--dtype",
    "attn_implementation": "--attn-implementation", "quantization_config": "--load-in",
    "revision": "--revision", "chat_template": "--chat-template",
    "subset": "--subset", "layers": "--layers", "alpha": "--alpha", "rule": "--rule", "heads": "--heads",
    "keys": "--keys", "queries": "--queries", "phase": "--phase", "criteria": "--criteria",
    "query": "--query", "prompt_format": "--prompt", "max_new_tokens": "--max-new-tokens",
    "temperature": "--temperature",
    "top_p": "--top-p", "seed": "--seed", "batch_size": "--batch-size",
}  # fmt: skip
_ARGUMENT = re.compile(rf"(?<![\w.-])({'|'.join(_OPTIONS)})=(\.\.\.)?")
_SPLIT = re.compile(r"""items\.split\(['"](\w+)['"]\)""")


def option_words(message: str) -> str:
    """A message of the library in the words of the command line: ``out=...`` -> ``--out``."""
    message = _SPLIT.sub(r"--split \1", message)
    return _ARGUMENT.sub(lambda match: _OPTIONS[match[1]] + ("" if match[2] else " "), message)


# --------------------------------------------------------------------------------------------------- people
def progress() -> bool:
    """Whether other libraries may draw progress bars: stderr is a terminal."""
    return sys.stderr.isatty()


@contextmanager
def resumable() -> Iterator[None]:
    """When a long run is interrupted, say how to continue it."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to continue", file=sys.stderr)
        raise
