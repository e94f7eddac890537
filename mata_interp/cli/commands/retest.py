"""`mata-interp retest`: is the evidence of a shared intervention reproduced here?"""

from __future__ import annotations

from typing import Annotated

import typer

from ...load_options import LoadOptions
from ..checks import check_loading, check_model, usage_error
from ..inputs import Source, load_model
from ..options import (
    AS_STORED,
    AsJson,
    AudioRoot,
    Benchmark,
    Fields,
    Model,
    Subset,
    with_load_options,
)
from ..output import print_result


@with_load_options
def retest(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="Folder of a shared intervention, or its Hugging Face id.",
        ),
    ],
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    as_json: AsJson = False,
) -> None:
    """Measure the evidence of a shared intervention again, with the same items and settings.

    The model is the one that was saved with the intervention, unless --model names another. The evidence is
    reproduced if the change of accuracy has the same direction by its interval, and both intervals overlap.
    Exit code 0 if it is reproduced, else 1.

    \b
    Examples
      mata-interp retest ./my-mata --benchmark listening
      mata-interp retest owner/mata-for-qwen2-audio --benchmark mmau --audio-root ~/mmau
    """
    import mata_interp

    shared = mata_interp.SharedIntervention.read(folder)
    named = None if shared.model is None else shared.model["name"]
    if model_option is None and named is None:
        raise usage_error("the folder names no model.", "--model")
    name = check_model(model_option or str(named))
    check_loading(name, loading)
    data = Source(benchmark, audio_root, fields, subset).usable()
    result = mata_interp.retest(shared, load_model(name, loading), data)
    if as_json:
        print_result("retest", result.to_dict())
    else:
        print(result)
    if not result.reproduced:
        raise typer.Exit(1)
