"""An edit in force while a model runs: what :class:`Editing` returns, added to the attention calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mata_interp.attention import AttentionCall
from mata_interp.interventions import Editing

from ..discovery.structure import ModelStructure
from .attention_calls import Add, Backend, Run, attention_calls

__all__ = ["edited_calls"]


@contextmanager
def edited_calls(structure: ModelStructure, editing: Editing, backend: Backend = "direct") -> Iterator[Run]:
    """Intercept a model so that ``run(forward)`` runs a callable with the edit in force.

    Args:
        structure: of the model.
        editing: interventions bound to the prompts that run.
        backend: as in ``attention_calls``; both give the same bits.
    """

    def on_call(layer: int, call: AttentionCall, total: int) -> Add | None:
        change = editing(layer, call, total)
        return None if change is None else Add(*change)

    with attention_calls(structure, editing.layers, on_call, backend) as run:
        yield run
