"""From items to a model's inputs, with every token's group known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError, ModelError

from .groups import groups_of_rows, tokens_of_parts

if TYPE_CHECKING:
    from .model import LALM

__all__ = ["PROMPT_FORMATS", "Prompt", "build_prompt"]

Parts = list[tuple[str, str]]  # (group, text), in order


def _lines(item: Item, *after: tuple[str, str]) -> Parts:
    """Caption, question and what comes after, each on a line of its own; a line break belongs to its line."""
    parts = [("caption", item.caption.strip()), ("question", item.question.strip()), *after]
    parts = [(group, text) for group, text in parts if text]
    return [(group, text + "\n") for group, text in parts[:-1]] + parts[-1:]


def _options(item: Item) -> Parts:
    """``[caption] \\n question \\n Choose one of these options: a; b; c.`` Answered by the option's text."""
    if not item.choices:
        return _lines(item)
    return _lines(item, ("options", f"Choose one of these options: {'; '.join(item.choices)}."))


def _letters(item: Item) -> Parts:
    """lmms-eval's wording, answered by a letter: ``question \\n A. a \\n B. b \\n Answer with ...``."""
    lines = [f"{chr(ord('A') + index)}. {choice}" for index, choice in enumerate(item.choices)]
    asked = "Answer with the option's letter from the given choices directly."
    return _lines(item, ("options", "\n".join([*lines, asked]) if lines else ""))


PROMPT_FORMATS: dict[str, Callable[[Item], Parts]] = {"options": _options, "letters": _letters}
"""Named ways to word an item as user text. The name is recorded with every run."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """Model inputs of B prompts of width T, left-padded and collated once.

    Attributes:
        inputs: what the model's forward takes, ``input_ids[B, T]``, ``attention_mask[B, T]``, the sound, ...
        groups: a mask ``bool[B, T]`` for each of GROUPS; each real token in exactly one, padding in none.
        items: the items asked, one a row.
        audio_seconds: of each row, the seconds of sound the model is given; NaN where not known.
        truncated_seconds: of each row, the seconds cut off because the model takes no more.
    """

    inputs: Mapping[str, Tensor]
    groups: Mapping[str, Tensor]
    items: tuple[Item, ...]
    audio_seconds: tuple[float, ...]
    truncated_seconds: tuple[float, ...]

    @property
    def size(self) -> int:
        """B, the number of rows."""
        return self.inputs["input_ids"].shape[0]

    @property
    def width(self) -> int:
        """T, the number of tokens of the longest row; shorter ones are padded to it on the left."""
        return self.inputs["input_ids"].shape[1]

    def to(self, device: torch.device | str) -> Prompt:
        """The same prompt on another device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        groups = {name: mask.to(device) for name, mask in self.groups.items()}
        return replace(self, inputs=inputs, groups=groups)

    @classmethod
    def from_inputs(
        cls, lalm: LALM, inputs: Mapping[str, Tensor], ids: Sequence[str] | None = None
    ) -> Prompt:
        """Ready-made inputs of any model: the groups are audio, sink and, for all other text, question.

        Args:
            lalm: whose audio token id marks the placeholders.
            inputs: as the model's forward takes them, ``input_ids[B, T]`` among them, left-padded.
            ids: a name for each row; ``"0"``, ``"1"``, ... if not given.

        Raises:
            ModelError: a row is padded on the right or in the middle, or ids and rows differ in number.
        """
        tokens = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        if not real[:, -1].all() or (real[:, 1:] < real[:, :-1]).any():
            raise ModelError(
                "These inputs are not left-padded: the last token of a row is not its last column."
            )
        names = tuple(str(row) for row in range(len(tokens))) if ids is None else tuple(ids)
        if len(names) != len(tokens):
            raise ModelError(f"{len(names)} ids for {len(tokens)} rows of inputs.")
        rows = [
            ["audio" if token == lalm.anatomy.audio_token_id else "question" for token in row[keep].tolist()]
            for row, keep in zip(tokens, real, strict=True)
        ]
        groups = {
            name: mask.to(tokens.device) for name, mask in groups_of_rows(rows, tokens.shape[1]).items()
        }
        items = tuple(Item(audio=None, question="", id=name) for name in names)
        return cls(dict(inputs), groups, items, (float("nan"),) * len(items), (0.0,) * len(items))


