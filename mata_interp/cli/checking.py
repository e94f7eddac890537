"""`mata-interp check`: does every instrument tell the truth on this model?"""

from __future__ import annotations

import typer

import mata_interp as mi

from ..errors import ModelError
from .output import print_json, progress


def check_model(model: str, dtype: str | None, as_json: bool) -> None:
    """Check and print; exit with 1 unless the report is ok. The arguments are those of the command."""
    if not progress():
        from transformers.utils import logging

        logging.disable_progress_bar()
    try:
        report = mi.check(mi.LALM.from_pretrained(model, dtype=dtype))
    except ModelError as error:
        if not as_json:
            raise
        print_json({"model": model, "ok": False, "error": str(error), "results": []})
        raise typer.Exit(1) from error
    if as_json:
        print_json(report.to_dict())
    else:
        print(report)
    if not report.ok:
        raise typer.Exit(1)
