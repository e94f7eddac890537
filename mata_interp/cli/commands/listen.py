"""`mata-interp listen`: one or several clips, with and without MATA."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...defaults import MAX_NEW_TOKENS
from ...load_options import LoadOptions
from ..checks import check_edit, check_file, check_loading, check_out_file, check_prompt, usage_error
from ..inputs import AutoLayers, Source, load_model, model_name, read_layers, resolve_layers
from ..options import (
    AS_STORED,
    DEFAULT_ALPHA,
    DEFAULT_RULE,
    Alpha,
    AsJson,
    Layers,
    MaxNewTokens,
    Model,
    PromptFormat,
    Rule,
    Seed,
    out_option,
    parse_list,
    parse_path,
    with_load_options,
)
from ..output import print_result


@with_load_options
def listen(  # noqa: PLR0913 a command has one parameter per option
    clips: Annotated[
        list[Path],
        typer.Argument(parser=parse_path, metavar="CLIP...", help="Audio files: WAV, FLAC, OGG or MP3."),
    ],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question about each.")],
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
    choices: Annotated[
        tuple | None,
        typer.Option(
            parser=parse_list,
            metavar="A,B,C",
            help="Answer options (A;B;C if one contains a comma). Default: none, the model answers freely.",
        ),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="Ask one question about all clips, which stand in one prompt.")
    ] = False,
    caption: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="Text shown with the question; it may be wrong. Repeat it to compare."
        ),
    ] = None,
    layers: Layers = None,
    alpha: Alpha = None,
    rule: Rule = None,
    prompt: PromptFormat = None,
    max_new_tokens: MaxNewTokens = None,
    out: Annotated[Path | None, out_option("Write an HTML page with a player to this file.", "FILE")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Ask a question about clips, with and without MATA, and show where in the audio the model attends.

    Several clips are asked about one by one, and stand in one page, as do several captions.

    --seed is used with --layers auto only, which chooses layers on clips of the benchmark that ships.

    \b
    Examples
      mata-interp listen dog.wav "Which animal is it?" --choices "a dog,a cat"
      mata-interp listen dog.wav "Which animal is it?" --choices "a dog,a cat" --caption "A cat meows."
      mata-interp listen dog.wav cat.wav "Which animal is it?" --choices "a dog,a cat" --out animals.html
      mata-interp listen before.wav after.wav "Which is louder?" --choices "the first,the second" --together
      mata-interp listen dog.wav "What do you hear?" --alpha 1 --layers 3-5 --out dog.html
    """
    for clip in clips:
        check_file(clip, "CLIP")
    check_out_file(out)
    check_edit(rule=rule)
    check_prompt(prompt)
    if alpha is not None and len(alpha) > 1:
        raise usage_error("listen takes one strength.", "--alpha")
    if choices is not None and max_new_tokens is not None:
        raise usage_error("it has no effect with --choices, whose options are compared.", "--max-new-tokens")
    layers_option = read_layers(layers)
    name = model_name(None, model_option)
    check_loading(name, loading)
    import mata_interp

    from ...reporting.wording import printable

    lalm = load_model(name, loading)
    edited = resolve_layers(layers_option, lalm, AutoLayers(Source("listening", None, None, None).load, seed))
    listenings = [
        mata_interp.listen(
            lalm,
            audio,
            question,
            choices or (),
            caption=text,
            alpha=alpha[0] if alpha else DEFAULT_ALPHA,
            layers=edited,
            rule=rule or DEFAULT_RULE,
            prompt_format=prompt or "options",
            max_new_tokens=max_new_tokens or MAX_NEW_TOKENS,
        )
        for audio in ([clips] if together else clips)
        for text in (caption or [""])
    ]
    page = mata_interp.save_listenings(listenings, out).resolve() if out else None
    if as_json:
        print_result("listen", {"clips": [one.to_dict() for one in listenings], "page": page})
        return
    for number, listening in enumerate(listenings):
        if len(listenings) > 1:
            print(f"{chr(10) * bool(number)}{printable(listening.name)}")
        print(listening)
    if page:
        print(f"\nThe page: {page.as_uri()}")
