"""How each configuration of a sweep is computed: as a row, from the shared prefill, or alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from mata_interp.interventions import AttentionEdit

__all__ = ["PATHS", "Parts", "Path", "path_of"]

Parts: TypeAlias = tuple[Any, ...]
"""The parts of a configuration in order; () for none."""

Path = Literal["rows", "prefill", "loop"]

PATHS: dict[Path, str] = {
    "rows": "one more row over the shared prefill, together with all others",
    "prefill": "the last prompt token and the options, on the shared prefill",
    "loop": "a prefill of its own",
}
"""``rows``: attention edits. ``prefill``: methods at other sites, or with rules of their own, that leave all
tokens before the last one as they are. ``loop``: methods that edit earlier tokens (keys, values, all queries
of the prompt), and all methods where logits are asked for rather than options."""


def path_of(parts: Sequence[Any], scored: bool) -> Path:
    """The path of a configuration.

    Args:
        parts: from `in_order`.
        scored: whether options are scored; else next-token logits are taken.
    """
    if all(isinstance(part, AttentionEdit) for part in parts):
        return "rows"
    late = all(part.queries == "last" or part.phase == "decode" for part in parts)
    return "prefill" if late and scored else "loop"
