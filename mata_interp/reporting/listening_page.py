"""The page of one listening: the answers, a player, the waveform and the attention over it."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib import resources

import numpy as np
import soundfile
from markupsafe import Markup

from .. import __version__
from .figures.clip import LEFT, RIGHT, clip
from .figures.svg import responsive
from .listening import Listening
from .parts import FigurePart
from .render import render
from .wording import named_layers, number, percent, printable


def listening_page(heard: Listening) -> str:
    """The whole page as HTML; the sound is in it (16-bit WAV), and nothing is loaded from anywhere."""
    script = (resources.files("mata_interp.reporting") / "templates" / "listen.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    mata = heard.mata
    figure = FigurePart(
        "clip",
        responsive(
            lambda width: clip(heard.samples, heard.edges, heard.attention, heard.layers, mata.layers, width),
            "clip",
            "Waveform and attention over it",
        ),
        "Where it listened.",
        _reading(heard),
    )
    options = [
        (
            printable(option),
            float(before),
            float(after),
            option == heard.said_before,
            option == heard.said_after,
        )
        for option, before, after in zip(heard.item.choices, heard.before, heard.after, strict=True)
    ]
    return render(
        "listen.jinja",
        kicker=f"{printable(heard.model, 80)}, {number(heard.seconds, 1)} s of sound",
        question=printable(heard.item.question),
        options=options,
        said=(printable(heard.said_before), printable(heard.said_after)),
        edit=f"rule {mata.rule}, alpha {mata.alpha:g}, {named_layers(mata.layers)}",
        cut=f"The last {number(heard.truncated_seconds, 1)} s were cut off: the model takes no more."
        if heard.truncated_seconds > 0
        else "",
        figure=figure,
        sound=_data_uri(heard.samples, heard.rate),
        plot=(LEFT, RIGHT),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        percent=percent,
        version=__version__,
    )


def _data_uri(samples: np.ndarray, rate: int) -> str:
    stream = io.BytesIO()
    # not FLAC, which is half the size: Chromium cannot seek in a short one
    soundfile.write(stream, np.clip(samples, -1, 1), rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(stream.getvalue()).decode()


def _reading(heard: Listening) -> str:
    peak, most = int(heard.profile.argmax()), int(np.nanargmax(heard.share))
    return (
        "Attention of the last prompt token on the sound, mean over heads, without MATA; above, its mean "
        f"over layers, scaled to the highest. It is densest from {number(heard.edges[peak])} to "
        f"{number(heard.edges[peak + 1])} s. Of all attention but that on the first token, audio gets "
        f"{percent(float(np.nanmean(heard.share)), 0)} over all layers and most in layer "
        f"{heard.layers[most]} ({percent(heard.share[most], 0)}). Attention is not contribution: what is "
        "looked at need not reach the answer, and encoders blur time, so that a token also knows what is "
        "around it."
    )
