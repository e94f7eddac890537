"""Plots on axes of one's own, as seaborn's: each function draws on ``ax`` and returns it.

Public as ``mata_interp.plot``::

    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    mi.plot.share(trace, by="condition", ax=axes[0])
    mi.plot.effects(run, ax=axes[1])
    mi.plot.data(axes[0]).to_csv("share.csv")    # the numbers that were drawn

`share`, `groups` and `heads` draw a trace; `profile` and `agreement` a fusion profile, and `criteria` a
figure of all of it; `layers`, `heads` and `windows` causal maps, and `causal_map` a figure of a whole map;
`effects`, `dose` and `margins` runs; `clip` one clip. What is not colour of the data is matplotlib's, so that
``plt.style`` and ``sns.set_theme`` apply.
"""

from .attention import groups, share
from .canvas import data
from .doses import dose
from .effects import effects
from .figures import causal_map, criteria
from .items import clip, margins
from .maps import heads, layers, windows
from .profiles import agreement, profile

__all__ = [
    "agreement",
    "causal_map",
    "clip",
    "criteria",
    "data",
    "dose",
    "effects",
    "groups",
    "heads",
    "layers",
    "margins",
    "profile",
    "share",
    "windows",
]
