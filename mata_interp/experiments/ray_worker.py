"""A worker on a Ray cluster: a process that holds the model and answers units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MataError
from .serialization import refuse_other_model, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

    from ..lalm import LALM
    from .answering import Unit, Work

__all__ = ["Worker"]


class Worker:
    """Made a Ray actor by whoever starts it; on the GPU that Ray gives it, else on the CPU.

    Args:
        name: arguments of `LALM.from_pretrained` that may give the model; None: it will be sent.
        fingerprint: of the model it must be.
        threads: of torch, as in the process that started the run, so that rows come out bit for bit alike.
    """

    def __init__(self, name: dict[str, Any] | None, fingerprint: dict[str, Any], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._fingerprint = fingerprint
        self._lalm: LALM | None = None if name is None else self._loaded(name)

    def ready(self) -> bool:
        """Whether it holds the model; if not, it must be sent it (`take`)."""
        return self._lalm is not None

    def take(self, parcel: dict[str, Any]) -> bool:
        """Hold the model that was sent; ModelError if it comes out as another one here."""
        lalm = unpacked(parcel)
        refuse_other_model(lalm.fingerprint(), self._fingerprint)
        self._lalm = self._placed(lalm)
        return True

    def answer(self, work: Work, unit: Unit) -> dict[str, pa.Table]:
        """Condition -> table."""
        if self._lalm is None:
            raise RuntimeError("a worker was asked before it held the model")
        return work.answer(self._lalm, unit)

    def _loaded(self, name: dict[str, Any]) -> LALM | None:
        from ..lalm import LALM

        try:
            lalm = LALM.from_pretrained(**name)
            refuse_other_model(lalm.fingerprint(), self._fingerprint)
        except MataError:
            return None
        return lalm if name["device_map"] else self._placed(lalm)

    def _placed(self, lalm: LALM) -> LALM:
        import torch

        lalm.model.to("cuda" if torch.cuda.is_available() else "cpu")
        return lalm
