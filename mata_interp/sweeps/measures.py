"""What a sweep of items says of each configuration: the right option's margin, and whether it is chosen."""

from __future__ import annotations

import numpy as np
import xarray as xr

from mata_interp.errors import ArgumentError
from mata_interp.statistics.options import is_correct
from mata_interp.statistics.options import margin as option_margin

__all__ = ["correct", "margin"]


def margin(swept: xr.DataArray) -> xr.DataArray:
    """log p(right option) - log p(best wrong option), nats: ``[item, configuration]``; NaN without an answer.

    Args:
        swept: from `sweep` over items: ``[item, configuration, choice]`` with ``answer``.

    Raises:
        ArgumentError: the sweep is one of prompts, which have no options.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> swept = mi.sweep(lalm, items[:2], {"none": None, "mata": mi.Mata(1.0, [4, 5])}, progress=False)
        >>> mi.margin(swept).dims
        ('item', 'configuration')
    """
    values, answer = _options(swept)
    return _by_configuration(swept, option_margin(values, answer), "margin")


def correct(swept: xr.DataArray) -> xr.DataArray:
    """Whether the right option is the likeliest: bool ``[item, configuration]``, False without an answer.

    Args:
        swept: from `sweep` over items: ``[item, configuration, choice]`` with ``answer``.

    Raises:
        ArgumentError: the sweep is one of prompts, which have no options.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> swept = mi.sweep(lalm, items[:2], {"none": None, "mata": mi.Mata(1.0, [4, 5])}, progress=False)
        >>> mi.correct(swept).mean("item").shape
        (2,)
    """
    values, answer = _options(swept)
    return _by_configuration(swept, is_correct(values, answer), "correct")


def _options(swept: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The log-probabilities ``[item, configuration, choice]`` and the right options ``[item, 1]``."""
    if "choice" not in swept.dims:
        raise ArgumentError("A sweep of prompts has no answer options: sweep items.")
    return swept.transpose("item", "configuration", "choice").values, swept["answer"].values[:, None]


def _by_configuration(swept: xr.DataArray, values: np.ndarray, name: str) -> xr.DataArray:
    """Values ``[item, configuration]`` with the labels of a sweep."""
    return swept.isel(choice=0, drop=True).transpose("item", "configuration").copy(data=values).rename(name)
