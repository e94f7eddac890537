"""Measures of a trace: functions from a trace to labelled arrays.

A trace is an ``xarray.Dataset`` with ``mass[item, layer, head, group]`` (the part of a query's attention
that goes to a group's keys) and ``n_tokens[item, group]``. Further dimensions, such as queries, are kept.
Heads that a layer does not have are NaN in ``mass``: measures by head keep the NaN, means leave it out.

Text is everything that is not audio: question, options, caption, template and, where they exist, generated
tokens. The sink (the first token) takes most of the mass whatever token it is, so that each function states
whether it counts as text.
"""

from __future__ import annotations

import xarray as xr

__all__ = ["aei", "audio_share", "audio_text_ratio", "mdi"]


def _audio_and_text(values: xr.DataArray, sink: bool) -> tuple[xr.DataArray, xr.DataArray]:
    """The audio group's values and the sum of the text groups', as float64."""
    left_out = ("audio",) if sink else ("audio", "sink")
    text = [group for group in values["group"].values if group not in left_out]
    values = values.astype("float64")
    return values.sel(group="audio", drop=True), values.sel(group=text).sum("group", skipna=False)


def audio_share(ds: xr.Dataset, sink: bool = False) -> xr.DataArray:
    """A / (A + T): of the attention to audio or text, the fraction that goes to audio.

    Args:
        ds: a trace.
        sink: whether the sink counts as text.

    Returns:
        ``[item, layer, head]`` from 0 to 1; NaN where neither gets any attention.

    See Also:
        audio_text_ratio: the same two masses as odds.

    Examples:
        >>> import numpy as np, xarray as xr
        >>> import mata_interp as mi
        >>> trace = xr.Dataset(
        ...     {
        ...         "mass": (("item", "layer", "head", "group"), np.array([[[[0.2, 0.3, 0.5]]]])),
        ...         "n_tokens": (("item", "group"), np.array([[6, 3, 1]])),
        ...     },
        ...     {"group": ["audio", "question", "sink"]},
        ... )
        >>> round(mi.audio_share(trace).item(), 2)
        0.4
    """
    audio, text = _audio_and_text(ds["mass"], sink)
    return (audio / (audio + text)).rename("audio_share")


def audio_text_ratio(ds: xr.Dataset, sink: bool = False) -> xr.DataArray:
    """A / T: the attention to audio for each unit of attention to text.

    Args:
        ds: a trace.
        sink: whether the sink counts as text.

    Returns:
        ``[item, layer, head]`` from 0 up; infinite where text gets none, NaN where neither gets any.

    Examples:
        >>> import numpy as np, xarray as xr
        >>> import mata_interp as mi
        >>> trace = xr.Dataset(
        ...     {
        ...         "mass": (("item", "layer", "head", "group"), np.array([[[[0.2, 0.3, 0.5]]]])),
        ...         "n_tokens": (("item", "group"), np.array([[6, 3, 1]])),
        ...     },
        ...     {"group": ["audio", "question", "sink"]},
        ... )
        >>> round(mi.audio_text_ratio(trace).item(), 2)
        0.67
    """
    audio, text = _audio_and_text(ds["mass"], sink)
    return (audio / text).rename("audio_text_ratio")


def mdi(ds: xr.Dataset) -> xr.DataArray:
    """Modality dominance index, (A_T / |T|) / (A_O / |O|): a text token's mean mass over an audio token's.

    Formula of arXiv 2508.10552, which takes attention averaged over heads, from output tokens. The sink
    counts as text here. The paper does not state whether it, or the system prompt, does there.

    Args:
        ds: a trace.

    Returns:
        ``[item, layer]``; 1 means a text token gets as much as an audio token, more that text dominates. NaN
        without audio tokens.

    Examples:
        >>> import numpy as np, xarray as xr
        >>> import mata_interp as mi
        >>> trace = xr.Dataset(
        ...     {
        ...         "mass": (("item", "layer", "head", "group"), np.array([[[[0.2, 0.3, 0.5]]]])),
        ...         "n_tokens": (("item", "group"), np.array([[6, 3, 1]])),
        ...     },
        ...     {"group": ["audio", "question", "sink"]},
        ... )
        >>> round(mi.mdi(trace).item(), 2)
        6.0
    """
    audio, text = _audio_and_text(ds["mass"].mean("head"), sink=True)
    n_audio, n_text = _audio_and_text(ds["n_tokens"], sink=True)
    return ((text / n_text) / (audio / n_audio)).rename("mdi")


def aei(ds: xr.Dataset) -> xr.DataArray:
    """Attention efficiency index of text, [A_T / (A_T + A_O)] / [|T| / (|T| + |O|)].

    Text's share of the attention over its share of the tokens. Formula of arXiv 2508.10552, with the same
    heads, queries and text as `mdi`.

    Args:
        ds: a trace.

    Returns:
        ``[item, layer]``; 1 means attention in proportion to the tokens, above 1 that text gets more.

    Examples:
        >>> import numpy as np, xarray as xr
        >>> import mata_interp as mi
        >>> trace = xr.Dataset(
        ...     {
        ...         "mass": (("item", "layer", "head", "group"), np.array([[[[0.2, 0.3, 0.5]]]])),
        ...         "n_tokens": (("item", "group"), np.array([[6, 3, 1]])),
        ...     },
        ...     {"group": ["audio", "question", "sink"]},
        ... )
        >>> round(mi.aei(trace).item(), 2)
        2.0
    """
    audio, text = _audio_and_text(ds["mass"].mean("head"), sink=True)
    n_audio, n_text = _audio_and_text(ds["n_tokens"], sink=True)
    return ((text / (text + audio)) / (n_text / (n_text + n_audio))).rename("aei")
