"""The options that several commands share: one definition of name, type, default and help each.

`ORDER` is the order in which every command lists its options; a test compares all commands with it.
An option that is None was not used: the command then takes the default that the help names. That is also how
a command notices an option that needs another one.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from ..defaults import MAX_NEW_TOKENS
from ..errors import unknown_name
from ..load_options import DTYPES, LoadOptions
from ..ranges import layers_in

AUTO = "auto"  # --layers auto: the layers that mi.fusion_layers finds
THIS_CLUSTER = "here"  # the value of --ray without an address
DEFAULT_MODEL = "organism"
DEFAULT_ALPHA = 0.1
DEFAULT_RULE = "abs"
BATCH_SIZE = 16
DTYPE_NAMES = (*DTYPES, "auto")

ORDER = (
    "--model", "--device", "--device-map", "--dtype", "--attn-implementation", "--load-in", "--revision",
    "--chat-template", "--thinking", "--benchmark", "--audio-root", "--fields", "--subset", "--split",
    "--items", "--choices", "--together", "--caption",
    "--layers", "--widths", "--alpha", "--rule", "--heads", "--keys", "--queries", "--phase", "--grid",
    "--method", "--set", "--list-methods",
    "--search", "--crossfit", "--shams", "--repeat-baseline", "--option-order", "--samples", "--plan",
    "--preregister", "--criteria", "--query", "--prompt", "--generate", "--max-new-tokens", "--temperature",
    "--top-p",
    "--add-items", "--paper", "--out", "--figure", "--profiles", "--seed", "--batch-size", "--dry-run",
    "--ray", "--workers", "--gpus-per-worker", "--json",
)  # fmt: skip


class RayCommand(TyperCommand):
    """A command whose ``--ray`` takes an optional address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``args`` after a value is inserted after each ``--ray`` that has none."""
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


def parse_dtype(text: str) -> str:
    """``bf16`` or ``bfloat16`` -> ``bf16``, and so on; ``auto``."""
    short = {long: short for short, long in DTYPES.items()}
    name = short.get(text.lower(), text.lower())
    if name not in DTYPE_NAMES:
        raise typer.BadParameter(unknown_name("dtype", text, DTYPE_NAMES))
    return name


def parse_path(text: str) -> Path:
    """A path; ``~`` is the home folder."""
    return Path(text).expanduser()


# --------------------------------------------------------------------------------------------------- model
_MODELS = "organism or organism-unbiased (both ship with the package), a folder, or a Hugging Face id."
ModelArgument = Annotated[
    str | None, typer.Argument(metavar="MODEL", show_default=False, help="The same as --model.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help=f"Model to use: {_MODELS} Default: organism."),
]

# ------------------------------------------------------------------------------- how the model is loaded
_LOADING: dict[str, Any] = {
    "device": Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Device that runs the model: cpu, cuda, cuda:1 or mps. Default: the GPU if there is one, "
            "else the CPU.",
        ),
    ],
    "device_map": Annotated[
        str | None,
        typer.Option(
            "--device-map",
            metavar="NAME|FILE",
            help="Split a model that one device cannot hold: auto (all GPUs, then the CPU's memory), "
            "balanced, sequential, or a JSON file that names a device for each module. Replaces --device.",
        ),
    ],
    "dtype": Annotated[
        str | None,
        typer.Option(
            "--dtype",
            parser=parse_dtype,
            metavar="|".join(DTYPE_NAMES),
            help="Precision of the weights; fp32 takes twice the memory of bf16 and fp16. Default: auto, "
            "that of the checkpoint.",
        ),
    ],
    "attn_implementation": Annotated[
        str | None,
        typer.Option(
            "--attn-implementation",
            metavar="NAME",
            help="Attention kernel: sdpa, flash_attention_2 (needs the package flash-attn, a CUDA GPU, and "
            "bf16 or fp16), eager (plain and slow) or another of transformers. Default: sdpa where the model "
            "has it.",
        ),
    ],
    "load_in": Annotated[
        Literal["4bit", "8bit"] | None,
        typer.Option(
            "--load-in",
            help="Quantise the weights while they are loaded (needs the package bitsandbytes): 8bit takes "
            "about half of the memory of bf16, 4bit about a quarter. Default: as they are stored.",
        ),
    ],
    "revision": Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="NAME",
            help="Branch, tag or commit of a model on the Hugging Face hub. Default: main.",
        ),
    ],
    "chat_template": Annotated[
        Path | None,
        typer.Option(
            "--chat-template",
            parser=parse_path,
            metavar="FILE",
            help="Jinja file in place of the chat template of the model's processor, which may have none.",
        ),
    ],
    "thinking": Annotated[
        Literal["close", "through", "refuse"] | None,
        typer.Option(
            help="Where the chat template ends in an open thought (<think>), before options are compared or "
            "attention is measured: close it, let the model think through it, or refuse. Generated answers "
            "begin inside the thought in any case. Default: close.",
        ),
    ],
}
AS_STORED = LoadOptions()
"""The loading options of a command that uses none of them."""


def with_load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how its model is loaded, in place of its parameter ``loading``.

    The parameter receives a `LoadOptions`; pass it to `check_loading`, then to `load_model`.
    """

    def load_options(load_in: str | None, **more: Any) -> LoadOptions:
        return LoadOptions(quantization_config=load_in, **more)

    return with_options(command, "loading", _LOADING, load_options)


