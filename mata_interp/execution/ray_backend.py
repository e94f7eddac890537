"""Work on a Ray cluster: batches as tasks for actors that each hold the model.

Only the process that started the work writes its parts. Workers need this package, the audio files under
the same paths, and the model, which they load by its name or else receive. Ray is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .claims import UnitClaims
from .units import Store, Work
from .worker_pool import WorkerPool

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["Cluster", "RayWorkers", "open_cluster"]


@dataclass(frozen=True)
class RayWorkers:
    """How batches are spread over a Ray cluster.

    Attributes:
        address: Address of the cluster. None: the cluster that this machine is part of or that RAY_ADDRESS
            names, or, if there is none, one that is started on this machine and stopped afterwards.
        workers: Number of workers, each with the model; None: as many as the cluster has resources for now.
        gpus: GPUs of one worker: several for a model that is split over them (``device_map="auto"``); a
            fraction, and several workers share a GPU. None: one where the cluster has any.
        cpus: CPUs of one worker.
        startup_timeout: Seconds to wait for a worker when there is none, before the work fails.

    Examples:
        >>> import mata_interp as mi
        >>> workers = mi.RayWorkers(workers=4, gpus=0.5)  # run(..., ray=workers): two workers per GPU
        >>> workers.gpus
        0.5
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    cpus: float = 1
    startup_timeout: float = 900.0

    @classmethod
    def from_argument(cls, value: RayWorkers | str | bool | None) -> RayWorkers | None:
        """From an argument ``ray``: None or False (no Ray), True (any cluster), or an address."""
        if value is None or value is False or isinstance(value, RayWorkers):
            return value or None
        return cls(address=value if isinstance(value, str) else None)


class Cluster:
    """A Ray cluster in use: workers that hold one model, for any number of pieces of work."""

    def __init__(self, lalm: LALM, pool: WorkerPool) -> None:
        self._lalm, self._pool = lalm, pool

    def compute(
        self,
        lalm: LALM,
        work: Work,
        units: Sequence[Any],
        store: Store,
        claims: UnitClaims,
        done: Callable[[Any], object],
    ) -> None:
        """Compute the missing parts of ``units``; arguments as in `compute_here`.

        Warns:
            RunWarning: A worker died, and another one computes its batch; no worker has started yet.

        Raises:
            RunError: No worker starts; three workers died on one batch.
            MataError: A worker raised it.
        """
        assert lalm is self._lalm, "the workers of a cluster hold one model"
        self._pool.compute(units, work.with_absolute_paths(), store, claims, done)


@contextmanager
def open_cluster(lalm: LALM, ray: RayWorkers | Cluster | str | bool | None) -> Iterator[Cluster | None]:
    """The cluster that an argument ``ray`` asks for; None for none.

    Args:
        lalm: The model that the workers must hold.
        ray: None or False: no Ray; True: any cluster; its address; `RayWorkers`; or a cluster that is open,
            which stays open.

    Raises:
        RunError: Ray is not installed or not reachable.
    """
    if isinstance(ray, Cluster):
        yield ray
        return
    request = RayWorkers.from_argument(ray)
    if request is None:
        yield None
        return
    with _connected(request.address) as module:
        workers, options = _demand(module.cluster_resources(), request)
        with WorkerPool(module, lalm, workers, options, request.startup_timeout) as pool:
            yield Cluster(lalm, pool)


def _demand(resources: dict[str, float], cluster: RayWorkers) -> tuple[int, dict[str, Any]]:
    """The largest number of workers, and the resources that Ray reserves for each."""
    gpus = cluster.gpus if cluster.gpus is not None else float(resources.get("GPU", 0) >= 1)
    needs = {"CPU": cluster.cpus, "GPU": gpus}
    possible = min((int(resources.get(name, 0) / need) for name, need in needs.items() if need), default=1)
    return cluster.workers or max(possible, 1), {"num_cpus": cluster.cpus, "num_gpus": gpus}


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The module, connected to the cluster; closes the connection again if it was opened here."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RunError("Ray is not installed: pip install 'mata-interp[ray]', or run without it.") from error
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        place, problem = address or "this machine", " ".join(str(error).split())[:200]
        raise RunError(f"Cannot connect to a Ray cluster at {place}: {problem}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
