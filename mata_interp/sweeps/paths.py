"""How each configuration of a sweep is computed: as a row, in a batch, from the shared prefill, or alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from mata_interp.interventions import AttentionEdit
from mata_interp.interventions.protocol import ATTENTION_SITES
from mata_interp.interventions.selection import QUERIES

__all__ = ["Parts", "Path", "is_row_patch", "path_of"]

Parts: TypeAlias = tuple[Any, ...]
"""The parts of a configuration in order; () for none."""

Path = Literal["rows", "batch", "prefill", "loop"]
"""How a configuration is computed.

- ``rows``: one more row over the shared prefill, together with all others (attention edits, and patches of
  states and head outputs at the last token or in the text after the audio).
- ``batch``: rows of a larger batch, each on a copy of the cache, together with all others (methods inside
  attention that leave all tokens before the last one as they are, on architectures that keep a state).
- ``prefill``: the last prompt token and the options, on the shared prefill (methods that leave all tokens
  before the last one as they are).
- ``loop``: a prefill of its own (methods that edit earlier tokens: keys, values, all queries of the prompt;
  and all methods where logits are asked for rather than options).
"""


def path_of(parts: Sequence[Any], scored: bool, states: bool = False) -> Path:
    """The path of a configuration.

    Args:
        parts: from `in_order`.
        scored: whether options are scored; else next-token logits are taken.
        states: whether some layer of the model keeps a state instead of keys and values.
    """
    late = all(part.queries == "last" or part.phase == "decode" for part in parts)
    if states and late and all(_is_in_attention(part) for part in parts):
        return "batch"
    if all(isinstance(part, AttentionEdit) or is_row_patch(part) for part in parts):
        return "rows"
    return "prefill" if late and scored else "loop"


def _is_in_attention(part: Any) -> bool:
    """Whether a method acts inside attention, and needs nothing from the token before."""
    return part.site in ATTENTION_SITES and not getattr(part, "needs_confidence", False)


def is_row_patch(part: Any) -> bool:
    """Whether a method that is no attention edit can run in a row: it says so, and edits no earlier token."""
    return getattr(part, "in_rows", False) and part.queries in QUERIES
