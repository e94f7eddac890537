"""The workers of a run on Ray: started, given units, heard, and replaced when they die."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from ..errors import MataError, RunError
from .answering import Unit, Work
from .claims import Claims
from .folder import RunFolder
from .notices import warn
from .ray_worker import Worker
from .serialization import by_name, packed

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["WorkerPool"]

_ATTEMPTS = 3  # workers that may die of one batch, or one after the other before any is ready
_SLOW = 60.0  # seconds without a worker after which the user is told why nothing happens


class WorkerPool:
    """Workers, and what each of them does.

    Args:
        ray: the module, connected.
        wanted: how many workers.
        options: what Ray is to reserve for each.
        patience: seconds to wait for a worker when there is none.
    """

    def __init__(self, ray: Any, lalm: LALM, wanted: int, options: dict[str, Any], patience: float) -> None:
        self._ray, self._lalm, self._wanted, self._patience = ray, lalm, wanted, patience
        # Ray could restart an actor itself, but would wait for room for it with the batch in its hands.
        self._actor = ray.remote(Worker).options(max_restarts=0, **options)
        self._options = options
        self._parcel: Any = None
        self._starting: dict[Any, Any] = {}  # the reference that comes when it is ready -> worker
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Unit]] = {}  # the reference of the tables -> worker, unit
        self._failed_starts = 0
        self._deaths: Counter[int] = Counter()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        busy = [worker for worker, _ in self._busy.values()]
        for worker in [*self._starting.values(), *self._idle, *busy]:
            self._dismiss(worker)

    def work_off(
        self,
        units: Sequence[Unit],
        work: Work,
        folder: RunFolder,
        claims: Claims,
        done: Callable[[Unit], object],
    ) -> None:
        """Compute and write what is missing of the units; ``done`` is told of each."""
        todo, later = deque(units), deque[Unit]()  # later: those that other processes work on
        had_one = time.monotonic()
        told = False

        def next_unit() -> Unit | None:
            while True:
                wait = not todo and not self._busy
                queue = later if wait else todo
                if not queue:
                    return None
                unit = queue.popleft()
                if not claims.take(unit.number, wait):
                    later.append(unit)
                elif missing := folder.missing(unit):
                    return missing
                else:
                    finish(unit)

        def finish(unit: Unit) -> None:
            claims.release(unit.number)
            done(unit)

        while todo or later or self._busy:
            self._hire()
            while self._idle and (unit := next_unit()):
                worker = self._idle.pop()
                self._busy[worker.answer.remote(work.only([unit]), unit)] = worker, unit
            if not (awaited := [*self._busy, *self._starting]):
                continue  # all that was left had been done by others
            ready, _ = self._ray.wait(awaited, num_returns=1, timeout=1.0)
            for reference in ready:
                if reference in self._starting:
                    self._came_to_work(reference)
                    continue
                unit = self._busy[reference][1]
                tables = self._tables(reference)
                if tables is None:
                    todo.appendleft(unit)
                    continue
                for name, table in tables.items():
                    folder.write_part(name, unit.batch, table)
                finish(unit)
            if self._busy or self._idle:
                had_one, told = time.monotonic(), False
            elif (alone := time.monotonic() - had_one) > self._patience:
                raise RunError(f"No Ray worker could be started in {alone:.0f} s: {self._why()}")
            elif alone > _SLOW and not told:
                told = True
                warn(f"Still waiting for a Ray worker: {self._why()}")

    def _hire(self) -> None:
        for _ in range(self._wanted - len(self._starting) - len(self._idle) - len(self._busy)):
            worker = self._actor.remote(
                by_name(self._lalm), self._lalm.fingerprint(), torch.get_num_threads()
            )
            self._starting[worker.ready.remote()] = worker

    def _came_to_work(self, reference: Any) -> None:
        """A worker holds the model; or could not load it by name, and is sent it; or died before that."""
        worker = self._starting.pop(reference)
        try:
            holds = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise _own(error) from None
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _ATTEMPTS * self._wanted:
                raise RunError(f"Ray workers die while they start: {_brief(error)}") from error
            return
        if holds:
            self._failed_starts = 0
            self._idle.append(worker)
            return
        if self._parcel is None:
            self._parcel = self._ray.put(packed(self._lalm))
        self._starting[worker.take.remote(self._parcel)] = worker

    def _tables(self, reference: Any) -> dict[str, Any] | None:
        """What a worker answered, which is then idle; None if it died, was lost or cannot be reached."""
        worker, unit = self._busy.pop(reference)
        try:
            tables = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self._dismiss(worker)
            raise _own(error) from None
        except self._ray.exceptions.RayError as error:
            self._dismiss(worker)
            self._deaths[unit.number] += 1
            if self._deaths[unit.number] >= _ATTEMPTS:
                raise RunError(
                    f"{_ATTEMPTS} Ray workers died of batch {unit.batch} (items {', '.join(unit.items[:3])}"
                    f"{', ...' * (len(unit.items) > 3)}): {_brief(error)}"
                ) from error
            warn(f"A Ray worker died; batch {unit.batch} is given to another: {_brief(error)}")
            return None
        self._idle.append(worker)
        return tables

    def _dismiss(self, worker: Any) -> None:
        with suppress(Exception):
            self._ray.kill(worker)

    def _why(self) -> str:
        there = {name: self._ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
        return f"one needs {self._options}, the cluster has {there} in all."


def _own(error: Any) -> BaseException:
    """The error a worker raised, if it is one of ours; else Ray's, with the worker's traceback."""
    return error.cause if isinstance(error.cause, MataError) else error


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
