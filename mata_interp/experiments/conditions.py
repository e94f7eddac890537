"""Conditions: an intervention, the audio that the model is given, and how it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from ..errors import ArgumentTypeError, InterventionError
from ..interventions import (
    AttentionEdit,
    InterventionLike,
    MissingMethod,
    in_order,
    read_method,
    record_of,
)
from ..lalm import Decoding

__all__ = ["DOSE_MATCHED", "ROLES", "AudioKind", "Condition", "Edit", "Role", "named_conditions"]

AudioKind = Literal["own", "other", "silence", "none", "reversed"]
Edit: TypeAlias = InterventionLike

Role = Literal[
    "baseline",
    "mata",
    "sham_text",
    "sham_random_layers",
    "other_audio",
    "mata_other_audio",
    "no_audio",
    "silence",
    "mata_silence",
    "reversed_audio",
    "mata_reversed_audio",
    "sham_random_heads",
    "sham_random_signs",
    "other",
]
"""What a condition is in a study. ``"sham_text"``: the same rule on text tokens. ``"sham_random_layers"``:
MATA in randomly drawn layers. ``"other_audio"`` and ``"mata_other_audio"``: another item's audio, without and
with MATA; ``"silence"``, ``"mata_silence"``, ``"reversed_audio"`` and ``"mata_reversed_audio"`` likewise.
``"sham_random_heads"`` and ``"sham_random_signs"``: MATA in a random half of the heads, and with the opposite
sign in the other half. ``"other"``: none of these."""

ROLES: tuple[Role, ...] = get_args(Role)

DOSE_MATCHED: tuple[Role, ...] = (
    "sham_text",
    "sham_random_layers",
    "sham_random_heads",
    "sham_random_signs",
)
"""Controls to which a study gives the alpha at which they change attention as much as MATA. Other controls
change the input, which has no strength to choose."""

_UNEDITED: dict[AudioKind, Role] = {
    "own": "baseline",
    "other": "other_audio",
    "none": "no_audio",
    "silence": "silence",
    "reversed": "reversed_audio",
}


@dataclass(frozen=True)
class Condition:
    """One way to answer every item.

    Attributes:
        intervention: None, one intervention, or a tuple of them, applied in order.
        audio: ``"own"``; ``"other"``: the audio of an item of another recording, the same in all conditions
            of a run; ``"silence"``: zeros of equal length; ``"reversed"``: its own audio
            backwards; ``"none"``: a prompt without audio and its markers. Prefer ``"none"`` to
            ``"silence"``, which adds artefacts of its own (according to a digest of arXiv 2604.24401).
        decoding: None: compare the options' log-probabilities. A `Decoding`: generate an answer, and parse
            the option from it.
        role: What the condition is in a study; None: `inferred_role` applies.

    Raises:
        InterventionError: ``audio`` or ``role`` is unknown, a part is no intervention, its class is not
            registered, or it acts on audio that the prompt leaves out.

    >>> Condition(audio="none").inferred_role
    'no_audio'
    """

    intervention: Edit = None
    audio: AudioKind = "own"
    decoding: Decoding | None = None
    role: Role | None = None

    def __post_init__(self) -> None:
        if self.audio not in get_args(AudioKind):
            raise InterventionError(
                f"audio={self.audio!r} is unknown; choose from {list(get_args(AudioKind))}."
            )
        if self.role is not None and self.role not in ROLES:
            raise InterventionError(f"role={self.role!r} is unknown; choose from {list(ROLES)}, or None.")
        if not isinstance(self.decoding, Decoding | None):
            raise InterventionError(f"decoding={self.decoding!r} is not a Decoding; pass one, or None.")
        parts = in_order(self.intervention)
        for part in self.interventions:
            record_of(part)  # a run folder has to hold it
        for part in parts:
            if self.audio == "none" and _needs_audio(part):
                raise InterventionError(f"{part!r} acts on audio, and audio='none' leaves it out.")

    @property
    def interventions(self) -> tuple[Any, ...]:
        """The interventions in order; empty for none."""
        if self.intervention is None:
            return ()
        return tuple(self.intervention) if isinstance(self.intervention, Sequence) else (self.intervention,)

    @property
    def inferred_role(self) -> Role:
        """``role`` if it is set, else what audio and interventions imply."""
        if self.role is not None:
            return self.role
        if not self.interventions:
            return _UNEDITED[self.audio]
        if not all(isinstance(part, AttentionEdit) for part in self.interventions):
            return "other"
        if any(part.keys != "audio" for part in self.interventions):
            return "sham_text" if self.audio == "own" else "other"
        edited: dict[AudioKind, Role] = {"own": "mata", "other": "mata_other_audio"}
        return edited.get(self.audio, "other")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; ``decoding`` and ``role`` only where they are set."""
        data: dict[str, Any] = {
            "audio": self.audio,
            "interventions": [record_of(part) for part in self.interventions],
        }
        if self.decoding is not None:
            data["decoding"] = self.decoding.to_dict()
        if self.role is not None:
            data["role"] = self.role
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], recorded_role: Role | None = None) -> Condition:
        """The condition that `to_dict` described, also after a round trip through JSON.

        A method whose class is not known here, or has another source, becomes a `MissingMethod`, which shows
        what is missing and refuses to act. So does an edit by a rule that is not registered.

        Args:
            data: What `to_dict` returned.
            recorded_role: The condition's `inferred_role` where it was run; used where a method is missing
                here, which implies no role.
        """
        decoding = data.get("decoding")
        parts = tuple(map(read_method, data["interventions"]))
        missing = any(isinstance(part, MissingMethod) for part in parts)
        return cls(
            intervention=parts or None,
            audio=data["audio"],
            decoding=None if decoding is None else Decoding(**decoding),
            role=data.get("role") or (recorded_role if missing else None),
        )


def _needs_audio(part: Any) -> bool:
    """Whether an intervention makes no sense in a prompt without audio."""
    keys = getattr(part, "keys", "")
    on_audio = isinstance(keys, str) and keys.partition(":")[0] == "audio"
    return on_audio or hasattr(part, "negative_prompt") or hasattr(part, "measure")


def named_conditions(
    conditions: Mapping[str, Edit | Condition], decoding: Decoding | None = None
) -> dict[str, Condition]:
    """Every value as a `Condition`, with its name checked: a short printable text.

    Args:
        conditions: Name -> None, an intervention, a tuple of them, or a `Condition`.
        decoding: Decoding of the conditions that have none of their own.

    Raises:
        InterventionError: There is no condition, a name is empty, or a value is neither intervention nor
            Condition.
    """
    if not isinstance(conditions, Mapping):
        raise ArgumentTypeError(
            f"The conditions are a {type(conditions).__name__}, not a mapping: give names to them, such as "
            '{"baseline": None, "mata": mi.Mata(0.1)}.'
        )
    if not conditions:
        raise InterventionError('There is no condition; the simplest is {"baseline": None}.')
    for name in conditions:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InterventionError(f"{name!r} cannot name a condition; use a short printable text.")
    named = {
        name: value if isinstance(value, Condition) else Condition(value)
        for name, value in conditions.items()
    }
    return {name: replace(one, decoding=one.decoding or decoding) for name, one in named.items()}
