"""The workers of a run on Ray: started, given units, and replaced when they die."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from ..errors import MataError, RunError
from .claims import UnitClaims
from .notices import warn
from .ray_worker import Worker
from .serialization import loading_arguments, serialize_model
from .units import Store, Work

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["WorkerPool"]

_ATTEMPTS = 3  # deaths of workers on one batch, or of workers in a row before one is ready
_SLOW = 60.0  # seconds without a worker after which the user is warned


class WorkerPool:
    """Workers, and the unit that each of them computes. They stay for further work until the pool is closed.

    Args:
        ray: The module, connected.
        lalm: The model that the workers must hold.
        size: Number of workers, at most; no more are started than there are units.
        options: Resources that Ray reserves for each.
        startup_timeout: Seconds to wait for a worker when there is none.
    """

    def __init__(
        self, ray: Any, lalm: LALM, size: int, options: dict[str, Any], startup_timeout: float
    ) -> None:
        self._ray, self._lalm, self._size = ray, lalm, size
        self._startup_timeout = startup_timeout
        # Ray could restart an actor itself, but would wait for resources while it holds the batch.
        self._actor = ray.remote(Worker).options(max_restarts=0, **options)
        self._options = options
        self._payload: Any = None
        self._starting: dict[Any, Any] = {}  # reference that is ready when the worker is -> worker
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Any]] = {}  # reference of the parts -> worker, unit
        self._failed_starts = 0
        self._deaths: Counter[int] = Counter()
        self._last_worker = time.monotonic()  # when there was a worker last
        self._warned = False

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        busy = [worker for worker, _ in self._busy.values()]
        for worker in [*self._starting.values(), *self._idle, *busy]:
            self._stop(worker)

    def compute(
        self,
        units: Sequence[Any],
        work: Work,
        store: Store,
        claims: UnitClaims,
        done: Callable[[Any], object],
    ) -> None:
        """Compute and write the missing parts of the units, and call ``done`` with each finished unit.

        Raises:
            RunError: No worker starts in time, or workers die repeatedly.
            MataError: A worker raised it.
        """
        queue = _UnitQueue(units, store, claims, done)
        self._last_worker, self._warned = time.monotonic(), False
        self._deaths.clear()
        while queue or self._busy:
            self._start(len(queue))
            while self._idle and (unit := queue.next(wait=not self._busy)):
                worker = self._idle.pop()
                self._busy[worker.compute.remote(work.only([unit]), unit)] = worker, unit
            pending = [*self._busy, *self._starting]
            if not pending:
                continue  # other processes have done what was left
            ready, _ = self._ray.wait(pending, num_returns=1, timeout=1.0)
            for reference in ready:
                if reference in self._starting:
                    self._register(reference)
                else:
                    self._collect(reference, queue, store)
            self._check_startup()

    def _start(self, queued: int) -> None:
        """Start as many workers as are wanted and not there, for ``queued`` units and those in hand."""
        count = min(self._size, queued + len(self._busy))
        for _ in range(count - len(self._starting) - len(self._idle) - len(self._busy)):
            worker = self._actor.remote(
                loading_arguments(self._lalm), self._lalm.fingerprint(), torch.get_num_threads()
            )
            self._starting[worker.ready.remote()] = worker

    def _register(self, reference: Any) -> None:
        """A starting worker holds the model, or needs it sent because it cannot load it, or has died."""
        worker = self._starting.pop(reference)
        try:
            has_model = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _ATTEMPTS * self._size:
                raise RunError(f"Ray workers die while they start: {_short(error)}") from error
            return
        if has_model:
            self._failed_starts = 0
            self._idle.append(worker)
            return
        if self._payload is None:
            self._payload = self._ray.put(serialize_model(self._lalm))
        self._starting[worker.receive.remote(self._payload)] = worker

    def _collect(self, reference: Any, queue: _UnitQueue, store: Store) -> None:
        """Write what a worker has computed; put its unit back if the worker died."""
        worker, unit = self._busy.pop(reference)
        try:
            parts = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self._stop(worker)
            raise _cause(error) from None
        except self._ray.exceptions.RayError as error:
            self._stop(worker)
            self._deaths[unit.number] += 1
            if self._deaths[unit.number] >= _ATTEMPTS:
                items = f"{', '.join(unit.items[:3])}{', ...' if len(unit.items) > 3 else ''}"
                raise RunError(
                    f"{_ATTEMPTS} Ray workers died on batch {unit.batch} (items {items}): {_short(error)}"
                ) from error
            warn(f"A Ray worker died; another one computes batch {unit.batch}: {_short(error)}")
            queue.put_back(unit)
            return
        self._idle.append(worker)
        store.write(unit, parts)
        queue.finish(unit)

    def _check_startup(self) -> None:
        """Warn if there has been no worker for a while, and give up after the timeout."""
        if self._busy or self._idle:
            self._last_worker, self._warned = time.monotonic(), False
            return
        waited = time.monotonic() - self._last_worker
        if waited > self._startup_timeout:
            raise RunError(f"No Ray worker started within {waited:.0f} s: {self._resources()}")
        if waited > _SLOW and not self._warned:
            self._warned = True
            warn(f"Still waiting for a Ray worker: {self._resources()}")

    def _stop(self, worker: Any) -> None:
        with suppress(Exception):
            self._ray.kill(worker)

    def _resources(self) -> str:
        cluster = {name: self._ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
        return f"one needs {self._options}, and the whole cluster has {cluster}."


class _UnitQueue:
    """Units that are still to be computed, each claimed before a worker gets it.

    Args:
        units: The units, in order.
        store: Where the parts go.
        claims: Claims against other processes.
        done: Called with each finished unit.
    """

    def __init__(
        self, units: Sequence[Any], store: Store, claims: UnitClaims, done: Callable[[Any], object]
    ) -> None:
        self._todo, self._later = deque(units), deque[Any]()  # later: those that other processes compute
        self._store, self._claims, self._done = store, claims, done

    def __len__(self) -> int:
        return len(self._todo) + len(self._later)

    def next(self, wait: bool) -> Any:
        """The next unit with its missing parts, or None.

        Args:
            wait: Wait for units that other processes compute, once there are no others.
        """
        while True:
            waiting = wait and not self._todo
            queue = self._later if waiting else self._todo
            if not queue:
                return None
            unit = queue.popleft()
            if not self._claims.claim(unit.number, waiting):
                self._later.append(unit)
            elif missing := self._store.missing(unit):
                return missing
            else:
                self.finish(unit)

    def put_back(self, unit: Any) -> None:
        """Queue a unit again, whose claim is kept."""
        self._todo.appendleft(unit)

    def finish(self, unit: Any) -> None:
        """Release a finished unit's claim."""
        self._claims.release(unit.number)
        self._done(unit)


def _cause(error: Any) -> BaseException:
    """The worker's own error if it is a MataError; else Ray's, with the worker's traceback."""
    return error.cause if isinstance(error.cause, MataError) else error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
