"""`mata-interp check`: are the measurements and edits right on this model?"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ..inputs import load_model, model_name
from ..options import AsJson, Model, ModelArgument
from ..output import print_result


def check(
    model: ModelArgument = None,
    model_option: Model = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Precision of the weights. Default: that of the model's config."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what is measured and edited in a model with plain references, on this machine.

    Attention rows, edits, padding, caches, scores, sweeps and transformer-lens take one line each, in about
    thirty forward passes. Exit code 0 if every check passes or does not apply, else 1.

    In a mixture of experts, rounding can route tokens to other experts. Such runs are compared with the same
    experts in both, and the line says so.

    \b
    Examples
      mata-interp check
      mata-interp check Qwen/Qwen2-Audio-7B-Instruct --dtype bfloat16
      mata-interp check ./my-model --json
    """
    name = model_name(model, model_option)
    import mata_interp

    report = mata_interp.check(load_model(name, dtype=dtype))
    if as_json:
        print_result("check", report.to_dict())
    else:
        print(report)
    if not report.ok:
        raise typer.Exit(1)
