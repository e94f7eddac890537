"""What a chat template writes for a user's message with audio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import TemplateError

from mata_interp.errors import ModelError

__all__ = ["MARK", "OTHER_TEMPLATE", "message_writer"]

MARK = "\ue000user text\ue000"  # stands for the user's text; private-use characters occur in no template
OTHER_TEMPLATE = (
    "Pass another one (chat_template=... of LALM.from_pretrained, --chat-template), or make the inputs "
    "yourself and use LALM.prompt_from_inputs."
)
_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)


def message_writer(processor: Any, clips: int) -> Callable[[str], str]:
    """A function that writes a conversation of one message of the user, whose text it takes.

    Templates tell the parts of a message apart by their type, or by a key that only one kind has
    (``'audio_url' in part``), so that each part has all keys of its kind. Templates that take a message as
    plain text, as Granite Speech's does, get the placeholders in front of it.

    Args:
        processor: with a chat template; ``audio_token`` is the text of a placeholder.
        clips: number of clips before the text.

    Raises:
        ModelError: the template fails on both.
    """
    audio = [{"type": "audio", "audio": "", "audio_url": ""} for _ in range(clips)]

    def write(turn: Mapping[str, Any]) -> str:
        return processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    def by_parts(text: str) -> str:
        return write({"role": "user", "content": [*audio, {"type": "text", "text": text}]})

    def as_text(text: str) -> str:
        return write({"role": "user", "content": processor.audio_token * clips + text})

    try:
        if "'type': 'text'" not in by_parts(MARK):  # else the template wrote the list itself
            return by_parts
        as_text(MARK)
    except _ERRORS as error:
        try:
            as_text(MARK)
        except _ERRORS:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ModelError(f"The chat template fails: {reason}. {OTHER_TEMPLATE}") from error
    return as_text
