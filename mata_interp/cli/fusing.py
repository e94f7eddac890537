"""`mata-interp layers`, and the layers that ``--layers FILE|auto`` stands for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mata_interp as mi

from ..errors import RunError
from ..fusion import CRITERIA, criteria_named
from ..ranges import brief, layer_range
from ..reporting.wording import count, printable
from .opening import Source, open_model
from .options import AUTO
from .output import print_json, print_table, progress

if TYPE_CHECKING:
    from ..benchmarks import Items
    from ..lalm import LALM

__all__ = ["ITEMS", "layers_of_benchmark", "layers_wanted"]

ITEMS = 96  # of the selection split, if nobody says how many; see analyses/planted_truth.py
HEADS = 6  # that are named; all are in the JSON


def layers_of_benchmark(
    model: str,
    source: Source,
    items: int | None,
    split: str,
    criteria: Sequence[str] | None,
    out: Path | None,
    figure: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Find, write, print; the arguments are those of the command."""
    criteria = criteria_named(criteria)  # before a model is loaded
    data, lalm = source.open(), open_model(model)
    chosen = (
        _selection(data, seed, items or ITEMS) if split == "selection" else data.sample(items or ITEMS, seed)
    )
    found = mi.fusion_layers(lalm, chosen, criteria=criteria, seed=seed, progress=progress())
    if out:
        found.save(out)
    if figure:
        mi.figure(found).savefig(figure, dpi=200)
    if as_json:
        print_json(found.to_dict())
        return
    where = f"{count(found.profiles.sizes['item'], 'item')} of {count(len(found.chosen_on), 'clip')}"
    print(f"{printable(lalm.name)} on {printable(data.name)}, {split}: {where}\n")
    rows = []
    for name, window in found.windows.items():
        agreed = found.agreement.loc["window", name]
        rows.append([CRITERIA[name].label, CRITERIA[name].evidence, layer_range(window), f"{agreed:.2f}"])
    print_table(["criterion", "evidence", "layers", "overlap"], rows)
    for name, reason in found.refused.items():
        print(f"{CRITERIA[name].label}: not measured: {printable(reason)}")
    print(f"\nWindow for MATA: {layer_range(found.window)}\n{printable(found.summary)}")
    if found.heads is not None:
        print(_heads(found))
    if found.excluded:
        print(f"{count(len(found.excluded), 'item')} left out, the first: {printable(found.excluded[0])}")
    for name, path in (("profile", out), ("figure", figure)):
        if path:
            print(f"The {name}: {path}")


def _heads(found: mi.FusionProfile) -> str:
    """Which heads carry the sound to the answer, and how much of it."""
    told = [
        f"{layer}.{head} {value:+.2f} ({low:.2f} to {high:.2f})"
        for layer, head, value, low, high in found.audio_heads.head(HEADS).itertuples(index=False)
    ]
    if not told:
        return "No head adds to the answer from the sound by direct attribution: no interval is above 0."
    return (
        "Heads that carry the sound to the answer, layer.head, logits by direct attribution (95 % intervals, "
        f"each head by itself; {len(told)} of {len(found.audio_heads)} above 0): {'; '.join(told)}"
    )


def layers_wanted(wanted: Any, lalm: LALM, data: Callable[[], Items], seed: int = 0) -> Any:
    """What to give to ``Mata(layers=...)`` for the value of ``--layers``.

    Args:
        wanted: a tuple of layers or None, which come back as they are; a file, or ``auto``.
        data: the items whose selection split ``auto`` looks at.
    """
    if isinstance(wanted, Path):
        return _read(wanted, lalm)
    if wanted != AUTO:
        return wanted
    names = ("knockout_text", "knockout_last", "restoration_audio")
    chosen = _selection(data(), seed, ITEMS)
    found = mi.fusion_layers(lalm, chosen, criteria=names, seed=seed, progress=progress())
    where = f"{count(len(chosen), 'item')} of the selection split of {printable(chosen.name)}"
    print(f"note: --layers auto, on {where}: {printable(found.summary)}", file=sys.stderr)
    return found


def _selection(data: Items, seed: int, limit: int) -> Items:
    """Of the selection split, items without a caption where there are such: a clip asked about three times is
    still one clip, and it is clips that intervals count."""
    chosen = data.split("selection", seed=seed)
    if not len(chosen):
        raise RunError(f"{data.name} has no item in its selection split.")
    plain = chosen.filter(condition="neutral")
    return (plain if len(plain) else chosen).sample(limit, seed=seed)


def _read(path: Path, lalm: LALM) -> Any:
    """A profile, or a hand-written ``{"window": [3, 4, 5]}``."""
    try:
        data = json.loads(path.read_text("utf-8"))
        window = tuple(int(layer) for layer in data["window"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f'cannot read layers from {path}: {error!r}. Give {{"window": [3, 4, 5]}}.') from error
    if "chosen_on" not in data:
        return window
    found = mi.FusionProfile.load(path)
    if found.model != lalm.name:
        told = f"layers {brief(found.window)} of {path} were found in {found.model}, not in {lalm.name}"
        print(f"note: {printable(told)}.", file=sys.stderr)
    return found
