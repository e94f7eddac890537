"""Chats of evaluation harnesses as items: one message of the user with text and audio."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import soundfile

from ..benchmarks import Item
from ..errors import ArgumentError

if TYPE_CHECKING:
    from ..interventions import InterventionLike
    from ..lalm import LALM, Decoding

__all__ = ["ChatAnswer", "answer_messages", "item_from_messages"]


@dataclass(frozen=True)
class ChatAnswer:
    """An answer to a chat.

    Attributes:
        text: of the answer.
        stopped: whether it ended by itself; False where it was cut.
        input_tokens: of the prompt, audio included.
        output_tokens: of the answer.
        dose: the intervention's: name -> number; empty without one.
    """

    text: str
    stopped: bool
    input_tokens: int
    output_tokens: int
    dose: Mapping[str, float]


def item_from_messages(messages: Sequence[Any]) -> Item:
    """The item that a chat asks about.

    Args:
        messages: one message of the user, with ``role`` and ``content``; the content is a list of parts with
            ``type`` ``"text"`` (and ``text``) or ``"audio"`` (and ``audio``: a path or a ``data:`` URI).
            Objects with these attributes are accepted, too.

    Raises:
        ArgumentError: there are other messages or parts, or no audio or text.

    Example:
        >>> from mata_interp.harnesses import item_from_messages
        >>> audio, text = {"type": "audio", "audio": "dog.wav"}, {"type": "text", "text": "Which animal?"}
        >>> item_from_messages([{"role": "user", "content": [audio, text]}]).question
        'Which animal?'
    """
    if len(messages) != 1 or _value(messages[0], "role") != "user":
        roles = ", ".join(str(_value(message, "role")) for message in messages)
        raise ArgumentError(
            f"The chat has the messages {roles or 'none'}: a prompt is one message of the user, with its "
            "audio."
        )
    content = _value(messages[0], "content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    texts = [str(_value(part, "text")) for part in parts if _value(part, "type") == "text"]
    clips = [_audio(_value(part, "audio")) for part in parts if _value(part, "type") == "audio"]
    if len(texts) + len(clips) < len(parts):
        kinds = sorted({str(_value(part, "type")) for part in parts} - {"text", "audio"})
        raise ArgumentError(f"The chat has {', '.join(kinds)}: only text and audio can be asked about.")
    if not texts or not clips:
        raise ArgumentError(f"The chat has {len(texts)} texts and {len(clips)} clips: it needs both.")
    return Item(audio=clips[0] if len(clips) == 1 else clips, question="\n".join(texts))


def answer_messages(
    lalm: LALM,
    messages: Sequence[Any],
    intervention: InterventionLike = None,
    decoding: Decoding | None = None,
) -> ChatAnswer:
    """Answer a chat with an intervention in force.

    Args:
        lalm: the model.
        messages: those of `item_from_messages`.
        intervention: None, one, or several in order.
        decoding: greedy if None.
    """
    prompt = lalm.prompt(item_from_messages(messages))
    output = lalm.answer(prompt, intervention, decoding=decoding)
    return ChatAnswer(
        text=output.texts[0],
        stopped=bool(output.stopped[0]),
        input_tokens=prompt.width,
        output_tokens=int(output.lengths[0]),
        dose={name: float(values[0]) for name, values in output.dose.items()},
    )


def _value(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)


def _audio(source: Any) -> Any:
    """A path as it is; the sound in a ``data:`` URI as samples [n] and their rate."""
    text = str(source)
    if not text.startswith("data:"):
        return text
    try:
        samples, rate = soundfile.read(
            io.BytesIO(base64.b64decode(text.partition(",")[2], validate=True)),
            dtype="float32",
            always_2d=True,
        )
    except (binascii.Error, soundfile.SoundFileError) as error:
        raise ArgumentError(f"The audio of a chat cannot be read: {error}") from error
    return samples.mean(1), int(rate)
