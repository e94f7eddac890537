"""mi.run: answer every item under every condition, into a resumable run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..benchmarks import Item
from ..execution import RayWorkers, open_cluster
from ..execution.claims import UnitClaims
from ..execution.notices import warn
from ..execution.units import compute_here
from ..lalm.verification import note_unchecked
from ..progress import announce, progress_bar
from .answering import Unit, Work, plan_units
from .conditions import Condition, Edit
from .folder import RunFolder, refuse_other_run
from .manifest import known_beforehand, warn_of_other_machine
from .planning import StageSettings
from .preparation import bind_conditions, prepare
from .results import Run, load_run
from .run_forecast import forecast_of
from .validation import ValidatedItems, validate_items

if TYPE_CHECKING:
    from ..lalm import LALM, Decoding

__all__ = ["run", "run_validated", "warn_of_reuse"]


def run(  # noqa: PLR0913 one keyword per setting of a run
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
    """Answer ``items`` under every condition, by the options' log-probabilities or by generation.

    Items that cannot be used are left out, counted and named in the manifest. Runs are resumable: the same
    call continues a run that was stopped, which loses at most one batch, and its tables are bit for bit
    those of an uninterrupted run (on the same machine with the same number of threads). Several processes
    can make the same call and share the work.

    Args:
        lalm: The model.
        items: One or several items.
        conditions: Name -> None, an intervention (also one of the catalogue, or a registered one of yours), a
            tuple of them, applied in order, or a `Condition`, e.g.
            ``{"baseline": None, "mata": Mata(0.1, [3, 4]), "other audio": Condition(audio="other")}``.
        out: The run folder; None keeps the run in memory.
        decoding: Decoding of conditions that have none of their own; None: compare the options.
        prompt_format: Prompt format, one of PROMPT_FORMATS.
        batch_size: Number of items per batch; a batch that does not fit in memory is halved.
        progress: Report progress, and at the start what will be done.
        seed: Seed of the choice whose audio ``audio="other"`` uses.
        ray: Use a Ray cluster: True for the available one (or one on this machine), its address, or
            `RayWorkers`.
        strict: Raise for an item that cannot be used, instead of leaving it out with a warning.

    Returns:
        The `Run`; ``run.records`` has one row per item and condition.

    Warns:
        RunWarning: Items were left out; a part file was damaged and is computed again; an intervention is
            applied to clips that it was chosen on.

    Raises:
        RunError: ``out`` cannot be written, or holds a run of another model, other data or other conditions;
            one item alone does not fit in memory; no worker of the Ray cluster is available.
        InterventionError: A condition names a layer, head or site that the model does not have, or a method
            that is not registered.
        ItemError: An item cannot be used, and ``strict`` is set; or an audio file that was validated cannot
        be
            read any more.
        ValueError: ``prompt_format`` is unknown.

    See Also:
        forecast: What the run would do, and about how long it takes.

    >>> import mata_interp as mi
    >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(2)
    >>> run = mi.run(lalm, items, {"baseline": None, "mata": mi.Mata(2.0, [4, 5])}, progress=False)
    >>> run.roles
    {'baseline': 'baseline', 'mata': 'mata'}
    """
    named = bind_conditions(lalm, conditions, decoding)
    note_unchecked(lalm)
    if out is not None:
        out = Path(out).expanduser()
        refuse_other_run(out, known_beforehand(lalm, named, batch_size, seed, prompt_format))
    validated = validate_items(lalm, items, progress=progress, format=prompt_format, strict=strict)
    settings = StageSettings(batch_size, progress, seed, prompt_format, ray)
    return run_validated(lalm, validated, named, out, settings, forecasts=progress)


def run_validated(
    lalm: LALM,
    validated: ValidatedItems,
    conditions: Mapping[str, Condition],
    out: str | Path | None,
    settings: StageSettings,
    label: str = "answering",
    forecasts: bool = False,
) -> Run:
    """`run` on validated items of the same prompt format.

    Args:
        lalm, validated, conditions, out, settings: What is asked of whom, where it is written, and how.
        label: Name of the stage.
        forecasts: Whether to say on stderr what will be done before it starts.
    """
    warn_of_reuse(validated, conditions)
    manifest, work = prepare(lalm, validated, conditions, settings)
    with _run_folder(out) as path:
        folder = RunFolder.start(path, manifest)
        warn_of_other_machine(folder.manifest, manifest)
        if forecasts:
            announce(str(forecast_of(lalm, validated, work, folder, settings, manifest)))
        _answer(lalm, folder, work, settings, label)
        finished = load_run(path)
    return finished if out is not None else replace(finished, path=None)


@contextmanager
def _run_folder(out: str | Path | None) -> Iterator[Path]:
    """The run folder; for a run kept in memory, a temporary one."""
    if out is not None:
        yield Path(out)
        return
    with TemporaryDirectory(prefix="mata-interp-") as folder:
        yield Path(folder)


def _answer(lalm: LALM, folder: RunFolder, work: Work, settings: StageSettings, label: str) -> None:
    """Compute and write the missing parts; what conditions share (audio, prompt) is computed once."""
    done, damaged = folder.scan_parts()
    if damaged:
        names = ", ".join(damaged[:3])
        warn(f"{folder.path}: {len(damaged)} damaged part(s) are computed again: {names}.")
    units = plan_units(folder.manifest["batches"], work.conditions)
    total = sum(len(unit.conditions) for unit in units)
    left = [unit for unit in units if any((name, unit.batch) not in done for name in unit.conditions)]
    with (
        progress_bar(label, total, "part", settings.progress, len(done)) as bar,
        UnitClaims(folder.path / "claims.lock") as claims,
    ):

        def update(unit: Unit) -> None:
            bar.update(sum((name, unit.batch) not in done for name in unit.conditions))

        if left:
            with open_cluster(lalm, settings.ray) as cluster:
                compute = compute_here if cluster is None else cluster.compute
                compute(lalm, work, left, folder, claims, update)
        compaction = units[-1].number + 1 if units else 0
        if claims.claim(compaction):  # another process may be at it
            folder.compact()
            claims.release(compaction)
        claims.remove()


def warn_of_reuse(validated: ValidatedItems, conditions: Mapping[str, Condition]) -> None:
    """Warn of conditions that were chosen on clips that they are tested on."""
    for name, condition in conditions.items():
        for part in condition.interventions:
            if reused := validated.clusters & set(getattr(part, "chosen_on", ())):
                warn(
                    f"Condition {name!r} was chosen on {len(reused)} of the {len(validated.clusters)} clips "
                    "of this run, so its effect on them is exploratory. Test it on "
                    "items.split('confirmation')."
                )
