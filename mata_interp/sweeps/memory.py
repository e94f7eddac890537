"""The number of configurations that run at once: what a part of the free memory holds, up to a limit."""

from __future__ import annotations

__all__ = ["configuration_bytes", "configurations_at_once"]

SHARE = 0.25  # of the free memory
LIMIT = 768 * 2**20  # bytes: a twentieth of the weights of 7 B parameters in half precision
# Small blocks share less, as each has its own tree: 1,000 configurations of 12 layers x 512 and 801 tokens
# took 2.98, 2.34, 1.97, 1.76, 1.70 and 1.77 plain forwards in blocks of 32, 64, 125, 250, 500 and 1,000 (one
# core, roughly). Larger blocks gain nothing.
MOST = 512
COPIES = 6  # tensors of scores in memory at once: parts, joined, edited, weights
STATES = 24  # hidden states in memory at once, the wider ones of the feed-forward part included


def configuration_bytes(batch: int, slots: int, past: int, heads: int, width: int) -> int:
    """Bytes that the rows of one configuration take.

    Args:
        batch, slots: prompts, and tokens of each configuration (the last prompt token and the answers').
        past: tokens before these.
        heads, width: query heads (the most of any layer) and size of the hidden states.
    """
    return 4 * batch * slots * (COPIES * heads * (past + slots) + STATES * width)


def configurations_at_once(free: int, batch: int, slots: int, past: int, heads: int, width: int) -> int:
    """Configurations whose rows fit into ``SHARE`` of ``free`` bytes and ``LIMIT``; from one to ``MOST``.

    Args:
        free: bytes.
        batch, slots, past, heads, width: those of `configuration_bytes`.
    """
    each = configuration_bytes(batch, slots, past, heads, width)
    return min(MOST, max(1, min(int(SHARE * free), LIMIT) // each))
