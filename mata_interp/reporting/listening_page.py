"""The HTML page of a `Listening`: the answers, a player, the waveform and the attention over it."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from markupsafe import Markup

from ..execution.files import write_whole
from ..version import __version__
from .figures.clip import LEFT, RIGHT, clip
from .figures.svg import responsive
from .parts import FigurePart
from .render import render
from .terminal import edit_text
from .wording import number, percent, printable

if TYPE_CHECKING:
    from .listening import Listening

__all__ = ["render_html", "save_html"]


def save_html(listening: Listening, path: str | Path) -> Path:
    """Write `render_html` to ``path``; returns the path."""
    path, html = Path(path).expanduser(), render_html(listening)
    write_whole(path, lambda file: file.write(html.encode("utf-8", errors="replace")), resumes=False)
    return path


def render_html(listening: Listening) -> str:
    """The page as HTML. It contains the audio (16-bit WAV) and loads nothing from the network."""
    script = (resources.files("mata_interp.reporting") / "templates" / "listen.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    mata = listening.mata
    figure = FigurePart(
        "clip",
        responsive(
            lambda width: clip(
                listening.samples, listening.edges, listening.attention, listening.layers, mata.layers, width
            ),
            "clip",
            "Waveform and attention over it",
        ),
        "Attention over time.",
        _caption(listening),
    )
    options = [
        (
            printable(option),
            float(before),
            float(after),
            option == listening.answer_before,
            option == listening.answer_after,
        )
        for option, before, after in zip(
            listening.item.choices, listening.before, listening.after, strict=True
        )
    ]
    return render(
        "listen.jinja",
        kicker=f"{printable(listening.model, 80)}, {number(listening.seconds, 1)} s of audio",
        question=printable(listening.item.question),
        caption=printable(listening.item.caption),
        options=options,
        answers=(printable(listening.answer_before), printable(listening.answer_after)),
        edit=edit_text(listening),
        cut=_cut(listening),
        figure=figure,
        sound=_data_uri(listening.samples, listening.rate),
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


def _cut(listening: Listening) -> str:
    """What was cut from the end of the clip, if anything."""
    if listening.truncated_seconds <= 0:
        return ""
    seconds = number(listening.truncated_seconds, 1)
    return f"The last {seconds} s were cut, as the clip is too long for the model."


def _caption(listening: Listening) -> str:
    """How to read the figure, and what it shows."""
    peak, top = int(listening.profile.argmax()), int(np.nanargmax(listening.share))
    start, end = listening.edges[peak : peak + 2]
    return (
        "Attention of the last prompt token to the audio, mean over heads, without MATA. The curve is its "
        f"mean over layers, scaled to its maximum, which lies between {number(start)} and {number(end)} s. "
        "Of the attention to audio and text, without the first token, audio gets "
        f"{percent(float(np.nanmean(listening.share)), 0)} on average over layers; the maximum is "
        f"{percent(listening.share[top], 0)} in layer {listening.layers[top]}. Attention is not "
        "contribution: an attended token need not affect the answer. Audio encoders also blur time, so a "
        "token carries information about its surroundings."
    )