def build_prompt(
    processor: Any,
    items: Item | Sequence[Item],
    *,
    audio_token_id: int,
    sampling_rate: int,
    max_audio_seconds: float | None,
    audio: str | None = "own",
    format: str = "options",
) -> Prompt:
    """Ask ``items`` through the processor's own chat template.

    Args:
        processor: with a chat template and a fast tokenizer.
        items: one or several; a sound longer than ``max_audio_seconds`` loses its end, and that is recorded.
        audio_token_id: the id of the placeholder that the processor repeats for each frame of sound.
        sampling_rate: of the sound the model takes, in Hz.
        max_audio_seconds: the longest sound the model takes; ``None``: any.
        audio: ``"own"``, or ``None`` to leave the sound and its marks out altogether.
        format: one of PROMPT_FORMATS.

    Raises:
        ItemError: the sound cannot be used, or a text holds a special token of the tokenizer.
        ModelError: the groups cannot be told for certain: no chat template, a template that alters the
            user's text, or tokens that do not match the rendered text.
    """
    items = (items,) if isinstance(items, Item) else tuple(items)
    if not items:
        raise ValueError("A prompt needs at least one item.")
    if format not in PROMPT_FORMATS:
        raise ValueError(f"No prompt format {format!r}: choose one of {sorted(PROMPT_FORMATS)}.")
    if audio not in ("own", None):
        raise ValueError(f"audio is 'own' or None, not {audio!r}.")
    for item in items:
        _refuse_special_tokens(item, processor)

    sounds, seconds, cut = [], [0.0] * len(items), [0.0] * len(items)
    if audio is not None:
        sounds, seconds, cut = _sounds(items, sampling_rate, max_audio_seconds)
    rendered = [_render(processor, PROMPT_FORMATS[format](item), audio is not None) for item in items]
    texts = ["".join(text for _, text in parts) for parts in rendered]
    bos = processor.tokenizer.bos_token
    text_kwargs = {"add_special_tokens": bos is None or not texts[0].startswith(bos)}  # never a second BOS

    inputs = processor(
        text=texts,
        **({"audio": sounds, "audio_kwargs": {"sampling_rate": sampling_rate}} if sounds else {}),
        text_kwargs={**text_kwargs, "padding": True, "padding_side": "left"},
        return_tensors="pt",
    )
    plain = processor.tokenizer(texts, return_offsets_mapping=True, **text_kwargs)
    rows = []
    for row, item in enumerate(items):
        real = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        names = tokens_of_parts(plain["offset_mapping"][row], rendered[row])
        names = _expand(real, plain["input_ids"][row], names, audio_token_id)
        if sounds and "audio" not in names:
            raise ItemError(item.id, "audio", f"{seconds[row]:.3f} s is too short: it gives no audio token.")
        rows.append(names)
    groups = groups_of_rows(rows, inputs["input_ids"].shape[1])
    return Prompt(dict(inputs), groups, items, tuple(seconds), tuple(cut))


def _refuse_special_tokens(item: Item, processor: Any) -> None:
    """An item's words must stay words: none may close the user's turn or fake a placeholder."""
    tokenizer = processor.tokenizer
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= {*tokenizer.all_special_tokens, getattr(processor, "audio_token", "")} - {""}
    fields = [("question", item.question), ("caption", item.caption)]
    for field, text in fields + [("choices", choice) for choice in item.choices]:
        found = sorted(token for token in special if token in text)
        if found:
            raise ItemError(
                item.id, field, f"{text!r} holds the special token {found[0]!r}.", "Take it out of the text."
            )


def _sounds(
    items: Sequence[Item], rate: int, longest: float | None
) -> tuple[list[np.ndarray], list[float], list[float]]:
    """Of each item: samples cut to ``longest`` seconds, seconds kept, seconds cut off."""
    sounds, seconds, cut = [], [], []
    for item in items:
        samples = item.load_audio(rate).samples
        kept = samples if longest is None else samples[: int(longest * rate)]
        sounds.append(kept)
        seconds.append(len(kept) / rate)
        cut.append((len(samples) - len(kept)) / rate)
    return sounds, seconds, cut


def _render(processor: Any, parts: Parts, with_audio: bool) -> Parts:
    """The whole prompt as parts: what the template writes before, the user's text, what it writes after."""
    if not getattr(processor, "chat_template", None):
        raise ModelError("The processor has no chat template.", *_USE_FROM_INPUTS)

    def render(text: str) -> str:
        sound = [{"type": "audio"}] if with_audio else []
        turn = {"role": "user", "content": [*sound, {"type": "text", "text": text}]}
        return processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    text = "".join(text for _, text in parts)
    around = render(_MARK).split(_MARK)
    if len(around) != 2 or render(text) != text.join(around):
        raise ModelError(f"The chat template alters the user's text {text!r}.", *_USE_FROM_INPUTS)
    return [("template", around[0]), *parts, ("template", around[1])]


_MARK = "\ue000user text\ue000"  # stands for the user's text; private-use characters occur in no template
_USE_FROM_INPUTS = ("Make the inputs yourself and use Prompt.from_inputs.",)


def _expand(real: list[int], plain: list[int], names: list[str], audio_token_id: int) -> list[str]:
    """Group names of the processor's tokens from those of the plain text, in which one placeholder is one token."""
    words = [name for token, name in zip(plain, names, strict=True) if token != audio_token_id]
    if [token for token in real if token != audio_token_id] != [t for t in plain if t != audio_token_id]:
        raise ModelError(
            "The processor's tokens, audio placeholders aside, are not those of the rendered chat template.",
            *_USE_FROM_INPUTS,
        )
    remaining = iter(words)
    return ["audio" if token == audio_token_id else next(remaining) for token in real]
