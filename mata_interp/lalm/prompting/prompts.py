"""From items to a model's inputs, with the group of every token."""

from __future__ import annotations

import weakref
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
from .formats import PROMPT_FORMATS, canonical_format
from .groups import clip_group, group_masks
from .html import prompt_html
from .limits import AudioLimit
from .messages import ProcessorOutput, ask_by_messages, takes_audio_in_call
from .templates import OTHER_TEMPLATE
from .texts import REMEDY, SeveralClipsError, ask_by_text
from .thinking import OpenThought, check_thinking
from .vocabulary import special_tokens

__all__ = [
    "PROMPT_FORMATS",
    "Prompt",
    "audio_limit",
    "build_prompt",
    "prompt_from_inputs",
    "refuse_special_tokens",
]


@dataclass(frozen=True, eq=False, repr=False)
class Prompt:
    """Model inputs of B prompts of width T, left-padded and collated once.

    Attributes:
        inputs: what the model's forward takes: ``input_ids[B, T]``, ``attention_mask[B, T]``, the audio, ...;
            settings that are no tensors are passed on.
        groups: a mask ``bool[B, T]`` for each of GROUPS; each real token is in exactly one, padding in none.
            Where an item has several clips, also ``audio_1``, ``audio_2``, ...: parts of ``audio``.
        items: the items, one per row.
        audio_seconds: seconds of audio that the model receives, all clips together, one per row; NaN where
            not known.
        truncated_seconds: seconds cut off the ends of clips because the model takes no more, one per row.
        thought: the thought that the template opens at the end of the prompt; None if it opens none.
        tokenizer: the tokenizer that wrote the tokens, to show their text in notebooks; None for ready-made
            inputs and for a prompt from another process.
        format: wording of the items, one of PROMPT_FORMATS; of no meaning for ready-made inputs.

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
    thought: OpenThought | None = None
    tokenizer: Any = None
    format: str = "options"

    def __getstate__(self) -> dict[str, Any]:
        """Without the tokenizer, which is large and serves the display only."""
        return {**vars(self), "tokenizer": None}

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

    def _repr_html_(self) -> str:
        """The texts of the first rows, tinted by token group, with seconds under the audio."""
        return prompt_html(self)

    def continued(
        self,
        tokens: Tensor,
        real: Tensor,
        groups: Mapping[str, Tensor],
        drop: int = 0,
        align: bool = True,
    ) -> Prompt:
        """The same prompt with further tokens after it; a thought at its end counts as closed.

        Args:
            tokens: ids to append, [B, N].
            real: which of these are no padding, bool [B, N].
            groups: group -> which of these are in it, bool [B, N]; the others have none of them.
            drop: number of tokens that are taken off the end of every row before.
            align: move padding to the left, so that every row ends in its last real token.

        Raises:
            ModelError: the inputs have position ids, which further tokens would need, too.
        """
        if "position_ids" in self.inputs:
            raise ModelError(
                "A prompt with position_ids cannot be continued: leave out position_ids, which the model "
                "computes itself."
            )
        ids = self.inputs["input_ids"]
        inputs = {"attention_mask": torch.ones_like(ids), **self.inputs}
        remaining = slice(0, self.width - drop)
        order = torch.cat(
            [self.inputs.get("attention_mask", torch.ones_like(ids))[:, remaining].bool(), real], 1
        )
        order = order.int().argsort(dim=1, stable=True)  # padding first, all else in order
        if not align:
            order = torch.arange(order.shape[1], device=order.device).expand_as(order)
        for name, x in inputs.items():
            if not isinstance(x, Tensor) or x.shape != ids.shape or x.is_floating_point():
                continue
            more = {"input_ids": tokens, "attention_mask": real}.get(name, torch.zeros_like(tokens))
            inputs[name] = torch.cat([x[:, remaining], more.to(x)], 1).gather(1, order)
        new = {name: torch.zeros_like(ids).bool() for name in groups if name not in self.groups}
        masks = {
            name: torch.cat([mask[:, remaining], groups.get(name, torch.zeros_like(real))], 1).gather(
                1, order
            )
            for name, mask in {**self.groups, **new}.items()
        }
        return replace(self, inputs=inputs, groups=masks, thought=None)

    def with_closed_thought(self) -> Prompt:
        """The prompt with the thought at its end closed, so that the answer comes next; itself if none is."""
        if self.thought is None:
            return self
        ids = self.inputs["input_ids"]
        closing = torch.tensor(self.thought.closing, device=ids.device).expand(self.size, -1)
        real = torch.ones_like(closing, dtype=torch.bool)
        return self.continued(closing, real, {"template": real}, self.thought.dropped)

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
    audio: str | None = "own",
    format: str = "options",
    width: int | None = None,
    thinking: str = "close",
) -> Prompt:
    """Format ``items`` with the processor's chat template: as text, or as messages where it needs these.

    Clips that are longer than the processor takes lose their end, and ``truncated_seconds`` says how much.

    Args:
        processor: with a chat template and a fast tokenizer, or with an ``apply_chat_template`` that takes
            audio.
        items: one or several.
        audio_token_id: the id of the placeholder that the processor repeats once for each frame of audio.
        sampling_rate: of the audio that the model takes, in Hz.
        audio: ``"own"``, or None to leave the audio and its marks out altogether.
        format: one of PROMPT_FORMATS.
        width: number of tokens to pad to, as in a larger batch; that of the longest item if None.
        thinking: one of THINKING: what is done where the template ends inside a thought.

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
    check_thinking(thinking)
    if audio not in ("own", None):
        raise ArgumentError(f"audio is 'own' or None, not {audio!r}.")
    if getattr(processor, "tokenizer", None) is None:
        raise ModelError(f"A {type(processor).__name__} has no tokenizer. {REMEDY}")
    refuse_special_tokens(items, processor.tokenizer, audio_token_id)

    whole = [item.load_clips(sampling_rate) if audio else () for item in items]
    limit = audio_limit(processor, audio_token_id, sampling_rate)
    clips = [
        [clip.samples[: limit.usable_samples(len(clip.samples))] for clip in clips_of_item]
        for clips_of_item in whole
    ]
    seconds = [sum(map(len, clips_of_item)) / sampling_rate for clips_of_item in clips]
    lengths = [sum(len(clip.samples) for clip in clips_of_item) / sampling_rate for clips_of_item in whole]
    output = _ask(
        processor,
        items,
        clips,
        format,
        audio_token_id=audio_token_id,
        sampling_rate=sampling_rate,
        padding={"padding": True} if width is None else {"padding": "max_length", "max_length": width},
    )
    tokens = output.inputs["input_ids"].shape[1]
    if width is not None and tokens != width:
        raise ModelError(f"The prompt has {tokens} tokens instead of {width}.")
    for item, clips_of_item, names in zip(items, clips, output.rows, strict=True):
        _refuse_short_clips(item, clips_of_item, names, sampling_rate)
    return Prompt(
        inputs=output.inputs,
        groups=group_masks(output.rows, tokens),
        items=items,
        audio_seconds=tuple(seconds),
        truncated_seconds=tuple(a - b for a, b in zip(lengths, seconds, strict=True)),
        thought=OpenThought.at_end(processor.tokenizer, output.after, thinking),
        tokenizer=processor.tokenizer,
        format=format,
    )


