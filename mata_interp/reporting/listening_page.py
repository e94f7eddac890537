"""The HTML page of one or several `Listening`s: the item view, with the map without and with MATA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ..errors import ArgumentError
from ..execution.files import write_whole
from ..version import __version__
from .item_view.markup import item_view_markup, script, style
from .item_view.view_data import ViewCondition, ViewItem, view_data
from .render import render, script_hash
from .terminal import clips_text, edit_text
from .wording import count, number, percent, printable

if TYPE_CHECKING:
    from .listening import Listening

__all__ = ["render_html", "save_html", "save_listenings"]

CONDITIONS = (ViewCondition("without MATA", "before"), ViewCondition("MATA", "after"))
OUTCOMES = ("changed", "unchanged")


def save_listenings(listenings: Sequence[Listening], path: str | Path) -> Path:
    """Write one self-contained HTML page with a table of several listenings, each of which can be played.

    Args:
        listenings: What `listen` returned, of one model.
        path: The file.

    Returns:
        The path.

    Raises:
        ArgumentError: There is no listening, or they are of different models.
        RunError: The file cannot be written.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> clips = [item.audio_root / item.audio for item in items.sample(2)[:2]]
        >>> heard = [mi.listen(lalm, clip, "What is heard?", ["a dog", "a bell"]) for clip in clips]
        >>> mi.save_listenings(heard, "clips.html").name
        'clips.html'
    """
    path, html = Path(path).expanduser(), _render(listenings)
    write_whole(path, lambda file: file.write(html.encode("utf-8", errors="replace")), resumes=False)
    return path


def save_html(listening: Listening, path: str | Path) -> Path:
    """Write `render_html` to ``path``; returns the path."""
    return save_listenings([listening], path)


def render_html(listening: Listening) -> str:
    """The page as HTML. It contains the audio (Ogg) and loads nothing from the network."""
    return _render([listening])


def _render(listenings: Sequence[Listening]) -> str:
    if not listenings:
        raise ArgumentError("There is no listening: give what `listen` returned.")
    first = listenings[0]
    if any(one.model != first.model or one.layers != first.layers for one in listenings):
        raise ArgumentError("The listenings are of different models: write a page for each.")
    data = view_data(
        CONDITIONS,
        [_item(one, n) for n, one in enumerate(listenings, 1)],
        layers=first.layers,
        edited=sorted({layer for one in listenings for layer in one.mata.layers}),
        outcomes=OUTCOMES,
    )
    questions = list(dict.fromkeys(one.item.question for one in listenings))
    seconds = sum(one.seconds for one in listenings)
    clips = "" if len(listenings) < 2 else f"{count(len(listenings), 'clip')}, "
    return render(
        "listen.jinja",
        kicker=f"{printable(first.model, 80)}, {clips}{number(seconds, 1)} s of audio",
        title=printable(questions[0]) if len(questions) == 1 else f"{count(len(questions), 'question')}",
        one_question=len(questions) == 1,
        edits=list(dict.fromkeys(edit_text(one) for one in listenings)),
        notes=[*data.notes, *(text for one in listenings for text in _notes(one, len(listenings) > 1))],
        view=item_view_markup(data),
        view_style=Markup(style()),
        script=Markup(script()),
        script_hash=script_hash(script()),
        version=__version__,
    )


def _item(listening: Listening, place: int) -> ViewItem:
    answers = (listening.answer_before, listening.answer_after)
    scored = bool(listening.item.choices)
    rows = [
        {"predicted": answer, "logprob": logprob.tolist(), "text": None}
        if scored
        else {"predicted": None, "logprob": None, "text": answer}
        for answer, logprob in zip(answers, listening.logprob, strict=True)
    ]
    return ViewItem(
        id=f"{place}",
        name=listening.name,
        outcome="unchanged" if answers[0] == answers[1] else "changed",
        task="",
        domain="",
        caption_kind="",
        dose=None,
        choices=listening.item.choices if scored else (),  # type: ignore[arg-type]
        answer=None,
        claimed=None,
        rows=rows,
        recording=listening.recording,
    )


def _notes(listening: Listening, several: bool) -> list[str]:
    """What the attention of one clip shows, with the clip's name where there are several."""
    peak, top = int(listening.profile.argmax()), int(np.nanargmax(listening.share))
    start, end = listening.edges[peak : peak + 2]
    name = f"{printable(listening.name, 60)}: " if several else ""
    text = (
        f"{name}without MATA, attention is largest between {number(start)} and {number(end)} s, as a mean "
        f"over layers and heads. Of the attention to audio and text, without the first token, audio gets "
        f"{percent(float(np.nanmean(listening.share)), 0)} on average over layers; the maximum is "
        f"{percent(listening.share[top], 0)} in layer {listening.layers[top]}."
    )
    if len(listening.clip_starts) > 1:
        parts = clips_text(listening)
        text += f" {parts[0].upper()}{parts[1:]}."
    return [text]
