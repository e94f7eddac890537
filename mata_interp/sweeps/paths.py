"""How each configuration of a sweep is computed: as a row, from the shared prefill, or alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from mata_interp.interventions import AttentionEdit

__all__ = ["Parts", "Path", "path_of"]

Parts: TypeAlias = tuple[Any, ...]
"""The parts of a configuration in order; () for none."""

Path = Literal["rows", "prefill", "loop"]
"""How a configuration is computed.

- ``rows``: one more row over the shared prefill, together with all others (attention edits).
- ``prefill``: the last prompt token and the options, on the shared prefill (methods that leave all tokens
  before the last one as they are).
- ``loop``: a prefill of its own (methods that edit earlier tokens: keys, values, all queries of the prompt;
  and all methods where logits are asked for rather than options).
"""


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
