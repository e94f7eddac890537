"""From items to a model's inputs, with the group of every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mata_interp.benchmarks import Item
from mata_interp.compat import input_device
from mata_interp.errors import ArgumentError, ItemError, ModelError
from mata_interp.precision import full_precision

from ..discovery.quantised import compute_dtype
from .formats import PROMPT_FORMATS, Parts, canonical_format
from .groups import group_masks, groups_of_tokens
from .messages import MARK, ask_by_messages, takes_audio_in_call
from .templates import OTHER_TEMPLATE, message_writer
from .vocabulary import special_tokens

__all__ = ["PROMPT_FORMATS", "Prompt", "build_prompt", "prompt_from_inputs"]

_REMEDY = "Make the inputs yourself and use LALM.prompt_from_inputs."


@dataclass(frozen=True, eq=False, repr=False)
class Prompt:
    """Model inputs of B prompts of width T, left-padded and collated once.

    Attributes:
        inputs: what the model's forward takes: ``input_ids[B, T]``, ``attention_mask[B, T]``, the audio, ...;
            settings that are no tensors are passed on.
        groups: a mask ``bool[B, T]`` for each of GROUPS; each real token is in exactly one, padding in none.
        items: the items, one per row.
        audio_seconds: seconds of audio that the model receives, one per row; NaN where not known.
        truncated_seconds: seconds cut off the end because the model takes no more, one per row.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> prompt = lalm.prompt(items[:2])
        >>> prompt.size, prompt.width == prompt.inputs["input_ids"].shape[1]
        (2, True)
        >>> bool(prompt.groups["audio"].any(1).all())
        True
    """

    inputs: dict[str, Tensor]
    groups: dict[str, Tensor]
    items: tuple[Item, ...]
    audio_seconds: tuple[float, ...]
    truncated_seconds: tuple[float, ...]

    @property
    def size(self) -> int:
        """B, the number of rows."""
        return self.inputs["input_ids"].shape[0]

    @property
    def width(self) -> int:
        """T, the number of tokens of the longest row; the others are padded to it."""
        return self.inputs["input_ids"].shape[1]

    def __repr__(self) -> str:
        audio = int(self.groups["audio"].sum()) if "audio" in self.groups else 0
        names = [item.id for item in self.items[:3]] + ["..."] * (self.size > 3)
        return (
            f"<Prompt {self.size} x {self.width} tokens, {audio} of audio, on "
            f"{self.inputs['input_ids'].device}: {', '.join(names)}>"
        )

    def to(self, model: Any) -> Prompt:
        """The same prompt on a device or, of a model, as its forward takes it.

        Args:
            model: a device; or a transformers model, whose device is taken, and whose dtype for audio
                features. Where the model's forward has ``sample``, as VibeVoice's does, which then adds
                random noise to the audio, it is set to False unless the inputs say otherwise: the same
                prompt is then the same prompt twice.
        """
        device: Any = input_device(model) if isinstance(model, nn.Module) else model
        inputs: dict[str, Any] = {
            name: x.to(device) if isinstance(x, Tensor) else x for name, x in self.inputs.items()
        }
        groups = {name: mask.to(device) for name, mask in self.groups.items()}
        if isinstance(model, nn.Module):
            dtype = compute_dtype(model)
            inputs = {
                name: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
                for name, x in inputs.items()
            }
            noisy = signature(model.forward).parameters.get("sample")
            if noisy is not None and noisy.default is True:
                inputs.setdefault("sample", False)
        return replace(self, inputs=inputs, groups=groups)


def prompt_from_inputs(
    inputs: Mapping[str, Tensor], audio_token_id: int, ids: Sequence[str] | None = None
) -> Prompt:
    """A prompt from ready-made inputs; the arguments and errors are those of `LALM.prompt_from_inputs`.

    Args:
        audio_token_id: the id of the audio placeholder.
    """
    tokens = inputs["input_ids"]
    real = inputs.get("attention_mask", torch.ones_like(tokens)).bool()
    if not real[:, -1].all() or (real[:, 1:] < real[:, :-1]).any():
        raise ModelError("These inputs are not left-padded: every row must end in its last real token.")
    names = [str(row) for row in range(len(tokens))] if ids is None else list(ids)
    if len(names) != len(tokens):
        raise ModelError(f"{len(names)} ids for {len(tokens)} rows of inputs.")
    rows = [
        ["audio" if is_audio else "question" for is_audio in row[keep].tolist()]
        for row, keep in zip(tokens == audio_token_id, real, strict=True)
    ]
    if any(row.count("audio") == 1 for row in rows):
        raise ModelError("A row has one audio placeholder: expand it to one per frame, as processors do.")
    masks = group_masks(rows, tokens.shape[1])
    return Prompt(
        inputs=dict(inputs),
        groups={name: mask.to(tokens.device) for name, mask in masks.items()},
        items=tuple(Item(audio=None, question="", id=name) for name in names),
        audio_seconds=(float("nan"),) * len(names),
        truncated_seconds=(0.0,) * len(names),
    )


@full_precision()  # processors compute features, some of them with torch
def build_prompt(
    processor: Any,
    items: Item | Sequence[Item],
    *,
    audio_token_id: int,
    sampling_rate: int,
    max_audio_seconds: float | None,
    audio: str | None = "own",
    format: str = "options",
    width: int | None = None,
) -> Prompt:
    """Format ``items`` with the processor's chat template: as text, or as messages where it needs these.

    Args:
        processor: with a chat template and a fast tokenizer, or with an ``apply_chat_template`` that takes
            audio.
        items: one or several.
        audio_token_id: the id of the placeholder that the processor repeats once for each frame of audio.
        sampling_rate: of the audio that the model takes, in Hz.
        max_audio_seconds: the longest audio that the model takes; None for any. Longer audio loses its end,
            and ``truncated_seconds`` says how much.
        audio: ``"own"``, or None to leave the audio and its marks out altogether.
        format: one of PROMPT_FORMATS.
        width: number of tokens to pad to, as in a larger batch; that of the longest item if None.

    Raises:
        ItemError: the audio cannot be used, or a text holds a special token of the tokenizer.
        ModelError: the groups are not certain: no chat template, a template that alters the user's text, or
            tokens that are not those of the rendered text.
        ArgumentError: a format or an ``audio`` that does not exist.
    """
    items = (items,) if isinstance(items, Item) else tuple(items)
    if not items:
        raise ArgumentError("A prompt needs at least one item.")
    canonical_format(format)
    if audio not in ("own", None):
        raise ArgumentError(f"audio is 'own' or None, not {audio!r}.")
    if getattr(processor, "tokenizer", None) is None:
        raise ModelError(f"A {type(processor).__name__} has no tokenizer. {_REMEDY}")
    _refuse_special_tokens(items, processor.tokenizer, audio_token_id)

    sounds, seconds, cut = _sounds(items, sampling_rate, max_audio_seconds) if audio else _no_sounds(items)
    ask = _ask_by_text if takes_audio_in_call(processor) else ask_by_messages
    inputs, rows = ask(
        processor,
        [PROMPT_FORMATS[format](item) for item in items],
        sounds,
        audio_token_id=audio_token_id,
        sampling_rate=sampling_rate,
        padding={"padding": True} if width is None else {"padding": "max_length", "max_length": width},
    )
    found = inputs["input_ids"].shape[1]
    if width is not None and found != width:
        raise ModelError(f"The prompt has {found} tokens instead of {width}.")
    for row, item in enumerate(items):
        if sounds and "audio" not in rows[row] and seconds[row] >= 1:
            raise ModelError(
                f"The chat template and the processor wrote no audio placeholder for {seconds[row]:g} s of "
                f"audio. {OTHER_TEMPLATE}"
            )
        # Qwen2-Audio takes a lone placeholder for one still to be expanded, and generate then crashes.
        if sounds and (tokens := rows[row].count("audio")) < 2:
            problem = f"{seconds[row]:.3f} s is too short: it gives {tokens} audio tokens, and 2 are needed."
            raise ItemError(item.id, "audio", problem)
    return Prompt(inputs, group_masks(rows, found), items, tuple(seconds), tuple(cut))


def _ask_by_text(
    processor: Any,
    asked: Sequence[Parts],
    sounds: Sequence[np.ndarray],
    *,
    audio_token_id: int,
    sampling_rate: int,
    padding: Mapping[str, Any],
) -> tuple[dict[str, Tensor], list[list[str]]]:
    """Inputs and groups from the text that the chat template renders; see :func:`ask_by_messages`."""
    rendered = _render(asked, processor, with_audio=bool(sounds))
    texts = ["".join(text for _, text in parts) for parts in rendered]
    bos = processor.tokenizer.bos_token
    text_kwargs = {"add_special_tokens": not (bos and texts[0].startswith(bos))}  # no second BOS
    placeholder = processor.tokenizer.convert_ids_to_tokens(audio_token_id)
    try:
        inputs = processor(
            text=texts,
            **({"audio": sounds, "audio_kwargs": {"sampling_rate": sampling_rate}} if sounds else {}),
            text_kwargs={**text_kwargs, **padding, "padding_side": "left"},
            return_tensors="pt",
        )
    except ValueError as error:
        if not sounds or placeholder in texts[0]:
            raise
        raise ModelError(
            f"The chat template writes no audio placeholder ({placeholder}) for a message with audio: "
            f"{' '.join(str(error).split()).rstrip('.')}. {OTHER_TEMPLATE}"
        ) from error
    plain = processor.tokenizer(texts, return_offsets_mapping=True, **text_kwargs)
    rows = []
    for row, parts in enumerate(rendered):
        real = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        groups = groups_of_tokens(plain["offset_mapping"][row], parts)
        rows.append(_expand(real, plain["input_ids"][row], groups, audio_token_id))
    return dict(inputs), rows


def _refuse_special_tokens(items: Sequence[Item], tokenizer: Any, audio_token_id: int) -> None:
    """Refuse texts with special tokens, which could end the user's turn or stand for a placeholder."""
    special = {*special_tokens(tokenizer).values(), *tokenizer.all_special_tokens}
    special.add(tokenizer.convert_ids_to_tokens(audio_token_id))
    for item in items:
        texts = [("question", item.question), ("caption", item.caption)]
        texts += [("choices", choice) for choice in item.choices]
        for field, text in texts:
            for token in sorted(special):
                if token in text:
                    problem = f"{text!r} holds the special token {token!r}."
                    raise ItemError(item.id, field, problem, "Take it out of the text.")


