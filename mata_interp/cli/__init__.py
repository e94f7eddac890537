"""The command line, ``mata-interp``.

Exit codes: 0 for success, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C. Nothing slow is imported
until a command runs, so that ``--help`` and shell completion answer at once.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import MataError

PACKAGE = Path(__file__).parents[1]
# transformers imports torchao where it is installed, which then reports kernels that a machine cannot use.
UNINFORMATIVE = ("torchao", "torch.utils._pytree")


def main() -> None:
    """Run the command of ``sys.argv`` and exit with its code.

    A mistake of the user's ends in one line on stderr, or in a JSON object on stdout under ``--json``; an
    error that this package did not raise on purpose keeps its traceback.
    """
    from .app import app
    from .output import any_encoding

    for name in UNINFORMATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    with any_encoding(), _warnings_as_notes():
        try:
            code = app(prog_name="mata-interp", standalone_mode=False)
        except Exception as error:
            code = _report(error)
            if code is None:
                raise
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception) -> int | None:
    """Print a mistake of the user's and return the exit code; None for any other error."""
    from .output import print_error, print_json_error

    # typer may carry its own copy of click, so a usage error is known by its methods, not by its class
    usage = hasattr(error, "format_message") and hasattr(error, "exit_code")
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return error.exit_code  # type: ignore[attr-defined]
    if not usage and not _is_ours(error):
        return None
    message = error.format_message() if usage else str(error)  # type: ignore[attr-defined]
    message = " ".join(message.split())
    if "--json" in sys.argv[1:]:
        from .output import option_words

        print_json_error("UsageError" if usage else type(error).__name__, option_words(message))
    else:
        context = getattr(error, "ctx", None)
        if usage and context is not None:
            print(context.get_usage(), file=sys.stderr)
        print_error(message)
    return error.exit_code if usage else 1  # type: ignore[attr-defined]


def _is_ours(error: Exception) -> bool:
    """Whether this package raised it on purpose: a MataError, or a ValueError raised in its own files."""
    return isinstance(error, MataError) or (
        isinstance(error, ValueError) and _raised_here(error.__traceback__)
    )


def _raised_here(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and PACKAGE in Path(trace.tb_frame.f_code.co_filename).parents


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print warnings of this package as one line each; afterwards they are shown as before."""
    from .output import print_note

    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__module__.startswith("mata_interp"):
            print_note(str(message))
        else:
            before(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


__all__ = ["main"]
