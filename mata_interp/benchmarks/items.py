"""One question about one sound."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ItemError
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
        caption_answer: the option that the caption speaks for.
        split: the part of the data file that the item is in.
        source: the recording or URL that the sound was cut from.
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
            object.__setattr__(self, "id", self.content_id)

    @property
    def content_id(self) -> str:
        """12 hex digits, the same for the same audio (its path or samples), words, choices and answer."""
        digest = hashlib.sha1(usedforsecurity=False)
        if isinstance(self.audio, tuple):
            samples, rate = self.audio
            digest.update(np.ascontiguousarray(samples).tobytes() + str(rate).encode())
        else:
            digest.update(str(self.audio).encode())
        digest.update(repr((self.question, self.choices, self.answer, self.caption)).encode())
        return digest.hexdigest()[:12]

    @cached_property
    def cluster(self) -> str:
        """What ties items together: the source recording if known, else the decoded sound's SHA-256.

        Items of one cluster are not independent: they never fall in two splits, and intervals count clusters.
        An item without audio is a cluster of its own.
        """
        if self.source:
            return self.source
        return self.id if self.audio is None else self.load_audio().sha256

    def load_audio(self, rate: int | None = None) -> Audio:
        """The decoded sound at ``rate`` Hz (``None``: its own); raises ItemError as `load_audio` does."""
        return load_audio(self.audio, rate, self.audio_root, self.id)

    def with_audio(self, audio: AudioSource | Item | None) -> Item:
        """The same item with another sound: a path, ``(samples, rate)``, or that of another item."""
        if isinstance(audio, Item):
            return replace(self, audio=audio.audio, audio_root=audio.audio_root)
        return replace(self, audio=audio)

    def validate(self) -> None:
        """Refuse an item that cannot be scored. Its sound is not decoded here.

        Raises:
            ItemError: no question, fewer than two choices, an empty or repeated choice, an answer or a
                ``caption_answer`` that is not among the choices.
        """
        if not self.question.strip():
            raise ItemError(self.id, "question", "it is empty.")
        if len(self.choices) < 2:
            raise ItemError(self.id, "choices", f"{list(self.choices)} leaves nothing to choose.")
        words = [choice.strip() for choice in self.choices]
        for choice in words:
            if not choice:
                raise ItemError(self.id, "choices", f"one of {list(self.choices)} is empty.")
            if words.count(choice) > 1:
                raise ItemError(self.id, "choices", f"{choice!r} is repeated in {list(self.choices)}.")
        for name, text in (("answer", self.answer), ("caption_answer", self.caption_answer)):
            if text is not None and text not in self.choices:
                raise ItemError(self.id, name, f"{text!r} is not among the choices {list(self.choices)}.")
