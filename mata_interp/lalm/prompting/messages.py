"""Prompts of processors that take audio in their chat template only, and whose tokens have no offsets.

Such a processor (Voxtral's, through mistral-common) turns messages into tokens without an intermediate text.
The text of each token is found by decoding the tokens one after another.
"""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import soundfile
from torch import Tensor

from mata_interp.errors import ModelError

from .formats import Parts
from .groups import clip_group, groups_of_tokens
from .templates import MARK

__all__ = ["ProcessorOutput", "ask_by_messages", "number_clips", "places_by_decoding", "takes_audio_in_call"]

_UNFINISHED = "\ufffd"  # what the first bytes of a character decode to


class ProcessorOutput(NamedTuple):
    """What a processor makes of a batch.

    Attributes:
        inputs: of the model.
        rows: the group of every real token of each row; of a row with several clips, ``audio_1``, ...
        after: what the template writes after the user's text.
    """

    inputs: dict[str, Tensor]
    rows: list[list[str]]
    after: str


def takes_audio_in_call(processor: Any) -> bool:
    """Whether a processor takes audio beside a text, and its tokenizer has offsets."""
    parameters = inspect.signature(type(processor).__call__).parameters
    return "audio" in parameters and bool(getattr(processor.tokenizer, "is_fast", False))


def ask_by_messages(
    processor: Any,
    user_parts: Sequence[Parts],
    clips: Sequence[Sequence[np.ndarray]],
    *,
    audio_token_id: int,
    sampling_rate: int,
    padding: Mapping[str, Any],
) -> ProcessorOutput:
    """The processor's inputs for user texts with audio, and the group of every real token of each row.

    Args:
        processor: its ``apply_chat_template`` returns ``input_ids``, ``attention_mask`` and the audio.
        user_parts: the parts of the user's text, one list per row.
        clips: the samples of each row's clips; empty lists for prompts without audio.
        audio_token_id: the id of the placeholder.
        sampling_rate: of the audio, in Hz.
        padding: the tokenizer's padding settings; its side is the left.

    Raises:
        ModelError: the processor fails, drops the audio, alters the user's text, or has tokens whose texts do
            not add up to the whole text.
    """

    def ask(
        texts: Sequence[str], clips: Sequence[Sequence[np.ndarray]], padding: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        turns = [
            _turn(text, clips_of_row, sampling_rate) for text, clips_of_row in zip(texts, clips, strict=True)
        ]
        with _padded_on_the_left(processor.tokenizer):
            made = processor.apply_chat_template(
                turns,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"text_kwargs": dict(padding)},
            )
        return dict(made)

    def split_audio(inputs: Mapping[str, Tensor], row: int = 0) -> tuple[list[bool], list[int]]:
        """Whether each real token of a row is audio, and the tokens that are not."""
        real = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        return [token == audio_token_id for token in real], [
            token for token in real if token != audio_token_id
        ]

    def audio_tokens(clip: np.ndarray) -> int:
        return sum(split_audio(ask([MARK], [[clip]], {"padding": True}))[0])

    kind, tokenizer = type(processor).__name__, processor.tokenizer
    users = ["".join(text for _, text in parts) for parts in user_parts]
    try:
        inputs = ask(users, clips, padding)
        probes = {
            len(clips_of_row): split_audio(ask([MARK], [clips_of_row], {"padding": True}))[1]
            for clips_of_row in clips
        }
        counts = [
            [audio_tokens(clip) for clip in clips_of_row] if len(clips_of_row) > 1 else []
            for clips_of_row in clips
        ]
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
        raise ModelError(_refusal(kind, tokenizer, " ".join(str(error).split()))) from error
    marked = [any(split_audio(inputs, row)[0]) for row in range(len(user_parts))]
    if any(clips) and (not all(marked) or not set(inputs) - {"input_ids", "attention_mask"}):
        raise ModelError(_refusal(kind, tokenizer, "its inputs hold no audio"))

    texts_around = {count: _decode(tokenizer, probe).split(MARK) for count, probe in probes.items()}
    rows = []
    for row, (user, parts) in enumerate(zip(users, user_parts, strict=True)):
        around = texts_around[len(clips[row])]
        is_audio, tokens = split_audio(inputs, row)
        text, places = places_by_decoding(tokenizer, tokens)
        if len(around) != 2 or text != user.join(around):
            raise ModelError(f"{kind}'s chat template alters or repeats the user's text {user!r}.")
        whole = [("template", around[0]), *parts, ("template", around[1])]
        groups = iter(groups_of_tokens(places, whole))
        names = ["audio" if token_is_audio else next(groups) for token_is_audio in is_audio]
        rows.append(number_clips(names, counts[row], kind))
    return ProcessorOutput(inputs, rows, around[1])


def number_clips(names: Sequence[str], counts: Sequence[int], kind: str) -> list[str]:
    """A row's groups in which the audio tokens are named by their clip.

    Args:
        names: the group of each token.
        counts: number of audio tokens of each clip, in order; empty where there is at most one clip.
        kind: of the processor, for the error.

    Raises:
        ModelError: the row does not have as many audio tokens as its clips have by themselves.
    """
    if not counts:
        return list(names)
    if names.count("audio") != sum(counts):
        raise ModelError(
            f"{kind} writes {names.count('audio')} audio tokens for clips that have {list(counts)} alone, so "
            "that they cannot be told apart. Ask about one clip at a time."
        )
    owners = iter([clip_group(number) for number, count in enumerate(counts, 1) for _ in range(count)])
    return [next(owners) if name == "audio" else name for name in names]


def places_by_decoding(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text of tokens, and (start, end) of each token in it, like a fast tokenizer's offsets.

    A token that holds only some bytes of a character has the offsets of that character.

    Raises:
        ModelError: the text of the first tokens is not the beginning of the whole text.
    """
    text, places, reached = _decode(tokenizer, tokens), [], 0
    for end in range(1, len(tokens) + 1):
        prefix = _decode(tokenizer, tokens[:end])
        finished = text.startswith(prefix)
        whole = prefix if finished else prefix.rstrip(_UNFINISHED)
        if not text.startswith(whole):
            raise ModelError(
                f"The tokens of {text!r} have no offsets: the first {end} of them decode to {prefix!r}."
            )
        start, reached = reached, max(reached, len(whole))
        places.append((start, reached if finished else min(reached + 1, len(text))))
    return text, places


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    return tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _turn(text: str, clips: Sequence[np.ndarray], rate: int) -> list[dict[str, Any]]:
    """A conversation of one turn. Audio is passed as files in memory with their samples unchanged."""
    content: list[dict[str, Any]] = []
    for clip in clips:
        file = io.BytesIO()
        soundfile.write(file, clip, rate, format="WAV", subtype="FLOAT")
        content.append({"type": "audio", "base64": base64.b64encode(file.getvalue()).decode("ascii")})
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


@contextmanager
def _padded_on_the_left(tokenizer: Any):
    """Inside, the tokenizer pads on the left; some tokenizers do not take the side as an argument."""
    before = tokenizer.padding_side
    tokenizer.padding_side = "left"
    try:
        yield
    finally:
        tokenizer.padding_side = before


def _refusal(kind: str, tokenizer: Any, why: str) -> str:
    return (
        f"{kind} makes no prompts with a {type(tokenizer).__name__}: {why.rstrip('.')}. Its own "
        "tokenizer may need a package that is missing here, or too old, as Voxtral's needs mistral-common: "
        "pip install 'mata-interp[families]', then load the processor again."
    )
