"""Prompts of processors that take audio beside a text, which their chat template renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mata_interp.errors import ModelError

from .formats import Parts
from .groups import clip_group, groups_of_tokens
from .messages import ProcessorOutput
from .templates import MARK, OTHER_TEMPLATE, message_writer

__all__ = ["REMEDY", "SeveralClipsError", "ask_by_text", "render"]

REMEDY = "Make the inputs yourself and use LALM.prompt_from_inputs."


class SeveralClipsError(ModelError):
    """A processor that takes one clip in a prompt was given several."""


def ask_by_text(
    processor: Any,
    user_parts: Sequence[Parts],
    clips: Sequence[Sequence[np.ndarray]],
    *,
    audio_token_id: int,
    sampling_rate: int,
    padding: Mapping[str, Any],
) -> ProcessorOutput:
    """Inputs and groups from the text that the chat template renders.

    The arguments and errors are those of :func:`ask_by_messages`.
    """
    rendered = render(user_parts, processor, [len(clips_of_row) for clips_of_row in clips])
    texts = ["".join(text for _, text in parts) for parts in rendered]
    bos = processor.tokenizer.bos_token
    text_kwargs = {"add_special_tokens": not (bos and texts[0].startswith(bos))}  # no second BOS
    sounds = [clip for clips_of_row in clips for clip in clips_of_row]
    audio = {"audio": sounds, "audio_kwargs": {"sampling_rate": sampling_rate}} if sounds else {}
    settings = {**text_kwargs, **padding, "padding_side": "left"}
    placeholder = processor.tokenizer.convert_ids_to_tokens(audio_token_id)
    try:
        inputs = processor(text=texts, **audio, text_kwargs=settings, return_tensors="pt")
    except ValueError as error:
        reason = " ".join(str(error).split())
        if sounds and placeholder not in texts[0]:
            raise ModelError(
                f"The chat template writes no audio placeholder ({placeholder}) for a message with audio: "
                f"{reason.rstrip('.')}. {OTHER_TEMPLATE}"
            ) from error
        if all(len(clips_of_row) < 2 for clips_of_row in clips):
            raise
        raise SeveralClipsError(f"{type(processor).__name__} takes one in a prompt: {reason}") from error
    plain = processor.tokenizer(texts, return_offsets_mapping=True, **text_kwargs)

    def expansion(clip: np.ndarray) -> list[int]:
        """The tokens in place of a single clip's placeholder."""
        alone = ask_by_text(
            processor,
            [[("question", "?")]],
            [[clip]],
            audio_token_id=audio_token_id,
            sampling_rate=sampling_rate,
            padding={"padding": True},
        )
        written = render([[("question", "?")]], processor, [1])[0]
        text = processor.tokenizer("".join(part for _, part in written), **text_kwargs)["input_ids"]
        return _between(alone.inputs["input_ids"][0].tolist(), text, audio_token_id)

    rows = []
    for row, parts in enumerate(rendered):
        real = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        groups = groups_of_tokens(plain["offset_mapping"][row], parts)
        tokens = plain["input_ids"][row]
        if len(clips[row]) < 2:
            rows.append(_expand(real, tokens, groups, audio_token_id))
        else:
            expansions = [expansion(clip) for clip in clips[row]]
            rows.append(_expand_several(real, tokens, groups, audio_token_id, expansions))
    return ProcessorOutput(dict(inputs), rows, rendered[0][-1][1])


def render(parts_of: Sequence[Parts], processor: Any, clips: Sequence[int]) -> list[Parts]:
    """Each item's parts between what the chat template writes before them and after them.

    Args:
        parts_of: the parts of each item's text.
        processor: with a chat template.
        clips: number of clips of each item.

    Raises:
        ModelError: there is no template, it fails, or it alters the user's text.
    """
    if not getattr(processor, "chat_template", None):
        raise ModelError(f"The processor has no chat template. {REMEDY}")

    writers = {count: message_writer(processor, count) for count in set(clips)}
    texts_around = {count: write(MARK).split(MARK) for count, write in writers.items()}
    rendered = []
    for parts, count in zip(parts_of, clips, strict=True):
        around = texts_around[count]
        text = "".join(text for _, text in parts)
        if len(around) != 2 or writers[count](text) != text.join(around):
            raise ModelError(f"The chat template alters or repeats the user's text {text!r}. {REMEDY}")
        rendered.append([("template", around[0]), *parts, ("template", around[1])])
    return rendered


def _expand(real: list[int], plain: list[int], groups: list[str], audio_token_id: int) -> list[str]:
    """Groups of the processor's tokens ``real`` from those of ``plain``, with one placeholder a clip.

    Some processors put marks around a clip or, of time, inside it: they belong to the template.
    """
    if audio_token_id not in plain:
        if real == plain:
            return groups
        raise ModelError(_OTHER_TOKENS)
    place = plain.index(audio_token_id)
    clip = _between(real, plain, audio_token_id)
    sound = ["audio" if token == audio_token_id else "template" for token in clip]
    return [*groups[:place], *sound, *groups[place + 1 :]]


def _between(real: list[int], plain: list[int], audio_token_id: int) -> list[int]:
    """The tokens of ``real`` that stand for the single placeholder of ``plain``."""
    if plain.count(audio_token_id) == 1:
        place = plain.index(audio_token_id)
        before, after = plain[:place], plain[place + 1 :]
        end = len(real) - len(after)
        if len(before) <= end and real[: len(before)] == before and real[end:] == after:
            return real[len(before) : end]
    raise ModelError(_OTHER_TOKENS)


def _expand_several(
    real: list[int],
    plain: list[int],
    groups: list[str],
    audio_token_id: int,
    expansions: Sequence[Sequence[int]],
) -> list[str]:
    """The same for several clips, given the tokens that each has in a prompt of its own."""
    names: list[str] = []
    tokens: list[int] = []
    clips = iter(enumerate(expansions, 1))
    for token, group in zip(plain, groups, strict=True):
        if token != audio_token_id:
            names.append(group)
            tokens.append(token)
            continue
        number, expansion = next(clips, (0, ()))
        names += [clip_group(number) if token == audio_token_id else "template" for token in expansion]
        tokens += expansion
    if tokens != real or next(clips, None) is not None:
        raise ModelError(_OTHER_TOKENS)
    return names


_OTHER_TOKENS = (
    "The processor's tokens, audio placeholders aside, are not those of the chat template. " + REMEDY
)