def with_options(
    command: Callable[..., Any], parameter: str, options: Mapping[str, Any], build: Callable[..., Any]
) -> Callable[..., Any]:
    """A command with several options in place of one parameter, which receives what is built of them.

    Args:
        command: a function from which typer makes a command.
        parameter: the name of the parameter to replace.
        options: name -> annotated type of each option; their defaults are None.
        build: called with the values of the options by name.
    """
    signature = inspect.signature(command, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=option)
        for name, option in options.items()
    ]
    parameters: list[inspect.Parameter] = []
    for name, parameter_of_command in signature.parameters.items():
        parameters += shared if name == parameter else [parameter_of_command]

    @functools.wraps(command)
    def expanded(**values: Any) -> Any:
        built = build(**{name: values.pop(name, None) for name in options})
        return command(**values, **{parameter: built})

    expanded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {one.name: one.annotation for one in parameters}
    return expanded


# ---------------------------------------------------------------------------------------------------- items
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
        "published strength; in `sweep` 0.1,0.25,0.5,1,2, or 1 with --layers each or heads; `study` chooses "
        "from the list, 0.1,0.25,0.5,1,2 by default; `trace` takes one number.",
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
        help="Tokens whose attention scores are edited: audio, audio_1, audio_2, ... (one clip of several), "
        "text, question, options, caption, template, sink, generated, or its parts reasoning and answer. "
        "Default: audio.",
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
        "scored) or both; with --generate also reasoning (inside a thought) or answer (after it). "
        "Default: both.",
    ),
]
GridFile = Annotated[
    Path | None,
    typer.Option(
        "--grid",
        parser=parse_path,
        metavar="FILE",
        help="Edits from a JSON or TOML file, one entry each: name -> alpha, layers, rule, heads, keys, "
        "queries, phase; or method and its settings. Replaces those options.",
    ),
]

MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="Apply a method of the catalogue, or of an installed package, in place of MATA, such as "
        "InstABoost; --list-methods lists them. --layers says where.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the method (with --method), such as --set factor=2; repeat it for more. Default: "
        "the published ones.",
    ),
]
ListMethods = Annotated[
    bool,
    typer.Option("--list-methods", help="Print the methods with formula, settings and source, and stop."),
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
    bool | None,
    typer.Option(
        "--generate", help="Generate answers as text instead of comparing the options' log-probabilities."
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
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
BatchSize = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Items per batch; `layers` measures the items of a batch one by one, and writes them together.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Write nothing; print which items would be used, and about how much time and memory it takes.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
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
class ClusterOptions:
    """``--ray``, ``--workers`` and ``--gpus-per-worker``; None where an option was not used."""

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None

    @property
    def ray(self) -> Any:
        """The argument ``ray`` of the library's functions."""
        if self.address is None:
            return False
        from ..execution import RayWorkers

        address = None if self.address == THIS_CLUSTER else self.address
        return RayWorkers(address=address, workers=self.workers, gpus=self.gpus)


@dataclass(frozen=True)
class AnswerOptions:
    """``--generate`` and the options of decoding; None where an option was not used."""

    generate: bool | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None

    def decoding(self, seed: int) -> Any:
        """The argument ``decoding`` of the library's functions; None without ``--generate``."""
        if not self.generate:
            return None
        from ..lalm import Decoding

        return Decoding(
            self.max_new_tokens or MAX_NEW_TOKENS,
            self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=seed,
        )


NO_CLUSTER, NO_ANSWERS = ClusterOptions(), AnswerOptions()
_CLUSTER: dict[str, Any] = {"address": Ray, "workers": Workers, "gpus": GpusPerWorker}
_ANSWERS: dict[str, Any] = {
    "generate": Generate,
    "max_new_tokens": MaxNewTokens,
    "temperature": Temperature,
    "top_p": TopP,
}


def with_cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a Ray cluster, in place of its parameter ``cluster``.

    The parameter receives `ClusterOptions`; pass it to `check_cluster_options` before a model is loaded.
    """
    return with_options(command, "cluster", _CLUSTER, ClusterOptions)


def with_answer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of generated answers, in place of its parameter ``answers``.

    The parameter receives `AnswerOptions`; pass it to `check_answer_options` before a model is loaded.
    """
    return with_options(command, "answers", _ANSWERS, AnswerOptions)
