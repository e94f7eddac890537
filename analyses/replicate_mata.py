"""Does MATA raise accuracy in a model, as its papers report? All their open choices, on MMAU and MMAR.

The papers (arXiv 2509.18816, Interspeech 2026 #1212) leave several choices open: how scores are raised (rules
abs, mul, add), whether layer 20 is one of layers 10-20, how these layers carry over to another depth, whether
the prompt's last token, the answer's tokens or both are edited, and how the question is worded. This script
runs the baseline and MATA under every combination, with generated answers and with the options'
log-probabilities, beside controls: the same edit of text, of random layers, and of another clip's audio.
Accuracies are official and option-aware, effects are paired, and the papers' numbers stand beside them as the
claims of others. Nothing is chosen: all combinations are one family, corrected together.

Runs are resumable: run the same command again to continue. --dry-run says what would be done, and in how many
GPU hours. MMAU and MMAR have to be downloaded: `mata-interp benchmark list` says from where.

\b
Examples
  python analyses/replicate_mata.py --benchmark mmau=data/mmau --benchmark mmar=data/mmar --dry-run
  python analyses/replicate_mata.py --benchmark mmau=data/mmau/mmau-test-mini.json --device cuda --ray
  python analyses/replicate_mata.py --model organism --benchmark listening --items 24 --rules abs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from support.replication import Choices, conditions_of, forecast_hours, layer_conventions, tables
from support.replication_page import write_page

import mata_interp as mi
from mata_interp.errors import ArgumentError

PROMPTS = "official,lmms-eval,options"


def main(
    model: Annotated[
        str, typer.Option(help="A Hugging Face id, a folder, or organism.")
    ] = "Qwen/Qwen2-Audio-7B-Instruct",
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE or NAME=FOLDER of MMAU or MMAR, or any benchmark; may be repeated."),
    ] = None,
    audio_root: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of the audio, where it is not beside the file.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Strength of MATA; the papers use 0.1.")] = 0.1,
    rules: Annotated[str, typer.Option(help="Rules, separated by commas.")] = "abs,mul,add",
    phases: Annotated[str, typer.Option(help="Phases, separated by commas.")] = "prefill,decode,both",
    layers: Annotated[
        str,
        typer.Option(
            help="Readings of the published layers: absolute or relative depth, layer 20 inclusive or "
            "exclusive, such as absolute-inclusive,relative-exclusive. Default: all that the depth allows."
        ),
    ] = "",
    prompts: Annotated[str, typer.Option(help="Prompt formats, separated by commas.")] = PROMPTS,
    answers: Annotated[
        str, typer.Option(help="How answers are given: generated, scored (the likeliest option) or both.")
    ] = "generated,scored",
    max_new_tokens: Annotated[int, typer.Option(help="Longest generated answer, in tokens.")] = 32,
    random_draws: Annotated[int, typer.Option(help="Draws of random layers, as controls.")] = 3,
    items: Annotated[int | None, typer.Option(help="Use at most this many items, in whole clips.")] = None,
    batch_size: Annotated[int, typer.Option(help="Items per batch.")] = 8,
    device: Annotated[str | None, typer.Option(help="Device, such as cuda:0.")] = None,
    device_map: Annotated[str | None, typer.Option(help="auto splits the model over devices.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16, float32 or auto.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Spread the batches over a Ray cluster.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the runs, the tables and the page.")] = Path(
        "runs/replication"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of samples, draws and tests.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
) -> None:
    """Run every combination, compare, write tables and page."""
    options = {"device": device, "device_map": device_map, "dtype": dtype}
    lalm = mi.LALM.from_pretrained(model, **{name: value for name, value in options.items() if value})
    choices = Choices(
        alpha=alpha,
        rules=_list(rules),
        phases=_list(phases),
        layers=layer_conventions(lalm, _list(layers)),
        answers=_list(answers),
        max_new_tokens=max_new_tokens,
        random_draws=random_draws,
        seed=seed,
    )
    conditions = conditions_of(lalm, choices)
    roots = dict(_named(entry) for entry in audio_root or [])
    runs: dict[tuple[str, str], mi.Run] = {}
    hours: dict[tuple[str, str], float] = {}
    sources = [_named(entry) for entry in benchmark or ["listening"]]
    names = [name for name, _ in sources]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ArgumentError(f"Two benchmarks are named {min(repeated)!r}: write NAME=FILE with other names.")
    for name, source in sources:
        loaded = mi.load_benchmark(source, audio_root=roots.get(name))
        chosen = loaded if items is None else loaded.sample(items, seed=seed)
        for prompt in _list(prompts):
            folder = out / name / prompt
            settings = {"batch_size": batch_size, "seed": seed, "prompt_format": prompt}
            if dry_run:
                hours[name, prompt] = forecast_hours(lalm, chosen, conditions, folder, **settings)
                continue
            runs[name, prompt] = mi.run(lalm, chosen, conditions, folder, ray=ray, **settings)
    if dry_run:
        print(_forecast(hours, len(conditions), lalm))
        return
    effects, accuracies = tables(runs, seed)
    out.mkdir(parents=True, exist_ok=True)
    effects.to_csv(out / "effects.csv", index=False)
    accuracies.to_csv(out / "accuracies.csv", index=False)
    page = write_page(out / "replication.html", lalm, choices, runs, effects, accuracies)
    if as_json:
        frames = {"effects": effects, "accuracies": accuracies}
        texts = {name: str(frame.to_json(orient="records")) for name, frame in frames.items()}
        print(json.dumps({name: json.loads(text) for name, text in texts.items()}))
        return
    print(_summary(effects))
    print(f"\nThe page: {page}")


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _named(entry: str) -> tuple[str, str]:
    """``mmau=data/mmau`` -> its name and where it is; a file or folder alone is named by its own name."""
    name, separator, source = entry.partition("=")
    if separator and not (name and source):
        raise ArgumentError(f"{entry!r}: write NAME=FILE or NAME=FOLDER.")
    return (name, source) if separator else (Path(entry).stem, entry)


def _forecast(hours: dict[tuple[str, str], float], conditions: int, lalm: mi.LALM) -> str:
    lines = [f"{lalm!r}, {conditions} conditions", ""]
    lines += [f"{name}, prompt {prompt}: about {each:.2g} hours" for (name, prompt), each in hours.items()]
    device = "GPU" if lalm.device.type != "cpu" else "CPU"
    return "\n".join([*lines, "", f"Together: about {sum(hours.values()):.2g} {device} hours on one device"])


def _summary(effects: pd.DataFrame) -> str:
    """By benchmark: how many combinations help and harm after correction, and the range of changes."""
    lines = []
    of_mata = effects.loc[effects["role"] == "MATA"]
    for keys, rows in of_mata.groupby(["benchmark", "answers", "score"], sort=False):
        name, answers, score = keys  # type: ignore[misc]
        significant = rows["p_adjusted"] < 0.05
        helps, harms = (
            (significant & (rows["difference"] > 0)).sum(),
            (significant & (rows["difference"] < 0)).sum(),
        )
        low, high = 100 * rows["difference"].min(), 100 * rows["difference"].max()
        lines.append(
            f"{name}, {answers} answers, {score} score: {len(rows)} combinations change accuracy by "
            f"{low:+.1f} to {high:+.1f} points; after correction {helps} raise it and {harms} lower it."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
