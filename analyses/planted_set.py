"""How well is the window of layers found on planted models of 8, 16 and 30 layers?

The planted models of mata_interp/organism/planted_set.json have new decoders: other depths, widths and seeds
than the organism, and layouts from one layer of 30 to eight, two windows, decoys, and models that do not use
the audio. Those of support/assembled/planting.py have the pretrained decoder of the assembled model, and need
what analyses/assembled_model.py needs. Three steps:

1. `truth` trains the models that are missing and measures, before any method sees a model, in which layers
   text reads the audio: each layer in turn, and then all layers but one, are kept from the audio in the
   model's own eager attention, on 400 clips of the confirmation recordings.
2. `effects` measures the criteria that decide the recommended window on 200 other clips. What is measured
   ships in analyses/support/planted, so that the third step needs no model.
3. `windows` recommends a window on 200 draws of 12, 24, 50 and 100 clips of each model, and writes them in
   the format that `planted_truth.py --score` reads. Any other method can be scored the same way.

`null` counts windows where there is none: on clips of random sign, and in models that do not use the audio.
`shares` compares the truth with the Shapley value of each layer.
`figure` draws a file of windows.

The rule for the window (mata_interp/fusion/recommend.py and share_window.py) is the third one. It was
designed on retired models, which had been held out for the first two (commits 3e1b107 and 18017fe), and
frozen in commit 0a249bc. The held-out models were named before they were trained (commit b9ee271), and
nothing of them was looked at before the freeze; two more wide models were named after it (commit 45ce1f9), as
in 30-wide-r only two of eight planted layers read the audio, and two on the pretrained decoder (commit
ea55015). measured.json lists models whose truth is known.

\b
Examples
  python analyses/planted_set.py truth --role development
  python analyses/planted_set.py effects 30-narrow
  python analyses/planted_set.py windows windows.json --role held-out
  python analyses/planted_truth.py --score windows.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from support.blindness import margins
from support.planted import measuring
from support.planted.scoring import read_windows, score
from support.planted.shapley import layer_shares, random_orders, shapley_values
from support.planted.sources import Spec, build, clips_for_criteria, clips_for_truth, every_spec
from support.planted.truths import CLIPS, DRAWS, EFFECTS, MEASURED, POOL, read_known
from support.planted.windows import false_windows, recommended_windows

import mata_interp as mi
from mata_interp.organism.planted_growth import ROLES
from mata_interp.ranges import brief
from mata_interp.statistics import proportion

app = typer.Typer(rich_markup_mode=None, add_completion=False, help=__doc__, no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="Planted models [default: all of the role].")]
Role = Annotated[str | None, typer.Option(help=f"{' or '.join(ROLES)} [default: both].")]
Work = Annotated[Path, typer.Option(help="Folder of the trained models.")]
Threads = Annotated[int, typer.Option(min=1, help="Number of CPU threads.")]
WORK = Path("runs/planted-set")


@app.command()
def truth(
    names: Names = None,
    role: Role = None,
    work: Work = WORK,
    threads: Threads = 2,
    train: Annotated[
        bool, typer.Option("--train", help="Train models on the pretrained decoder instead of loading them.")
    ] = False,
    out: Path = MEASURED,
) -> None:
    """Train the models that are missing, and measure which layers need the audio."""
    torch.set_num_threads(threads)
    for spec in _specs(names, role):
        if spec.name in read_known(out):
            continue
        lalm = mi.LALM.from_pretrained(build(spec, work, train))
        known = measuring.measure_truth(lalm, spec, clips_for_truth(spec, work, measuring.TRUTH_CLIPS))
        measuring.store_truth(known, out)
        print(json.dumps(known.to_dict()), flush=True)


@app.command()
def effects(
    names: Names = None,
    role: Role = None,
    work: Work = WORK,
    threads: Threads = 2,
    clips: Annotated[int, typer.Option(help="Number of clips.")] = POOL,
    out: Path = EFFECTS,
) -> None:
    """Measure the deciding criteria of models whose truth is known."""
    torch.set_num_threads(threads)
    known, done = read_known(), measuring.load_effects(out)
    for spec in _specs(names, role):
        if spec.name not in known:
            raise typer.BadParameter(f"The truth of {spec.name} is not measured: run `truth` first.")
        if spec.name not in done:
            items = clips_for_criteria(spec, work, clips)
            measured = measuring.measure_effects(mi.LALM.from_pretrained(build(spec, work)), items)
            measuring.store_effects(spec.name, measured, out)
            print(spec.name, flush=True)


@app.command()
def windows(
    out: Annotated[Path, typer.Argument(help="JSON file to write.")],
    role: Role = None,
    draws: Annotated[int, typer.Option(help="Draws of each model and number of clips.")] = DRAWS,
    resampled: Annotated[int, typer.Option(help="Draws with stability and boundaries.")] = DRAWS,
    sizes: Annotated[list[int] | None, typer.Option(help="Numbers of clips.")] = None,
) -> None:
    """Recommend a window on every draw of clips."""
    known = read_known(role=role)
    measured = {name: parts for name, parts in measuring.load_effects().items() if name in known}
    rows = list(recommended_windows(measured, sizes or CLIPS, draws, resampled))
    out.write_text(json.dumps(rows))
    print(f"{len(rows)} windows of {len(measured)} models: {out}")


@app.command()
def figure(
    windows: Annotated[Path, typer.Argument(help="JSON file of windows.")],
    out: Annotated[Path, typer.Argument(help="PNG file to write.")],
    role: Role = None,
) -> None:
    """Draw how windows overlap with the truth, and what their stability promises."""
    from support.planted.figure import draw

    table = read_windows(windows)
    known = {name: model for name, model in read_known(role=role).items() if name in set(table["plant"])}
    draw(score(table, known), out)
    print(f"Figure: {out}")


@app.command()
def null(
    role: Role = None,
    resamples: Annotated[int, typer.Option(help="Resamples of each number of clips.")] = 1000,
) -> None:
    """Count windows where there is no effect: clips of random sign, and models that do not use the audio."""
    known, effects = read_known(role=role), measuring.load_effects()
    using, silent = (
        {name: effects[name] for name in known if name in effects and bool(known[name].layers) == reads_audio}
        for reads_audio in (True, False)
    )
    for label, some, signs in (("random signs", using, True), ("no use of the audio", silent, False)):
        for size in CLIPS if some else ():
            flags = false_windows(some, size, resamples, signs=signs)
            share = proportion(flags)
            print(
                f"{label}, {len(some)} models, {size} clips: {flags.mean():.3f} "
                f"({share.low:.3f} to {share.high:.3f}) of {resamples}",
                flush=True,
            )


@app.command()
def shares(
    names: Names = None,
    role: Role = None,
    work: Work = WORK,
    threads: Threads = 2,
    clips: Annotated[int, typer.Option(min=2, help="Number of clips.")] = POOL,
    pairs: Annotated[int, typer.Option(min=2, help="Orders of the layers, each with its reverse.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure the Shapley value of each layer of models whose truth is known, by ablation in eager attention.

    The truth takes the mean of two of the costs that a Shapley value is the mean of: that of hiding the audio
    in one layer where it is hidden in no other, and where it is hidden in all others.
    """
    torch.set_num_threads(threads)
    known = read_known()
    for spec in _specs(names, role):
        if spec.name not in known:
            raise typer.BadParameter(f"The truth of {spec.name} is not measured: run `truth` first.")
        lalm, truth = mi.LALM.from_pretrained(build(spec, work)), known[spec.name]
        items = clips_for_truth(spec, work, clips)
        orders = random_orders(spec.num_layers, pairs)
        found = layer_shares(shapley_values(lambda sets, m=lalm, i=items: margins(m, i, sets), orders))
        if as_json:
            values = {name: np.asarray(value).tolist() for name, value in vars(found).items()}
            print(json.dumps({"plant": spec.name, **values, "counts": truth.counts.tolist()}), flush=True)
            continue
        print(f"{spec.name}, planted in {brief(spec.fusion_layers)}: {found.total:.2f} nats, {clips} clips")
        print(f"  at least a fifth of the largest Shapley value: {brief(found.layers)}")
        print(f"  truth: {brief(truth.layers)}")
        for layer in np.argsort(-found.share)[:12]:
            print(
                f"  layer {layer:2}: {found.share[layer]:6.3f} (standard error {found.error[layer]:.3f} over "
                f"clips, {found.sampling[layer]:.3f} over orders); counts {truth.counts[layer]:6.3f}",
                flush=True,
            )


def _specs(names: list[str] | None, role: str | None) -> list[Spec]:
    specs = every_spec()
    if unknown := sorted({*(names or ())} - {*specs}):
        raise typer.BadParameter(f"There are no planted models {unknown}: choose from {sorted(specs)}.")
    return [
        spec for spec in specs.values() if (not names or spec.name in names) and role in (None, spec.role)
    ]


if __name__ == "__main__":
    app()
