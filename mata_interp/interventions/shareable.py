"""The methods with which an intervention is saved, loaded and shared, as models of transformers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mata_interp.errors import InterventionError

if TYPE_CHECKING:
    from typing import Self

    from .evidence import Evidence

__all__ = ["Shareable"]


class Shareable:
    """An intervention that can be saved in a folder and uploaded to the Hugging Face hub."""

    def save_pretrained(
        self, folder: str | Path, *, lalm: Any = None, evidence: Evidence | None = None
    ) -> Path:
        """Write it to a folder: `mata_interp.save_intervention`."""
        from .sharing import save_intervention

        this: Any = self
        return save_intervention(this, folder, lalm=lalm, evidence=evidence)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | bool | None = None
    ) -> Self:
        """The intervention of this class in a folder or on the hub: `mata_interp.load_intervention`.

        Raises:
            InterventionError: the folder holds another one.
        """
        from .sharing import load_intervention

        intervention = load_intervention(name, revision=revision, token=token)
        if not isinstance(intervention, cls):
            raise InterventionError(
                f"{name} holds {type(intervention).__name__}, not {cls.__name__}: use mi.load_intervention."
            )
        return intervention

    def push_to_hub(
        self,
        repo_id: str,
        *,
        lalm: Any = None,
        evidence: Evidence | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        message: str | None = None,
    ) -> str:
        """Upload it to the hub: `push_intervention`. Returns the address of the commit."""
        from .sharing import push_intervention

        this: Any = self
        return push_intervention(
            this,
            repo_id,
            lalm=lalm,
            evidence=evidence,
            private=private,
            token=token,
            message=message,
        )
