"""One question about one sound."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mata_interp.errors import ItemError

from .audio import Audio, AudioSource, load_audio

__all__ = ["Item"]


@dataclass(frozen=True, eq=False)
class Item:
    """One question about one sound, with its options.

    Attributes:
        audio: a path (relative to ``audio_root`` if that is given), ``(samples, rate)``, or ``None``.
        question: the question's words.
        choices: the options, as text; an item without can be asked but not scored.
        answer: the right option's text; ``None`` where it is not known.
        id: made from the content if not given.
        caption: other text shown with the question: a description, a transcript. It may be wrong.
        domain: ``"sound"``, ``"speech"``, ``"music"``, ...
        kind: the finest name there is for the kind of question.
        condition: what the caption does: ``"neutral"``, ``"congruent"`` or ``"conflict"``.
        caption_answer: the option the caption speaks for.
        split: the split that the data file puts the item in.
        source: the recording or URL the sound was cut from.
        audio_root: the folder that a path in ``audio`` may not leave.
        extra: all other fields of the data file.
    """

    audio: AudioSource | None
    question: str
    choices: Sequence[str] = ()
    answer: str | None = None
    id: str = ""
    caption: str = ""
    domain: str = ""
    kind: str = ""
    condition: str = ""
    caption_answer: str | None = None
    split: str = ""
    source: str = ""
    audio_root: str | Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.choices, str):
            raise ItemError(self.id, "choices", f"{self.choices!r} is one text.", "Give a list of texts.")
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.id:
            object.__setattr__(self, "id", self._content_id())

    def _content_id(self) -> str:
        """12 hex digits, the same for the same audio, question, choices, answer and caption."""
        digest = hashlib.sha1(usedforsecurity=False)
        if isinstance(self.audio, tuple):
            digest.update(np.ascontiguousarray(self.audio[0]).tobytes())
            digest.update(str(self.audio[1]).encode())
        else:
            digest.update(str(self.audio).encode())
        digest.update(repr((self.question, self.choices, self.answer, self.caption)).encode())
        return digest.hexdigest()[:12]

    def load_audio(self, rate: int | None = None) -> Audio:
        """The decoded sound at ``rate`` Hz (``None``: its own); see `load_audio` for what is refused."""
        return load_audio(self.audio, rate, self.audio_root, self.id)

    def with_audio(self, audio: AudioSource | Item | None) -> Item:
        """The same question about another sound: a path, ``(samples, rate)``, or another item's."""
        if isinstance(audio, Item):
            return replace(self, audio=audio.audio, audio_root=audio.audio_root)
        return replace(self, audio=audio)

    @cached_property
    def cluster(self) -> str:
        """What ties items together: the source recording if known, else the decoded sound's SHA-256.

        Items of one cluster are not independent: they never fall in two splits, and intervals count clusters.
        """
        if self.source:
            return self.source
        return self.id if self.audio is None else self.load_audio().sha256

    def validate(self) -> None:
        """Refuse an item that cannot be scored. Its sound is not decoded here.

        Raises:
            ItemError: no question, no choices or a single one, a repeated or empty choice, an answer (or
                ``caption_answer``) that is not among the choices.
        """
        if not self.question.strip():
            raise ItemError(self.id, "question", "it is empty.")
        if len(self.choices) < 2:
            raise ItemError(self.id, "choices", f"{list(self.choices)} leaves nothing to choose.")
        seen = set()
        for choice in self.choices:
            if not choice.strip():
                raise ItemError(self.id, "choices", f"{choice!r} is empty.")
            if choice in seen:
                raise ItemError(self.id, "choices", f"{choice!r} is repeated.")
            seen.add(choice)
        for name, text in (("answer", self.answer), ("caption_answer", self.caption_answer)):
            if text is not None and text not in seen:
                raise ItemError(self.id, name, f"{text!r} is not among the choices {list(self.choices)}.")
