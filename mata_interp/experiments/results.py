"""Run: the content of a run folder in memory; `load_run` reads one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import xarray as xr

from ..benchmarks import Exclusion
from ..errors import RunError
from ..execution.notices import warn
from ..markup import frame, line, table
from ..tracing.storage import read_trace, write_trace
from .chance import chance_of
from .comparing import Score, compare_conditions
from .conditions import Condition, Role
from .crossfit_result import CROSSFIT, CROSSFIT_SWEEP, CrossfitResult
from .effects import Effects
from .folder import RunFolder
from .item_recordings import RECORDINGS
from .records import SCHEMA, sort_records
from .registration_check import REGISTRATION, RegistrationCheck
from .repeat_result import REPEAT, RepeatResult
from .schema import read_versioned, write_versioned
from .study_result import StudyResult

__all__ = ["Run", "load_run", "read_effects", "write_effects"]

_OTHER_FILES = (
    "selection.nc",
    "layer-choice.nc",
    "method-study.json",
    "sham.json",
    CROSSFIT_SWEEP,
    RECORDINGS,
)  # not held in memory

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """Conditions, items and answers of a run.

    Attributes:
        path: The run folder; None for a run that was kept in memory.
        manifest: Model, data, conditions, batches, seeds and environment, as in ``manifest.json``.
        records: One row per item and condition, in order of condition, then item;
            `mata_interp.experiments.records.SCHEMA` describes the columns.
        trace: Attention on the selection split, of a study; else None.
        effects: The comparisons of a study and their effects; else None. ``run.effects.to_frame()`` is a
            table.
        study: What a study chose and found; else None.
        crossfit: The effect of the selection procedure, of a study with ``crossfit``; else None.
        registration: Whether a study kept to its preregistration; None where there is none.
        repeat: The baseline repeated at another batch size, of a study with ``repeat_baseline``; else None.
        missing: Number of parts that are still to be computed: 0 for a finished run.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> run = mi.run(lalm, items[:2], {"baseline": None, "mata": mi.Mata(1.0, [4, 5])}, progress=False)
        >>> run.missing, run.records["condition"].unique().tolist()
        (0, ['baseline', 'mata'])
    """

    path: Path | None
    manifest: dict[str, Any]
    records: pd.DataFrame
    trace: xr.Dataset | None = None
    effects: Effects | None = None
    study: StudyResult | None = None
    missing: int = 0
    crossfit: CrossfitResult | None = None
    registration: RegistrationCheck | None = None
    repeat: RepeatResult | None = None

    @property
    def excluded(self) -> tuple[Exclusion, ...]:
        """The items that were left out, with field and reason."""
        if self.study is not None:
            return self.study.excluded
        return tuple(Exclusion(**row) for row in self.manifest["excluded"])

    @cached_property
    def conditions(self) -> Mapping[str, Condition]:
        """Name -> condition, in the order of the manifest."""
        roles = self.manifest.get("roles", {})
        return {
            name: Condition.from_dict(data, roles.get(name))
            for name, data in self.manifest["conditions"].items()
        }

    @property
    def roles(self) -> Mapping[str, Role]:
        """Name of each condition -> its role."""
        return {name: condition.inferred_role for name, condition in self.conditions.items()}

    @property
    def chosen_on(self) -> Mapping[str, frozenset[str]]:
        """Name of each condition -> the clips on which its settings were chosen."""
        return {
            name: frozenset(
                clip for edit in condition.interventions for clip in getattr(edit, "chosen_on", ())
            )
            for name, condition in self.conditions.items()
        }

    def compare(
        self,
        baseline: str = "baseline",
        *,
        score: Score = "correct",
        by: str | None = None,
        conditions: Sequence[str] | None = None,
        correct: str = "max-t",
        seed: int = 0,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Compare each condition with a baseline on the same items: one row each.

        Args:
            baseline: Name of the condition to compare with.
            score: What is compared: ``"correct"``, ``"official"`` (the benchmark's own string match),
                ``"margin"``, or ``"correct_normalised"`` or ``"margin_normalised"`` (per token of an option).
            by: A column of the records, such as ``"kind"``, ``"domain"`` or ``"caption_condition"``: one row
                for each of its values.
            conditions: The conditions to compare; None: all others.
            correct: Correction over all rows: ``"max-t"`` (sign flips of whole clips, keeps the correlation
                of conditions), ``"romano-wolf"`` (the same by bootstrap, for margins whose changes are
                skewed), ``"holm"``, ``"bh"`` (false discovery rate) or ``"none"``.
            seed: Seed of sign flips and bootstraps.
            level: Coverage of the intervals.

        Returns:
            A table with ``n`` items, ``clips``, ``left_out`` (items without a value), ``chance`` (mean of 1 /
            number of options), ``before``, ``after``, ``difference`` with ``low`` and ``high``, ``p``,
            ``p_adjusted`` (both NaN for a condition that was chosen on clips of this run); for correctness
            ``fixed``, ``broken`` and their ``odds_ratio`` with interval; for margins ``standardised``
            (mean / standard deviation of the changes); ``churned`` (from one wrong answer to another),
            ``churn`` (fraction of answers that changed) and ``dose_kl`` (nats).

        Raises:
            ArgumentError: A condition, a column or a correction does not exist, or the run is not finished.

        Examples:
            >>> import mata_interp as mi
            >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
            >>> conditions = {"baseline": None, "mata": mi.Mata(1.0, [4, 5])}
            >>> run = mi.run(lalm, items[:2], conditions, progress=False)
            >>> run.compare()[["condition", "n"]].to_dict("records")
            [{'condition': 'mata', 'n': 2}]
        """
        return compare_conditions(
            self.records,
            baseline,
            score=score,
            by=by,
            conditions=conditions,
            correct=correct,
            seed=seed,
            level=level,
            chosen_on=self.chosen_on,
        )

    def save(self, folder: str | Path) -> Path:
        """Write the run to a folder, which `load` reads back.

        Args:
            folder: A new or empty folder.

        Returns:
            The folder.

        Raises:
            RunError: The folder cannot be written, or holds other files.
        """
        folder = Path(folder).expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} is not an empty folder. Choose another one.")
        written = RunFolder.start(folder, self.manifest)
        by_part = dict(iter(self.records.groupby(["condition", "batch"], sort=False)))
        for condition, batch in written.expected():
            if (condition, batch) in by_part:
                order = self.manifest["batches"][batch]["items"]
                rows = by_part[condition, batch].set_index("item", drop=False).loc[order]
                table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
                written.write_part(condition, batch, table.replace_schema_metadata(None))
        if self.trace is not None:
            write_trace(folder / "trace.nc", self.trace)
        if self.effects is not None:
            write_effects(folder / "effects.json", self.effects)
        self._save_results(folder)
        for name in _OTHER_FILES:
            if self.path is not None and (self.path / name).exists():
                shutil.copy(self.path / name, folder / name)
        return folder

    def _save_results(self, folder: Path) -> None:
        parts = {"study.json": self.study, CROSSFIT: self.crossfit}
        parts |= {REGISTRATION: self.registration, REPEAT: self.repeat}
        for name, part in parts.items():
            if part is not None:
                part.save(folder / name)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder: `load_run`."""
        return load_run(folder)

    def _repr_html_(self) -> str:
        """Accuracy under each condition, for notebooks."""
        rows = []
        for name, part in self.records.groupby("condition", sort=False):
            right = part["correct"].dropna().astype(float)
            margins = part["margin"].dropna()
            accuracy = f"{100 * right.mean():.1f} %" if len(right) else ""
            rows.append((name, len(part), accuracy, f"{margins.mean():.2f}" if len(margins) else ""))
        columns = ("condition", "items", "accuracy", "log-probability difference, nats")
        notes = [f"chance {100 * chance_of(self.records.drop_duplicates('item')):.1f} %"]
        notes += [f"{self.missing} parts are missing"] if self.missing else []
        notes += [f"{len(self.excluded)} items were left out"] if self.excluded else []
        answer = [line(self.study.answer)] if self.study is not None else []
        where = "in memory" if self.path is None else str(self.path)
        title = (
            f"Run ({where}) of {self.manifest['model'].get('name')} on {self.manifest['data'].get('name')}"
        )
        note = f"{'; '.join(notes)}. run.compare() tests the differences."
        return frame(title, *answer, table(columns, rows, note))

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        items, conditions = self.records["item"].nunique(), len(self.manifest["conditions"])
        state = f", {self.missing} parts missing" if self.missing else ""
        return f"<Run {where}: {items} items x {conditions} conditions{state}>"


def load_run(path: str | Path) -> Run:
    """Read a run folder, finished or not.

    Args:
        path: A folder that `run` or `study` wrote.

    Returns:
        The `Run`.

    Warns:
        RunWarning: Parts are missing or damaged (the records are those of the others), or the folder of the
            parts holds other files.

    Raises:
        RunError: It is not a run folder, a file of it cannot be read, or a file has an unknown format
        version.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> written = mi.run(lalm, items[:2], {"baseline": None}, out="first", progress=False)
        >>> mi.load_run("first").records.equals(written.records)
        True
    """
    folder = RunFolder(path)
    parts, damaged = folder.read_parts()
    missing = sum(1 for _ in folder.expected()) - len(parts)
    if missing:
        names = f" ({len(damaged)} of them damaged: {', '.join(damaged[:3])})" if damaged else ""
        warn(f"{path}: {missing} part(s) are missing{names}. Run the same command again to compute them.")
    if foreign := folder.unknown_files():
        names = ", ".join(foreign[:3])
        warn(
            f"{path}/parts holds {len(foreign)} file(s) that do not belong to this run ({names}). They are "
            "not read here, but a reader of all *.parquet would read them. Move them away."
        )
    table = pa.concat_tables(parts.values()) if parts else SCHEMA.empty_table()
    trace, effects, study = (folder.path / name for name in ("trace.nc", "effects.json", "study.json"))
    return Run(
        path=folder.path,
        manifest=folder.manifest,
        records=sort_records(table.to_pandas(), list(folder.manifest["conditions"])),
        trace=read_trace(trace) if trace.exists() else None,
        effects=read_effects(effects) if effects.exists() else None,
        study=StudyResult.load(study) if study.exists() else None,
        missing=missing,
        crossfit=_optional(CrossfitResult, folder.path / CROSSFIT),
        registration=_optional(RegistrationCheck, folder.path / REGISTRATION),
        repeat=_optional(RepeatResult, folder.path / REPEAT),
    )


def _optional(kind: type[T], path: Path) -> T | None:
    """What is in the file; None if there is none."""
    return kind.load(path) if path.exists() else None  # type: ignore[attr-defined]


def write_effects(path: Path, effects: Effects) -> None:
    """Write ``effects.json``."""
    write_versioned(path, **effects.to_dict())


def read_effects(path: Path) -> Effects:
    """Read ``effects.json``.

    Raises:
        RunError: The file cannot be read, has another format version, or lacks a field.
    """
    return Effects.from_dict(read_versioned(path))
