"""One question about a clip of audio, or about several."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ItemError
from .audio import Audio, AudioSource, audio_sources, joint_sha256, load_audio
from .clusters import SharedClips
from .values import is_missing, plain_value, quote, text_of

__all__ = ["Item"]

_TEXTS = ("question", "id", "caption", "domain", "kind", "condition", "split", "source")
_OPTIONAL_TEXTS = ("answer", "caption_answer")


@dataclass(frozen=True, eq=False)
class Item:
    """One question about a clip of audio, or about several, with its options.

    Missing values (None, NaN, ``pandas.NA``) are accepted for every field and mean that there is none.

    Attributes:
        audio: a path (relative to ``audio_root`` if that is set); ``(samples, rate)`` with samples ``[n]`` or
            ``[n, channels]`` and the rate in Hz; ``{"array": samples, "sampling_rate": rate}`` as in the
            datasets library; ``None``; or a list of these: several clips, in the order of the prompt.
        question: text of the question.
        choices: the options, as text; an item without options can be prompted but not scored.
        answer: text of the right option; ``None`` if it is not known.
        id: name of the item, unique in its benchmark; made from the content if omitted.
        caption: text shown with the question, such as a description or a transcript. It may be wrong.
        domain: ``"sound"``, ``"speech"``, ``"music"``, ...
        kind: kind of question, as finely as the benchmark distinguishes it.
        condition: relation of the caption to the audio: ``"neutral"``, ``"congruent"`` or ``"conflict"``.
        caption_answer: the option that the caption supports.
        split: part of the benchmark: ``"selection"`` and ``"confirmation"`` where the benchmark has these
            parts, else the name in its file.
        source: recording or URL that the audio was cut from.
        audio_root: folder that a path in ``audio`` may not leave.
        extra: all other fields of the record.

    Raises:
        ItemError: a field has a value of a wrong type; the error names the item and the field.

    Examples:
        >>> item = Item("dog.wav", "What is heard?", choices=["a dog", "a bell"], answer="a dog")
        >>> item.choices, item.caption, len(item.id)
        (('a dog', 'a bell'), '', 12)
        >>> item.validate()
        >>> len(Item(["dog.wav", "bell.wav"], "Which clip has a dog?").clips)
        2
    """

    audio: AudioSource | Sequence[AudioSource] | Mapping[str, Any] | None
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
    shared_clips: SharedClips | None = field(default=None, repr=False)  # set by `Items`

    def __post_init__(self) -> None:
        name = self.id if isinstance(self.id, str) else text_of(self.id) or ""
        for key in (*_TEXTS, *_OPTIONAL_TEXTS):
            value = getattr(self, key)
            if not isinstance(value, str):
                text = text_of(value)
                if text is None:
                    raise ItemError(name, key, f"{quote(value)} is not a text.")
                self._set(key, None if key in _OPTIONAL_TEXTS and is_missing(value) else text)
        self._set("choices", _choices(self.choices, name))
        self._set("audio", audio_sources(self.audio, name))
        if not self.id:
            self._set("id", self.content_id)

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)  # the class is frozen

    @property
    def content_id(self) -> str:
        """12 hex digits from audio (its path or samples), question, choices, answer and caption."""
        digest = hashlib.sha1(usedforsecurity=False)
        for clip in self.clips or (None,):
            if isinstance(clip, tuple):
                samples, rate = clip
                digest.update(np.ascontiguousarray(samples).tobytes() + str(rate).encode())
            else:
                digest.update(str(clip).encode())
        digest.update(repr((self.question, self.choices, self.answer, self.caption)).encode())
        return digest.hexdigest()[:12]

    @property
    def clips(self) -> tuple[AudioSource, ...]:
        """The clips, in the order in which they are heard: none, one or several."""
        if isinstance(self.audio, list):
            return tuple(self.audio)
        return () if self.audio is None else (self.audio,)  # type: ignore[return-value]

    @cached_property
    def cluster(self) -> str:
        """The unit of resampling: the source recording if known, else the SHA-256 of the decoded audio.

        Items of one cluster are not independent: a split never separates them, and confidence intervals
        resample clusters. An item without audio is a cluster of its own. In a collection (`Items`) where some
        item has several clips, items that share a clip, directly or through other items, are one cluster.

        Raises:
            ItemError: there is no source, and the audio cannot be decoded.
        """
        shared = None if self.shared_clips is None else self.shared_clips[self.id]
        if shared is not None:
            return shared
        if self.source:
            return self.source
        return joint_sha256(self.load_clips()) if self.clips else self.id

    def load_audio(self, rate: int | None = None) -> Audio:
        """Decode the audio of an item with one clip to mono float32.

        Args:
            rate: sampling rate of the result, Hz; ``None`` keeps the file's own.

        Raises:
            ItemError: the audio is missing or cannot be decoded, or there are several clips.
        """
        first, *more = self.load_clips(rate)
        if more:
            raise ItemError(self.id, "audio", f"it has {1 + len(more)} clips.", "Use load_clips.")
        return first

    def load_clips(self, rate: int | None = None) -> tuple[Audio, ...]:
        """Decode every clip to mono float32.

        Args:
            rate: sampling rate of the result, Hz; ``None`` keeps each file's own.

        Raises:
            ItemError: there is no audio, or a clip cannot be decoded; of several clips, the number is named.
        """
        clips = self.clips
        if len(clips) < 2:
            return (load_audio(clips[0] if clips else None, rate, self.audio_root, self.id),)
        decoded = []
        for number, clip in enumerate(clips, 1):
            try:
                decoded.append(load_audio(clip, rate, self.audio_root, self.id))
            except ItemError as error:
                problem = f"clip {number} of {len(clips)}: {error.problem}"
                raise ItemError(self.id, "audio", problem, error.remedy) from error
        return tuple(decoded)

    def with_audio(self, audio: AudioSource | Sequence[AudioSource] | Item | None) -> Item:
        """The same item with other audio: what ``audio`` of an item may be, or that of another item."""
        if isinstance(audio, Item):
            audio, root = audio.audio, audio.audio_root  # type: ignore[assignment]
        else:
            root = self.audio_root
        return replace(self, audio=audio, audio_root=root, shared_clips=None)

    def __getstate__(self) -> dict[str, Any]:
        """Without the collection that the item is of, whose label for it is kept."""
        if self.shared_clips is None:
            return self.__dict__
        state = {**self.__dict__, "shared_clips": None}
        if (label := self.shared_clips[self.id]) is not None:
            state["cluster"] = label
        return state

    def validate(self) -> None:
        """Check that the item can be scored. The audio is not decoded here.

        Raises:
            ItemError: there is no question, there are fewer than two choices, a choice is empty or repeated,
                or the answer or ``caption_answer`` is not among the choices.
        """
        if not self.question.strip():
            raise ItemError(self.id, "question", "it is empty.")
        if len(self.choices) < 2:
            raise ItemError(self.id, "choices", f"{quote(list(self.choices))} has fewer than two options.")
        texts = [choice.strip() for choice in self.choices]
        for choice in texts:
            if not choice:
                raise ItemError(self.id, "choices", f"one of {quote(list(self.choices))} is empty.")
            if texts.count(choice) > 1:
                problem = f"{quote(choice)} is repeated in {quote(list(self.choices))}."
                raise ItemError(self.id, "choices", problem)
        for name, text in (("answer", self.answer), ("caption_answer", self.caption_answer)):
            if text is not None and text not in self.choices:
                problem = f"{quote(text)} is not among the choices {quote(list(self.choices))}."
                raise ItemError(self.id, name, problem)


def _choices(value: Any, name: str) -> tuple[str, ...]:
    """Options as a tuple of texts."""
    value = plain_value(value)
    if value is None:
        return ()
    if isinstance(value, str):
        raise ItemError(name, "choices", f"{quote(value)} is one text.", "Give a list of texts.")
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise ItemError(name, "choices", f"{quote(value)} is not a list of texts.")
    options = list(value)
    for option in options:
        if is_missing(option) or not isinstance(option, str | int | float):
            raise ItemError(name, "choices", f"{quote(options)} is not a list of texts.")
    return tuple(option if isinstance(option, str) else str(option) for option in options)
