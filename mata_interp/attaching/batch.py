"""A batch of prompts that code outside this package runs, with the interventions bound to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.errors import ArgumentError, InterventionError, ModelError
from mata_interp.interventions import DOSE, AttentionEdit
from mata_interp.interventions.editing import SUMS
from mata_interp.lalm.discovery.audio_positions import audio_input_names
from mata_interp.lalm.prompting.prompts import Prompt, prompt_from_inputs
from mata_interp.lalm.prompting.thinking import Tags, ThoughtState, open_tags
from mata_interp.lalm.site_hooks import BoundInterventions

from .dose_log import DoseLog

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["DOSED_SITES", "Batch", "forward_inputs", "named_arguments", "padding_mask"]

# arguments of a forward that do not belong to a prompt
_NOT_OF_PROMPT = {
    "past_key_values",
    "use_cache",
    "labels",
    "logits_to_keep",
    "position_ids",
    "cache_position",
}
_NOT_OF_PROMPT |= {"inputs_embeds", "output_attentions", "output_hidden_states", "return_dict", "self"}
DOSED_SITES = ("scores", "weights")
"""Sites whose edits have a dose: changes of attention weights, in masses and nats."""
_TAIL = 64  # tokens at the end of a prompt in which a thought may be opened


def named_arguments(function: Callable[..., Any], args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments that a function is called with, by name."""
    bound = signature(function).bind_partial(*args, **kwargs)
    arguments = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return arguments


