"""mi.run: every item answered under every condition, into a run folder that survives being killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..benchmarks import Item
from ..lalm.verification import note_unchecked
from .answering import Unit, Work, plan_units
from .claims import Claims
from .conditions import Condition, Edit, named_conditions
from .folder import RunFolder, refuse_other_run
from .manifest import known_beforehand, make_manifest, warn_of_other_machine
from .notices import warn
from .partners import audio_partners
from .ray_backend import RayWorkers, answer_on_ray
from .results import Run, load_run
from .validation import ValidatedItems, validate_items

if TYPE_CHECKING:
    from ..lalm import LALM, Decoding

__all__ = ["run", "run_validated", "warn_of_reuse"]


def run(
    lalm: LALM,
    items: Item | Sequence[Item],
    conditions: Mapping[str, Edit | Condition],
    out: str | Path | None = None,
    *,
    decoding: Decoding | None = None,
    prompt_format: str = "options",
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    ray: RayWorkers | str | bool = False,
    strict: bool = False,
) -> Run:
    """Answer ``items`` under every condition: by the options' log-probabilities, or in words.

    Items that cannot be used are left out, counted and named in the manifest; the others go on. A run that
    was stopped, however rudely, loses at most the batch in hand: the same call again goes on from there, and
    its tables are bit for bit those of a run never stopped (same machine, same number of threads). Several
    processes may be given the same call and share the work.

    Args:
        conditions: name -> None, an intervention, a tuple of them, or a `Condition`, e.g.
            ``{"baseline": None, "mata": Mata(0.1, [3, 4]), "other audio": Condition(audio="other")}``.
        out: the run folder; None keeps the run in memory.
        decoding: how conditions without a decoding of their own are answered; None: by comparing options.
        prompt_format: how items are worded; one of PROMPT_FORMATS.
        batch_size: items in a batch; one that does not fit in memory is halved.
        seed: of the choice whose audio ``audio="other"`` hears.
        ray: spread the batches over a Ray cluster: True for the one there is (or one on this machine), its
            address, or `RayWorkers`.

    Returns:
        the `Run`; ``run.records`` has one row per item and condition.

    Warns:
        RunWarning: items were left out; a part file was damaged and is computed again; an intervention meets
            the clips that it was chosen on.

    Raises:
        RunError: ``out`` cannot be written, or holds a run of another model, other data or other conditions;
            one item alone does not fit in memory; no worker of the Ray cluster can be had.
        InterventionError: a condition names a layer or head that the model does not have.
        ItemError: a sound that was there when the items were checked cannot be read any more.
        ValueError: there is no such ``prompt_format``.

    See Also:
        forecast: what it would do, and about how long that takes.
    """
    named = bound(lalm, conditions, decoding)
    note_unchecked(lalm)
    if out is not None:
        refuse_other_run(Path(out), known_beforehand(lalm, named, batch_size, seed, prompt_format))
    validated = validate_items(lalm, items, progress=progress, format=prompt_format, strict=strict)
    settings = {"batch_size": batch_size, "progress": progress, "seed": seed, "ray": ray}
    return run_validated(lalm, validated, named, out, prompt_format=prompt_format, **settings)


def run_validated(
    lalm: LALM,
    validated: ValidatedItems,
    conditions: Mapping[str, Edit | Condition],
    out: str | Path | None,
    *,
    batch_size: int,
    progress: bool,
    seed: int,
    decoding: Decoding | None = None,
    prompt_format: str = "options",
    label: str = "answering",
    ray: RayWorkers | str | bool = False,
) -> Run:
    """`run` on items that have been looked at already, in the same wording; ``label`` names the bar."""
    named = bound(lalm, conditions, decoding)
    warn_of_reuse(validated, named)
    manifest, work = prepare(lalm, validated, named, batch_size, seed, prompt_format)
    with _place(out) as path:
        folder = RunFolder.start(path, manifest)
        warn_of_other_machine(folder.manifest, manifest)
        _answer(lalm, folder, work, progress, label, RayWorkers.of(ray))
        finished = load_run(path)
    return finished if out is not None else replace(finished, path=None)


@contextmanager
def _place(out: str | Path | None) -> Iterator[Path]:
    """The run folder; for a run kept in memory, one that is gone when the run is done."""
    if out is not None:
        yield Path(out)
        return
    with TemporaryDirectory(prefix="mata-interp-") as folder:
        yield Path(folder)


def bound(
    lalm: LALM, conditions: Mapping[str, Edit | Condition], decoding: Decoding | None
) -> dict[str, Condition]:
    """The conditions by name, their layers and heads checked before anything is computed or written."""
    named = named_conditions(conditions, decoding)
    for condition in named.values():
        for part in condition.interventions:
            part.bind(lalm.structure.heads)
    return named


def prepare(
    lalm: LALM,
    validated: ValidatedItems,
    conditions: Mapping[str, Condition],
    batch_size: int,
    seed: int,
    prompt_format: str,
) -> tuple[dict[str, Any], Work]:
    """The manifest of a run, and what its units need to be computed."""
    hears_others = any(condition.audio == "other" for condition in conditions.values())
    partners = audio_partners(validated.items, seed) if hears_others else {}
    manifest = make_manifest(lalm, validated, conditions, partners, batch_size, seed, prompt_format)
    items = {item.id: item for item in validated.items}
    return manifest, Work(items, dict(conditions), partners, prompt_format)


def _answer(
    lalm: LALM, folder: RunFolder, work: Work, progress: bool, label: str, cluster: RayWorkers | None
) -> None:
    """Compute and write the parts that are missing; what conditions share (sound, prompt) is done once."""
    done, damaged = folder.look()
    if damaged:
        names = ", ".join(damaged[:3])
        warn(f"{folder.path}: {len(damaged)} damaged part(s) are computed again: {names}.")
    units = plan_units(folder.manifest["batches"], work.conditions)
    total = sum(len(unit.conditions) for unit in units)
    left = [unit for unit in units if any((name, unit.batch) not in done for name in unit.conditions)]
    with (
        tqdm(total=total, initial=len(done), desc=label, unit="part", disable=not progress) as bar,
        Claims(folder.path / "claims.lock") as claims,
    ):

        def tell(unit: Unit) -> None:
            bar.update(sum((name, unit.batch) not in done for name in unit.conditions))

        if cluster is not None:
            answer_on_ray(lalm, folder, work, left, claims, tell, cluster)
        else:
            _answer_here(lalm, folder, work, left, claims, tell)
        claims.remove()


def _answer_here(
    lalm: LALM,
    folder: RunFolder,
    work: Work,
    units: Sequence[Unit],
    claims: Claims,
    tell: Callable[[Unit], object],
) -> None:
    for unit in claims.one_by_one(units):
        if missing := folder.missing(unit):
            for name, table in work.answer(lalm, missing).items():
                folder.write_part(name, unit.batch, table)
        tell(unit)


def warn_of_reuse(validated: ValidatedItems, conditions: Mapping[str, Condition]) -> None:
    """Nothing is chosen and tested on the same clips without its reader being told."""
    for name, condition in conditions.items():
        for part in condition.interventions:
            if met := validated.clusters & set(part.chosen_on):
                warn(
                    f"Condition {name!r} was chosen on {len(met)} of the {len(validated.clusters)} clips it "
                    "meets: its effect on them is exploratory. Test it on items.split('confirmation')."
                )