def _ask(
    processor: Any,
    items: Sequence[Item],
    clips: Sequence[Sequence[np.ndarray]],
    format: str,
    **settings: Any,
) -> ProcessorOutput:
    """What the processor makes of the items.

    Raises:
        ItemError: an item has several clips, and the processor takes one in a prompt.
    """
    ask = ask_by_text if takes_audio_in_call(processor) else ask_by_messages
    try:
        return ask(processor, [PROMPT_FORMATS[format](item) for item in items], clips, **settings)
    except SeveralClipsError as error:
        first = next(item for item, clips_of_item in zip(items, clips, strict=True) if len(clips_of_item) > 1)
        problem = f"it has {len(first.clips)} clips. {error}"
        raise ItemError(first.id, "audio", problem, "Ask about one clip at a time.") from error


def audio_limit(processor: Any, audio_token_id: int, sampling_rate: int) -> AudioLimit:
    """How much audio a processor takes, found once for each processor.

    Args:
        processor, audio_token_id, sampling_rate: those of `build_prompt`.
    """
    if processor not in _limits:
        reference = weakref.ref(processor)

        def features(samples: np.ndarray) -> dict[str, Any]:
            alive = reference()
            ask = ask_by_text if takes_audio_in_call(alive) else ask_by_messages
            return ask(
                alive,
                [[("question", "?")]],
                [[samples]],
                audio_token_id=audio_token_id,
                sampling_rate=sampling_rate,
                padding={"padding": True},
            ).inputs

        _limits[processor] = AudioLimit(features, sampling_rate)
    return _limits[processor]


_limits: weakref.WeakKeyDictionary[Any, AudioLimit] = weakref.WeakKeyDictionary()


def _refuse_short_clips(
    item: Item, clips: Sequence[np.ndarray], names: Sequence[str], sampling_rate: int
) -> None:
    """Refuse a clip for which the processor wrote no placeholder, or a single one."""
    for number, clip in enumerate(clips, 1):
        tokens = names.count("audio" if len(clips) == 1 else clip_group(number))
        seconds = len(clip) / sampling_rate
        if tokens == 0 and seconds >= 1:
            raise ModelError(
                f"The chat template and the processor wrote no audio placeholder for {seconds:g} s of audio. "
                f"{OTHER_TEMPLATE}"
            )
        # Qwen2-Audio takes a lone placeholder for one still to be expanded, and generate then crashes.
        if tokens < 2:
            which = f"clip {number}: " if len(clips) > 1 else ""
            problem = (
                f"{which}{seconds:.3f} s is too short: it gives {tokens} audio tokens, and 2 are needed."
            )
            raise ItemError(item.id, "audio", problem)


def refuse_special_tokens(items: Sequence[Item], tokenizer: Any, audio_token_id: int) -> None:
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
