"""The command line: ``mata-interp study | listen | trace | check | run | report | benchmark | organism``.

Nothing heavy is imported until a command runs, so that ``--help`` and shell completion answer at once.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from ..errors import MataError


def main() -> None:
    """Run the command of ``sys.argv``; exit with 1 after an error of ours, with 2 after wrong usage."""
    from .app import app

    warnings.showwarning = _show_warning
    try:
        app(prog_name="mata-interp")
    except MataError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A warning of ours as one line for people; any other as Python shows it."""
    ours = category.__module__.startswith("mata_interp")
    text = f"note: {message}\n" if ours else warnings.formatwarning(message, category, *where[:2])
    sys.stderr.write(text)


__all__ = ["main"]
