"""A worker on a Ray cluster: a process that holds the model and computes units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MataError
from .serialization import deserialize_model, refuse_other_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..lalm import LALM
    from .units import Work

__all__ = ["Worker"]


class Worker:
    """Holds the model on the GPUs that Ray assigns, else on the CPU. `WorkerPool` makes it a Ray actor.

    Args:
        arguments: Arguments of `LALM.from_pretrained` that may load the model; None: it will be sent.
        fingerprint: Fingerprint that the model must have.
        threads: Number of torch threads, as in the process that started the run, for bit-identical rows.
    """

    def __init__(self, arguments: dict[str, Any] | None, fingerprint: dict[str, Any], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._fingerprint = fingerprint
        self._lalm: LALM | None = None if arguments is None else self._load(arguments)

    def ready(self) -> bool:
        """Whether it holds the model; if not, the model must be sent (`receive`)."""
        return self._lalm is not None

    def receive(self, payload: dict[str, Any]) -> bool:
        """Hold a model that was sent; ModelError if its fingerprint differs here."""
        lalm = deserialize_model(payload)
        refuse_other_model(lalm.fingerprint(), self._fingerprint)
        self._lalm = self._to_device(lalm)
        return True

    def compute(self, work: Work, unit: Any) -> Mapping[str, Any]:
        """Compute a unit: name of each part -> the part."""
        if self._lalm is None:
            raise RuntimeError("The worker does not hold the model yet.")
        return work.compute(self._lalm, unit)

    def _load(self, arguments: dict[str, Any]) -> LALM | None:
        from ..lalm import LALM

        try:
            lalm = LALM.from_pretrained(**arguments)
            refuse_other_model(lalm.fingerprint(), self._fingerprint)
        except MataError:
            return None
        return lalm

    def _to_device(self, lalm: LALM) -> LALM:
        import torch

        lalm.model.to("cuda" if torch.cuda.is_available() else "cpu")
        return lalm
