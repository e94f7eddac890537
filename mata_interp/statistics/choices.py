"""The policy for what was chosen on the clips that it is tested on: there is no p-value.

A configuration that is the best of many on some clips looks good on the same clips by chance alone, so that a
test on them rejects far more often than its level (`analyses/calibration.py` simulates it). Its p-values are
NaN, with the reason; the difference and its interval stay, as a description. Test it on other clips, or use
`crossfit_effect`, which repeats the choice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ..errors import ArgumentError

__all__ = ["REFUSED", "chosen_here"]

REFUSED = "none: chosen on the same clips"
"""``p_method`` of a comparison that has no p-value for this reason."""


def chosen_here(chosen_on: Iterable[Hashable], clusters: Iterable[Hashable] | None) -> int:
    """Number of clusters on which a change was chosen and is compared as well.

    Args:
        chosen_on: labels of the clusters on which it was chosen; empty if it was fixed beforehand.
        clusters: label of each compared item's cluster; None if they are not known.

    Raises:
        ArgumentError: something was chosen, and the clusters are not known.

    >>> chosen_here(["a", "b"], ["b", "b", "c"])
    1
    """
    chosen = set(chosen_on)
    if not chosen:
        return 0
    if clusters is None:
        raise ArgumentError(
            "chosen_on names clusters, and clusters does not: pass the label of each item's cluster."
        )
    return len(chosen & set(clusters))
