"""`mata-interp check`: are the measurements and edits right on this model?"""

from __future__ import annotations

import typer

from ...load_options import LoadOptions
from ..checks import check_loading
from ..inputs import load_model, model_name
from ..options import AS_STORED, AsJson, Model, ModelArgument, with_load_options
from ..output import print_result


@with_load_options
def check(
    model: ModelArgument = None,
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
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
      mata-interp check Qwen/Qwen2-Audio-7B-Instruct --dtype bf16
      mata-interp check ./my-model --json
    """
    name = model_name(model, model_option)
    check_loading(name, loading)
    import mata_interp

    report = mata_interp.check(load_model(name, loading))
    if as_json:
        print_result("check", report.to_dict())
    else:
        print(report)
    if not report.ok:
        raise typer.Exit(1)
