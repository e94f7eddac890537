"""The options that several commands share: one definition of name, type, default and help each.

`ORDER` is the order in which every command lists its options; a test compares all commands with it.
An option that is None was not used: the command then takes the default that the help names. That is also how
a command notices an option that needs another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from ..defaults import MAX_NEW_TOKENS
from ..ranges import layers_in

AUTO = "auto"  # --layers auto: the layers that mi.fusion_layers finds
THIS_CLUSTER = "here"  # the value of --ray without an address
DEFAULT_MODEL = "organism"
DEFAULT_ALPHA = 0.1
DEFAULT_RULE = "abs"
BATCH_SIZE = 16

ORDER = (
    "--model", "--dtype", "--benchmark", "--audio-root", "--fields", "--subset", "--split", "--items",
    "--choices", "--caption",
    "--layers", "--widths", "--alpha", "--rule", "--heads", "--keys", "--queries", "--phase", "--grid",
    "--criteria", "--query", "--prompt", "--generate", "--max-new-tokens", "--temperature", "--top-p",
    "--out", "--figure", "--profiles", "--seed", "--batch-size", "--dry-run",
    "--ray", "--workers", "--gpus-per-worker", "--json",
)  # fmt: skip


class RayCommand(TyperCommand):
    """A command whose ``--ray`` takes an optional address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``args`` after a value is put behind each ``--ray`` that has none."""
        following = [*args[1:], "-"]
        completed = [
            f"--ray={THIS_CLUSTER}" if word == "--ray" and after.startswith("-") else word
            for word, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, completed)


def parse_layers(text: str) -> tuple[int, ...]:
    """``3-5,9`` -> ``(3, 4, 5, 9)``: both ends of a range are included."""
    try:
        return layers_in(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def parse_layers_or_source(text: str) -> tuple[int, ...] | str | Path:
    """A range of layers, or where they come from: ``auto``, or a file that `mata-interp layers` wrote."""
    if text.strip().lower() == AUTO:
        return AUTO
    path = Path(text).expanduser()
    if text.strip().lower().endswith(".json") or path.is_file():
        return path
    return parse_layers(text)


def parse_alphas(text: str) -> tuple[float, ...]:
    """``0.5,1,2`` -> ``(0.5, 1.0, 2.0)``, without repeats."""
    try:
        alphas = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number or a list of numbers such as 0.5,1,2.") from None
    for alpha in alphas:
        if not math.isfinite(alpha):
            raise typer.BadParameter(f"alpha is {alpha}: it must be a finite number.")
    return alphas


def parse_list(text: str) -> tuple[str, ...]:
    """``a dog,a bell`` -> ``("a dog", "a bell")``; where there is a semicolon, semicolons separate."""
    return tuple(part.strip() for part in text.split(";" if ";" in text else ","))


def parse_path(text: str) -> Path:
    """A path; ``~`` is the home folder."""
    return Path(text).expanduser()


# ------------------------------------------------------------------------------------------ model and data
_MODELS = "organism or organism-unbiased (both ship with the package), a folder, or a Hugging Face id."
ModelArgument = Annotated[
    str | None, typer.Argument(metavar="MODEL", show_default=False, help="The same as --model.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help=f"Model to use: {_MODELS} Default: organism."),
]
Benchmark = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE|FOLDER",
        help="listening (ships with the package); a JSON, JSONL or CSV file in the format of MMAU or "
        "MMAR, or in any format with --fields; a folder with MMAU or MMAR and its audio, or saved by "
        "`datasets`; mmau or mmar, once downloaded; or hf:owner/name.",
    ),
]
AudioRoot = Annotated[
    Path | None,
    typer.Option(
        parser=parse_path, metavar="FOLDER", help="Folder of the audio files. Default: that of the benchmark."
    ),
]
Fields = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Mapping from columns to fields: a JSON file, or mmsu, mmau-pro, air-bench, mcr-bench or alme.",
    ),
]
Subset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Only records whose split column has this value, such as test-mini."),
]
Split = Annotated[
    Literal["selection", "confirmation", "all"] | None,
    typer.Option(
        help="Which clips: selection (to explore and to choose on), confirmation (to test on) or all. "
        "Default: all; selection for `layers` and `sweep`; confirmation for `run` where its layers were "
        "chosen on clips of the selection split.",
    ),
]
ItemCount = Annotated[
    int | None,
    typer.Option(
        "--items",
        min=1,
        metavar="N",
        help="Use at most N items: whole clips, spread evenly over conditions and kinds of question. "
        "Default: all; 96 for `layers`.",
    ),
]

# ------------------------------------------------------------------------------------------------- the edit
LAYERS_HELP = (
    "Decoder layers to edit, both ends included: 3-5 or 3-5,9; a file written by `mata-interp layers`; or "
    "auto: the layers that `mata-interp layers` finds on the selection split."
)
Layers = Annotated[
    Any,
    typer.Option(
        parser=parse_layers_or_source,
        metavar="RANGE|FILE|auto",
        help=f"{LAYERS_HELP} Default: the published layers, 10-20 of 28 or 32 and the same part of the depth "
        "elsewhere; `study` chooses them.",
    ),
]
Alpha = Annotated[
    tuple | None,
    typer.Option(
        parser=parse_alphas,
        metavar="NUMBER[,...]",
        help="Strength of the edit; a list such as 0.5,1,2 adds one condition for each. Default: 0.1, the "
        "published strength; in `sweep` 0.1,0.25,0.5,1,2, or 1 with --layers each or heads.",
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How attention scores change: abs, mul, add, knockout or another registered rule. It is not "
        "settled which of abs, mul and add the MATA papers use. Default: abs; knockout for `sweep --layers "
        "each` and heads.",
    ),
]
Heads = Annotated[
    tuple | None,
    typer.Option(
        parser=parse_layers, metavar="RANGE", help="Edit only these heads of each layer. Default: all."
    ),
]
Keys = Annotated[
    str | None,
    typer.Option(
        metavar="GROUP",
        help="Tokens whose attention scores are edited: audio, text, question, options, caption, template, "
        "sink or generated. Default: audio.",
    ),
]
Queries = Annotated[
    str | None,
    typer.Option(
        metavar="last|text",
        help="Tokens whose attention is edited: last (the last prompt token) or text (all text after the "
        "audio). Default: last.",
    ),
]
Phase = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="When to edit: prefill (while the prompt is read), decode (while the answer is generated or "
        "scored) or both. Default: both.",
    ),
]
GridFile = Annotated[
    Path | None,
    typer.Option(
        "--grid",
        parser=parse_path,
        metavar="FILE",
        help="Edits from a JSON or TOML file, one entry each: name -> alpha, layers, rule, heads, keys, "
        "queries, phase. Replaces those options.",
    ),
]

# --------------------------------------------------------------------------------------- prompt and answers
PromptFormat = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="FORMAT",
        help="Prompt format: options, lmms-eval (also called letters), official, r1-aqa or kimi. "
        "Default: options.",
    ),
]
Generate = Annotated[
    bool,
    typer.Option(
        "--generate", help="Generate answers as text instead of comparing the options' log-probabilities."
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help=f"Longest generated answer, in tokens; longer ones are cut. Default: {MAX_NEW_TOKENS}.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="NUMBER",
        help="Sampling temperature (with --generate); 0 is greedy decoding. Default: 0.",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="NUMBER",
        help="Nucleus sampling: sample from the smallest set of tokens whose probability exceeds top-p (with "
        "--generate and a temperature above 0). Default: 1, all tokens.",
    ),
]

# ------------------------------------------------------------------------------------------------ execution
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of all random draws.")]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Items per batch.")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Spread the batches over a Ray cluster: the one at ADDRESS (host:port or ray://host:port), or "
        "that of this machine.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Workers that hold the model (with --ray). Default: as many as fit."
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        min=0,
        metavar="NUMBER",
        help="GPUs per worker, possibly a fraction (with --ray). Default: 1 where the cluster has GPUs.",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object (rates are fractions); errors are JSON, too."),
]


def out_option(help_text: str, metavar: str = "FOLDER") -> Any:
    """``--out`` of one command, which says what is written there."""
    return typer.Option("--out", parser=parse_path, metavar=metavar, help=help_text)


@dataclass(frozen=True)
class RunOptions:
    """The options of ``run`` that say how the benchmark is answered; None where an option was not used."""

    layers: Any
    alphas: tuple[float, ...] | None
    rule: str | None
    heads: tuple[int, ...] | None
    keys: str | None
    queries: str | None
    phase: str | None
    grid: Path | None
    prompt: str | None
    generate: bool
    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int
    batch_size: int
    ray: str | None
    workers: int | None
    gpus: float | None
