"""Conditions: what is done to the model, and what it is given to hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from ..errors import InterventionError
from ..interventions import AttentionEdit
from ..lalm import Decoding

__all__ = ["AudioKind", "Condition", "named_conditions"]

AudioKind = Literal["own", "other", "silence", "none"]
Edit: TypeAlias = AttentionEdit | Sequence[AttentionEdit] | None


@dataclass(frozen=True)
class Condition:
    """One way to answer every item.

    Attributes:
        intervention: None, one intervention, or a tuple of them, applied in order.
        audio: ``"own"``; ``"other"``: that of an item of another recording, the same for all conditions of a
            run; ``"silence"``: zeros of equal length; ``"none"``: no audio in the prompt, nor its markers.
            Prefer none to silence, which adds artefacts of its own (so a digest of arXiv 2604.24401).
        decoding: None: the options' log-probabilities are compared; a `Decoding`: the model answers in its
            own words, and the option is read from them.

    Raises:
        InterventionError: the audio is none of these, a part is no intervention, or has no audio to edit.
    """

    intervention: Edit = None
    audio: AudioKind = "own"
    decoding: Decoding | None = None

    def __post_init__(self) -> None:
        if self.audio not in get_args(AudioKind):
            raise InterventionError(
                f"audio={self.audio!r} is unknown; choose from {list(get_args(AudioKind))}."
            )
        if not isinstance(self.decoding, Decoding | None):
            raise InterventionError(f"decoding={self.decoding!r} is no Decoding: give one, or None.")
        for part in self.interventions:
            if not isinstance(part, AttentionEdit):
                raise InterventionError(
                    f"{part!r} is no intervention that runs and studies take: give None, an AttentionEdit "
                    "(mi.Mata, mi.Knockout) or a tuple of them."
                )
            if part.keys == "audio" and self.audio == "none":
                raise InterventionError(f"{part!r} edits attention to audio, and audio='none' leaves it out.")

    @property
    def interventions(self) -> tuple[AttentionEdit, ...]:
        """The interventions in order; empty for none."""
        if self.intervention is None:
            return ()
        return tuple(self.intervention) if isinstance(self.intervention, Sequence) else (self.intervention,)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; ``decoding`` only where there is one."""
        words = {} if self.decoding is None else {"decoding": self.decoding.to_dict()}
        return {
            "audio": self.audio,
            "interventions": [part.to_dict() for part in self.interventions],
            **words,
        }


def named_conditions(
    conditions: Mapping[str, Edit | Condition], decoding: Decoding | None = None
) -> dict[str, Condition]:
    """Every value as a `Condition`, checked; names must be words that can stand in a table.

    Args:
        decoding: of those that have none of their own.

    Raises:
        InterventionError: there is none, a name is empty, or a value is neither intervention nor Condition.
    """
    if not conditions:
        raise InterventionError('No condition is given; the plainest is {"baseline": None}.')
    for name in conditions:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InterventionError(f"{name!r} cannot name a condition; use a short text.")
    named = {
        name: value if isinstance(value, Condition) else Condition(value)
        for name, value in conditions.items()
    }
    return {name: replace(one, decoding=one.decoding or decoding) for name, one in named.items()}