def forward_inputs(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that describe a prompt to the model's forward: ids, mask, audio."""
    names = set(signature(type(model).forward).parameters) - _NOT_OF_PROMPT
    return {name: x for name, x in arguments.items() if name in names and x is not None}


def padding_mask(ids: Tensor, mask: Any, pad: int | None = None) -> Tensor:
    """The attention mask of ids [B, T]: the one that was passed, else 1 where an id is not ``pad``.

    Raises:
        ModelError: the mask has another shape.
    """
    if mask is not None and not (isinstance(mask, Tensor) and mask.shape == ids.shape):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ModelError(
            f"The attention mask has shape {shape} for ids of shape {tuple(ids.shape)}: pass a mask with one "
            "number for each id, and all ids of the prompt, also those that are in a cache."
        )
    if mask is not None:
        return mask
    return torch.ones_like(ids) if pad is None else (ids != pad).long()


class Batch:
    """The prompts of a forward or generation, the interventions bound to them, and what the model has read.

    Args:
        lalm: the model.
        parts: interventions, from `in_order`.
        inputs: of the forward, one row for each row that the model will be given: ``input_ids`` [R, P] and
            ``attention_mask`` [R, P] among them.
        missing: what happens to prompts without audio, ``"raise"`` or ``"skip"``.
        continued: whether a part of the prompts is in the model's cache already, with its audio.
        per_prompt: rows for each prompt: beams, or several answers.

    Attributes:
        edited: whether any row is edited at all.
        dose_log: the dose of the attention edits.

    Raises:
        ModelError: the prompts are not padded on the left, have no audio for their placeholders, or are not
            ones to which the interventions can be bound.
        InterventionError: a prompt has no audio.
    """

    def __init__(
        self,
        lalm: LALM,
        parts: Sequence[Any],
        inputs: Mapping[str, Any],
        missing: str,
        *,
        continued: bool = False,
        per_prompt: int = 1,
    ) -> None:
        self._lalm, self._parts = lalm, parts
        self.prompt = prompt_from_inputs(inputs, lalm.structure.audio_token_id)
        rows = self._rows_with_audio(missing)
        self.edited = rows is None or bool(rows.any())
        self.dose_log = DoseLog(self.prompt.width, per_prompt)
        self._rows = rows
        self._bound: BoundInterventions | None = None
        self._in_forward = False
        self._hooks = ExitStack()
        self._thoughts: _Thoughts | None = None
        self._tokens: Tensor | None = None  # ids of the current forward
        if not self.edited:
            return
        self._require_audio(continued)
        self._bound = BoundInterventions(lalm, self.prompt, parts, rows)
        self._bound.paused = True
        self._hooks.enter_context(self._bound.in_force())
        if self._bound.attention is not None:
            self._bound.attention.keep = self.dose_log.keep
            self._bound.attention.keep_sums = self.dose_log.keep_sums
        if self._bound.follows_thoughts:
            self._thoughts = _Thoughts(lalm, self.prompt)
            self._bound.thought_open = self._thoughts.open

    @property
    def size(self) -> int:
        """R, the number of rows."""
        return self.prompt.size

    @property
    def width(self) -> int:
        """P, tokens of a prompt."""
        return self.prompt.width

    @property
    def busy(self) -> bool:
        """Whether the extra pass of an edit of logits runs."""
        return self._bound is not None and self._in_forward and self._bound.paused

    def begin(self, tokens: Tensor) -> None:
        """A forward over these ids [R, Q] begins."""
        if len(tokens) != self.size:
            raise ModelError(
                f"The model continues with {len(tokens)} rows, and the prompt had {self.size}: an attached "
                "intervention cannot follow rows that are dropped or added."
            )
        self._tokens, self._in_forward = tokens, True
        if self._bound is not None:
            self._bound.paused = False

    def end(self) -> None:
        """The forward ended."""
        self._in_forward = False
        if self._bound is not None:
            self._bound.paused = True

    def close(self) -> None:
        """Remove all hooks."""
        self._hooks.close()

    def on_pass(self, before: int, count: int) -> None:
        """A pass of the decoder over ``count`` tokens begins; ``before`` tokens are in its cache."""
        if self.busy or self._tokens is None:
            return
        if count != self._tokens.shape[1]:
            raise ModelError(
                f"The decoder is given {count} tokens for {self._tokens.shape[1]} ids: expand each audio "
                "placeholder to one a frame, as processors do."
            )
        self.dose_log.begin(before, self._tokens)
        behind = before + count - self.width
        if self._bound is None or behind <= 0:
            return
        if self._bound.token_by_token and count > 1:
            raise ModelError(
                "An intervention that needs the model's confidence reads answers token by token: leave out "
                "assisted generation, and use a cache."
            )
        if self._thoughts is not None:
            self._thoughts.read(self._tokens[:, -min(count, behind) :], max(0, before - self.width))
            self._bound.thought_open = self._thoughts.open

    def on_call(self, layer: int, call: AttentionCall, total: int) -> tuple[slice, Tensor] | None:
        """What to add to the output of an attention call."""
        return None if self._bound is None else self._bound(layer, call, total)

    def reorder(self, order: Tensor) -> None:
        """Beam search continues from the rows at these indices, int [R]."""
        self.dose_log.reorder(order)
        if self._bound is not None:
            self._bound.reorder(order)
        if self._thoughts is not None:
            self._thoughts.reorder(order.tolist())

    @property
    def acted(self) -> bool:
        """Whether any part had something to edit."""
        return self._bound is not None and self._bound.acted

    def dose(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each of DOSE and of what methods count, float64 [S], of sums from `DoseLog`.

        {} where no part edits scores or weights.
        """
        if not any(part.site in DOSED_SITES for part in self._parts):
            return {}
        with np.errstate(invalid="ignore", divide="ignore"):
            means = {name: (values[:, :-1] / values[:, -1:]).T for name, values in sums.items()}
        return dict(zip(DOSE, means.pop(SUMS), strict=True)) | {name: x[0] for name, x in means.items()}

    def untouched(self, sums: Mapping[str, np.ndarray]) -> list[int]:
        """The rows that should have been edited and were not.

        Args:
            sums: of the dose of S answers, from `DoseLog`, as many for each row.
        """
        counts = sums[SUMS][:, -1]
        if self._bound is None:
            return []
        if not all(isinstance(part, AttentionEdit) for part in self._parts):
            return [] if self._bound.acted else list(range(len(counts)))
        to_edit = [
            self._rows is None or bool(self._rows[n * self.size // len(counts)]) for n in range(len(counts))
        ]
        return [n for n, count in enumerate(counts) if to_edit[n] and count == 0]

    def _rows_with_audio(self, missing: str) -> Tensor | None:
        """Which rows are edited, bool [R]; None: all."""
        audio = self.prompt.groups["audio"].any(1)
        if bool(audio.all()):
            return None
        if missing == "raise":
            row = int((~audio).nonzero()[0])
            raise InterventionError(
                f"Row {row} of this prompt has no audio (no token {self._lalm.structure.audio_token_id}), "
                "and an "
                "intervention is attached to the model: detach it, or attach it with missing='skip', which "
                "leaves prompts without audio alone."
            )
        return audio

    def _require_audio(self, continued: bool) -> None:
        if continued:
            if any(hasattr(part, "measure") or part.site == "logits" for part in self._parts):
                raise ModelError(
                    "This intervention measures the whole prompt, and the beginning of this one is in a "
                    "cache: start without the cache."
                )
            return
        if not audio_input_names(self.prompt.inputs):
            raise ModelError(
                "The prompt has audio placeholders and no audio among its inputs: pass all that the "
                "processor returns."
            )
        self._lalm.validate_audio_positions(self.prompt)


class _Thoughts:
    """Which rows are inside a thought, for answers whose rows may be reordered or go back."""

    def __init__(self, lalm: LALM, prompt: Prompt) -> None:
        self._tokenizer = getattr(lalm.processor, "tokenizer", lalm.processor)
        if self._tokenizer is None:
            raise ArgumentError("Edits of reasoning or answer need the tags of thoughts: pass processor=.")
        ends = [row[-_TAIL:] for row in prompt.inputs["input_ids"].tolist()]
        tags = [open_tags(self._tokenizer.decode(end, skip_special_tokens=False)) for end in ends]
        if len(set(tags)) > 1:
            raise ModelError("Some prompts of this batch end in an open thought and some do not.")
        self._tags: Tags | None = tags[0]
        self._rows: list[list[int]] = [[] for _ in ends]
        self._state = ThoughtState(self._tokenizer, self._tags, len(ends))

    @property
    def open(self) -> Tensor:
        """Which rows are inside a thought, as in `ThoughtState`."""
        return self._state.open

    def read(self, tokens: Tensor, before: int) -> None:
        """The model read these ids [R, n], which follow the first ``before`` tokens of the answers."""
        if before < len(self._rows[0]):
            self._restart([row[:before] for row in self._rows])
        for column in tokens.T.tolist():
            self._add(column)

    def reorder(self, order: Sequence[int]) -> None:
        """Follow beam search to the rows at these indices, as `Batch` does."""
        self._restart([self._rows[row] for row in order])

    def _restart(self, rows: Sequence[Sequence[int]]) -> None:
        self._rows = [[] for _ in rows]
        self._state = ThoughtState(self._tokenizer, self._tags, len(rows))
        for column in zip(*rows, strict=True):
            self._add(column)

    def _add(self, column: Sequence[int]) -> None:
        self._state.add(column)
        for row, token in zip(self._rows, column, strict=True):
            row.append(token)
