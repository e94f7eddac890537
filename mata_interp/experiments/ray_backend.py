"""A run on a Ray cluster: batches as tasks for actors that each hold the model.

Only the process that started the run writes to its folder. Workers need this package, the sounds under the
same paths, and the model: by its name, or else it is sent to them. Ray is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .answering import Unit, Work
from .claims import Claims
from .folder import RunFolder
from .worker_pool import WorkerPool

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["RayWorkers", "answer_on_ray"]


@dataclass(frozen=True)
class RayWorkers:
    """How a run is spread over a Ray cluster.

    Attributes:
        address: of the cluster. None: the one that this machine is part of or that RAY_ADDRESS names, or, if
            there is none, one that is started on this machine and stopped afterwards.
        workers: how many hold the model; None: as many as the cluster has room for now.
        gpus: of one worker; may be a fraction, several then share a GPU. None: one where the cluster has any.
        cpus: of one worker.
        patience: seconds to wait for a worker when there is none, before the run gives up.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    cpus: float = 1
    patience: float = 900.0

    @classmethod
    def of(cls, value: RayWorkers | str | bool | None) -> RayWorkers | None:
        """None and False: no Ray; True: the cluster there is; a text: its address."""
        if value is None or value is False or isinstance(value, RayWorkers):
            return value or None
        return cls(address=value if isinstance(value, str) else None)


def answer_on_ray(
    lalm: LALM,
    folder: RunFolder,
    work: Work,
    units: Sequence[Unit],
    claims: Claims,
    done: Callable[[Unit], object],
    cluster: RayWorkers,
) -> None:
    """Compute and write what is missing of ``units``, each under its claim; ``done`` is told of each.

    Warns:
        RunWarning: a worker died, and its batch is given to another; no worker could be started yet.

    Raises:
        RunError: Ray is not installed or not reached; no worker could be started; three died of one batch.
        MataError: what a worker raised.
    """
    if not units:
        return
    with _connected(cluster.address) as ray:
        wanted, options = _demand(ray.cluster_resources(), cluster, len(units))
        with WorkerPool(ray, lalm, wanted, options, cluster.patience) as crew:
            crew.work_off(units, work.from_anywhere(), folder, claims, done)


def _demand(there: dict[str, float], cluster: RayWorkers, units: int) -> tuple[int, dict[str, Any]]:
    """How many workers, and what Ray is to reserve for each."""
    gpus = cluster.gpus if cluster.gpus is not None else float(there.get("GPU", 0) >= 1)
    needs = {"CPU": cluster.cpus, "GPU": gpus}
    room = min((int(there.get(name, 0) / need) for name, need in needs.items() if need), default=1)
    wanted = min(cluster.workers or max(room, 1), units)
    return wanted, {"num_cpus": cluster.cpus, "num_gpus": gpus}


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The module, connected to the cluster; the connection is closed again if it was opened here."""
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
        raise RunError(f"No Ray cluster {address or 'here'}: {' '.join(str(error).split())[:200]}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
