"""Options that several commands share, and how ranges and lists are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import unknown_name
from ..ranges import layers_in

AUTO = "auto"  # layers that mi.fusion_layers finds
HERE = "here"  # what a bare --ray stands for


class WithRay(TyperCommand):
    """A command whose ``--ray`` may stand alone or be followed by an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, after a bare ``--ray`` was given its value."""
        followed = [*args[1:], "-"]
        return super().parse_args(
            ctx,
            [
                f"--ray={HERE}" if word == "--ray" and after.startswith("-") else word
                for word, after in zip(args, followed, strict=True)
            ],
        )


def parse_layers(text: str) -> tuple[int, ...]:
    """``3-5,9`` -> ``(3, 4, 5, 9)``: ranges hold both their ends."""
    try:
        return layers_in(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def parse_rule(name: str) -> str:
    """The name of a registered rule; refused, with the nearest name, before a model is loaded."""
    from ..interventions import RULES

    return _known("rule", name, RULES)


def parse_phase(name: str) -> str:
    """The name of a phase."""
    from ..interventions.selection import PHASES

    return _known("phase", name, PHASES)


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    if name not in known:
        raise typer.BadParameter(unknown_name(kind, name, known))
    return name


def parse_chosen(text: str) -> tuple[int, ...] | str | Path:
    """A range, or where else layers come from: ``auto``, or a file that `mata-interp layers` wrote."""
    if text.strip().lower() == AUTO:
        return AUTO
    if text.strip().lower().endswith(".json") or Path(text).is_file():
        return Path(text)
    return parse_layers(text)


def parse_choices(text: str) -> tuple[str, ...]:
    """``a dog,a bell`` -> ``("a dog", "a bell")``; with a semicolon anywhere, semicolons separate."""
    return tuple(part.strip() for part in text.split(";" if ";" in text else ","))


Model = Annotated[
    str, typer.Option(help="organism or organism-unbiased (they ship), a folder, or a Hugging Face id.")
]
Benchmark = Annotated[
    str,
    typer.Option(
        help="listening (it ships); a JSON, JSONL or CSV file in MMAU's or MMAR's format, or any with "
        "--fields; a dataset's folder; or hf:owner/name."
    ),
]
AudioRoot = Annotated[
    Path | None, typer.Option(help="Folder of the sounds, if it is not the benchmark file's own.")
]
Fields = Annotated[
    str | None,
    typer.Option(help="Field mapping: a JSON file, or mmsu, mmau-pro, air-bench, mcr-bench, alme."),
]
Subset = Annotated[
    str | None,
    typer.Option(help="Only the records with this split, e.g. test-mini; of a dataset, the split."),
]
ItemCount = Annotated[
    int | None,
    typer.Option("--items", min=1, metavar="N", help="At most N items, spread over conditions and kinds."),
]
Alpha = Annotated[float, typer.Option(help="MATA's strength; 0.1 is the published one.")]
WHENCE = (
    "Layers that MATA edits, both ends included: 3-5 or 3-5,9; a file that `mata-interp layers` wrote; "
    "or auto: as it finds them on the selection split."
)
Layers = Annotated[
    Any,
    typer.Option(
        parser=parse_chosen,
        metavar="RANGE|FILE|auto",
        help=f"{WHENCE} If not given, the published layers: 10-20 of 28 or 32 layers, the same part of "
        "the depth elsewhere.",
    ),
]
Rule = Annotated[
    str,
    typer.Option(
        parser=parse_rule,
        metavar="RULE",
        help="How scores change: abs, mul, add or another registered rule; which one is the papers' is not "
        "settled.",
    ),
]
Phase = Annotated[
    str,
    typer.Option(
        parser=parse_phase,
        metavar="PHASE",
        help="prefill (the last prompt token), decode (tokens of the answer) or both.",
    ),
]
PromptName = Annotated[
    str, typer.Option("--prompt", help="Wording: options, lmms-eval, official, r1-aqa or kimi.")
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Answer in words, instead of comparing the options.")
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="With --generate: longer answers are cut.")]
Temperature = Annotated[
    float, typer.Option(min=0, help="With --generate: 0 is greedy, else words are drawn.")
]
TopP = Annotated[float, typer.Option(help="With --generate: draw from the likeliest that add up to it.")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]", help="Spread the batches over a Ray cluster: this machine's, or that at ADDRESS."
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="With --ray: how many hold the model; as many as fit if not given.")
]
GpusPerWorker = Annotated[
    float | None, typer.Option("--gpus-per-worker", help="With --ray: GPUs of a worker; may be a fraction.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn at random.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Items answered at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (accuracies and rates are fractions).")]