def _sounds(
    items: Sequence[Item], rate: int, longest: float | None
) -> tuple[list[np.ndarray], list[float], list[float]]:
    """Of each item: its samples, cut to ``longest`` seconds; the seconds kept; the seconds cut off."""
    whole = [item.load_audio(rate).samples for item in items]
    kept = [samples if longest is None else samples[: round(longest * rate)] for samples in whole]
    cut = [(len(a) - len(b)) / rate for a, b in zip(whole, kept, strict=True)]
    return kept, [len(samples) / rate for samples in kept], cut


def _no_sounds(items: Sequence[Item]) -> tuple[list[np.ndarray], list[float], list[float]]:
    return [], [0.0] * len(items), [0.0] * len(items)


def _render(parts_of: Sequence[Parts], processor: Any, with_audio: bool) -> list[Parts]:
    """Each item's parts between what the chat template writes before them and after them."""
    if not getattr(processor, "chat_template", None):
        raise ModelError(f"The processor has no chat template. {_REMEDY}")

    render = message_writer(processor, clips=int(with_audio))
    around = render(MARK).split(MARK)
    for parts in parts_of:
        text = "".join(text for _, text in parts)
        if len(around) != 2 or render(text) != text.join(around):
            raise ModelError(f"The chat template alters or repeats the user's text {text!r}. {_REMEDY}")
    before, after = around
    return [[("template", before), *parts, ("template", after)] for parts in parts_of]


def _expand(real: list[int], plain: list[int], groups: list[str], audio_token_id: int) -> list[str]:
    """Groups of the processor's tokens ``real`` from those of ``plain``, with one placeholder a sound.

    Some processors put marks around a sound or, of time, inside it: they belong to the template.
    """
    clips = [place for place, token in enumerate(plain) if token == audio_token_id]
    if len(clips) == 1:
        before, after = plain[: clips[0]], plain[clips[0] + 1 :]
        end = len(real) - len(after)
        if len(before) <= end and real[: len(before)] == before and real[end:] == after:
            sound = ["audio" if token == audio_token_id else "template" for token in real[len(before) : end]]
            return [*groups[: clips[0]], *sound, *groups[clips[0] + 1 :]]
    elif not clips and real == plain:
        return groups
    raise ModelError(
        f"The processor's tokens, audio placeholders aside, are not those of the chat template. {_REMEDY}"
    )
