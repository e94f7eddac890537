"""mi.run: every item answered under every condition, into a run folder that survives being killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..benchmarks import Item
from .asking import ask
from .conditions import AudioKind, Condition, Edit, named_conditions
from .folder import RunFolder, refuse_other_run
from .manifest import known_beforehand, make_manifest, warn_of_other_machine
from .notices import warn
from .partners import audio_partners
from .records import answer_records
from .results import Run, load_run
from .vetting import Vetted, vet

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["run", "run_vetted"]


def run(
    lalm: LALM,
    items: Item | Sequence[Item],
    conditions: Mapping[str, Edit | Condition],
    out: str | Path | None = None,
    *,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
) -> Run:
    """Answer ``items`` under every condition by the options' log-probabilities.

    Items that cannot be used are left out, counted and named in the manifest; the others go on. A run that
    was stopped, however rudely, loses at most the batch in hand: the same call again goes on from there, and
    its tables are bit for bit those of a run never stopped (same machine, same number of threads).

    Args:
        conditions: name -> None, an intervention, a tuple of them, or a `Condition`, e.g.
            ``{"baseline": None, "mata": Mata(0.1, [3, 4]), "other audio": Condition(audio="other")}``.
        out: the run folder; None keeps the run in memory.
        batch_size: items in a batch.
        seed: of the choice whose audio ``audio="other"`` hears.

    Returns:
        the `Run`; ``run.records`` has one row per item and condition.

    Warns:
        RunWarning: items were left out; a part file was damaged and is computed again; an intervention meets
            the clips that it was chosen on.

    Raises:
        RunError: ``out`` cannot be written, or holds a run of another model, other data or other conditions.
        InterventionError: a condition names a layer or head that the model does not have.
    """
    named = _bound(lalm, conditions)
    if out is not None:
        refuse_other_run(Path(out), known_beforehand(lalm, named, batch_size, seed))
    vetted = vet(lalm, items, progress=progress)
    return run_vetted(lalm, vetted, named, out, batch_size=batch_size, progress=progress, seed=seed)


def run_vetted(
    lalm: LALM,
    vetted: Vetted,
    conditions: Mapping[str, Edit | Condition],
    out: str | Path | None,
    *,
    batch_size: int,
    progress: bool,
    seed: int,
    label: str = "answering",
) -> Run:
    """`run` on items that have been looked at already; ``label`` names the progress bar."""
    named = _bound(lalm, conditions)
    _warn_of_reuse(vetted, named)
    hears_others = any(condition.audio == "other" for condition in named.values())
    partners = audio_partners(vetted.items, seed) if hears_others else {}
    manifest = make_manifest(lalm, vetted, named, partners, batch_size, seed)
    with _place(out) as path:
        folder = RunFolder.start(path, manifest)
        warn_of_other_machine(folder.manifest, manifest)
        _answer(lalm, folder, vetted, named, partners, progress, label)
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


def _bound(lalm: LALM, conditions: Mapping[str, Edit | Condition]) -> dict[str, Condition]:
    """The conditions by name, their layers and heads checked before anything is computed or written."""
    named = named_conditions(conditions)
    for condition in named.values():
        for part in condition.interventions:
            part.bind(lalm.anatomy.heads)
    return named


def _answer(
    lalm: LALM,
    folder: RunFolder,
    vetted: Vetted,
    conditions: Mapping[str, Condition],
    partners: Mapping[str, Item],
    progress: bool,
    label: str,
) -> None:
    """Compute and write the parts that are missing; what conditions share (sound, prompt) is done once."""
    parts, damaged = folder.read_parts()
    done = set(parts)
    if damaged:
        names = ", ".join(damaged[:3])
        warn(f"{folder.path}: {len(damaged)} damaged part(s) are computed again: {names}.")
    by_id = {item.id: item for item in vetted.items}
    by_audio: dict[AudioKind, list[str]] = {}
    for name, condition in conditions.items():
        by_audio.setdefault(condition.audio, []).append(name)
    batches = [[by_id[item] for item in batch["items"]] for batch in folder.manifest["batches"]]
    total = len(batches) * len(conditions)
    with tqdm(total=total, initial=len(done), desc=label, unit="batch", disable=not progress) as bar:
        for index, batch in enumerate(batches):
            for audio, names in by_audio.items():
                wanted = [name for name in names if (name, index) not in done]
                if not wanted:
                    continue
                prompt, asked = ask(lalm, batch, audio, partners)
                edits = [conditions[name].intervention for name in wanted]
                each = lalm.score_each(prompt, [item.choices for item in batch], edits)
                for name, scores in zip(wanted, each, strict=True):
                    folder.write_part(name, index, answer_records(name, index, batch, asked, scores))
                    bar.update()


def _warn_of_reuse(vetted: Vetted, conditions: Mapping[str, Condition]) -> None:
    """Nothing is chosen and tested on the same clips without its reader being told."""
    for name, condition in conditions.items():
        for part in condition.interventions:
            if met := vetted.clusters & set(part.chosen_on):
                warn(
                    f"Condition {name!r} was chosen on {len(met)} of the {len(vetted.clusters)} clips it "
                    "meets: its effect on them is exploratory. Test it on items.split('confirmation')."
                )
