"""A run on a Ray cluster: batches as tasks for actors that each hold the model.

Only the process that started the run writes to its folder. Workers need this package, the audio files under
the same paths, and the model, which they load by its name or else receive. Ray is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .answering import Unit, Work
from .claims import UnitClaims
from .folder import RunFolder
from .worker_pool import WorkerPool

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["RayWorkers", "answer_on_ray"]


@dataclass(frozen=True)
class RayWorkers:
    """How a run is spread over a Ray cluster.

    Attributes:
        address: Address of the cluster. None: the cluster that this machine is part of or that RAY_ADDRESS
            names, or, if there is none, one that is started on this machine and stopped afterwards.
        workers: Number of workers, each with the model; None: as many as the cluster has resources for now.
        gpus: GPUs of one worker; several workers share a GPU if it is a fraction. None: one where the
            cluster has any.
        cpus: CPUs of one worker.
        startup_timeout: Seconds to wait for a worker when there is none, before the run fails.

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
        """From the ``ray`` argument of `run`: None or False (no Ray), True (any cluster), or an address."""
        if value is None or value is False or isinstance(value, RayWorkers):
            return value or None
        return cls(address=value if isinstance(value, str) else None)


def answer_on_ray(
    lalm: LALM,
    folder: RunFolder,
    work: Work,
    units: Sequence[Unit],
    claims: UnitClaims,
    done: Callable[[Unit], object],
    cluster: RayWorkers,
) -> None:
    """Compute and write the missing parts of ``units`` on a Ray cluster.

    Args:
        lalm: The model.
        folder: The run folder.
        work: What the units need.
        units: The units, each computed under its claim.
        claims: Claims against other processes.
        done: Called with each finished unit.
        cluster: How to use the cluster.

    Warns:
        RunWarning: A worker died, and another one computes its batch; no worker has started yet.

    Raises:
        RunError: Ray is not installed or not reachable; no worker starts; three workers died on one batch.
        MataError: A worker raised it.
    """
    if not units:
        return
    with _connected(cluster.address) as ray:
        wanted, options = _demand(ray.cluster_resources(), cluster, len(units))
        with WorkerPool(ray, lalm, wanted, options, cluster.startup_timeout) as pool:
            pool.compute(units, work.with_absolute_paths(), folder, claims, done)


def _demand(resources: dict[str, float], cluster: RayWorkers, units: int) -> tuple[int, dict[str, Any]]:
    """Number of workers, and the resources that Ray reserves for each."""
    gpus = cluster.gpus if cluster.gpus is not None else float(resources.get("GPU", 0) >= 1)
    needs = {"CPU": cluster.cpus, "GPU": gpus}
    possible = min((int(resources.get(name, 0) / need) for name, need in needs.items() if need), default=1)
    wanted = min(cluster.workers or max(possible, 1), units)
    return wanted, {"num_cpus": cluster.cpus, "num_gpus": gpus}


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
