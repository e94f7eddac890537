"""One call of a model's ``generate`` while an intervention is attached: its prompts, settings and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.compat import uncompiled
from mata_interp.errors import InterventionError, ModelError
from mata_interp.lalm.calls.attention_calls import patched_attribute

from .batch import Batch, forward_inputs, named_arguments, padding_mask

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["Generation"]

_REFUSED = {
    "guidance_scale": "it runs the model a second time without the prompt",
    "token_healing": "it changes the prompt",
    "dola_layers": "it needs code from the hub (use mata_interp's own Dola)",
    "custom_generate": "its passes of the model are not known",
    "use_mtp": "it predicts several tokens in one pass",
    "assistant_early_exit": "it runs the model without its last layers",
    "speculation_type": "its passes of the model are not known",
}


class Generation:
    """One call of the model's ``generate``.

    Args:
        lalm: the model.
        parts: interventions.
        missing: that of `attach`.
        original: the model's own method.
        args, kwargs: what it is called with.

    Attributes:
        batch: the prompts, once the model has begun to read them.

    Raises:
        ModelError: a setting under which edits cannot reach the answers, or the prompts are not token ids.
    """

    def __init__(
        self,
        lalm: LALM,
        parts: tuple[Any, ...],
        missing: str,
        original: Callable[..., Any],
        args: tuple,
        kwargs: dict,
    ) -> None:
        self._lalm, self._parts, self._missing = lalm, parts, missing
        self._arguments = named_arguments(original, args, kwargs)
        self._refuse_settings()
        ids = self._arguments.get("input_ids")
        ids = self._arguments.get("inputs") if ids is None else ids
        if not isinstance(ids, Tensor) or ids.dim() != 2 or self._arguments.get("inputs_embeds") is not None:
            raise ModelError(
                "An intervention is attached to this model, which finds audio by its placeholders: pass "
                "input_ids to generate, not embeddings."
            )
        self._ids = ids
        self.batch: Batch | None = None
        self._followed = ExitStack()  # caches whose reordering is followed
        self._caches: set[int] = set()

    def start(self, rows: int, continued: bool) -> Batch:
        """Bind the interventions: the model is given ``rows`` rows, some for each prompt."""
        per_prompt, rest = divmod(rows, len(self._ids))
        if rest:
            raise ModelError(f"The model is given {rows} rows for {len(self._ids)} prompts.")
        inputs = forward_inputs(self._lalm.model, self._arguments)
        pad = self._setting("pad_token_id")
        pad = pad if pad is not None and pad not in self._ends() and bool((self._ids == pad).any()) else None
        inputs |= {
            "input_ids": self._ids,
            "attention_mask": padding_mask(self._ids, self._arguments.get("attention_mask"), pad),
        }
        device = self._lalm.device
        inputs = {n: x.to(device) if isinstance(x, Tensor) else x for n, x in inputs.items()}
        if per_prompt > 1:  # as `generate` does it
            inputs = {
                name: x.repeat_interleave(per_prompt, 0) if isinstance(x, Tensor) and x.dim() else x
                for name, x in inputs.items()
            }
        self.batch = Batch(
            self._lalm, self._parts, inputs, self._missing, continued=continued, per_prompt=per_prompt
        )
        return self.batch

    def follow(self, cache: Any) -> None:
        """Follow the reordering of a cache's rows by beam search until the call ends."""
        reorder = getattr(cache, "reorder_cache", None)
        if reorder is None or id(cache) in self._caches:
            return
        self._caches.add(id(cache))

        def reorder_cache(order: Tensor) -> Any:
            if self.batch is not None:
                self.batch.reorder(order)
            return reorder(order)

        self._followed.enter_context(patched_attribute(cache, "reorder_cache", reorder_cache))

    def close(self) -> None:
        """Release caches and hooks."""
        self._followed.close()
        if self.batch is not None:
            self.batch.close()

    def sums(self, output: Any) -> dict[str, np.ndarray]:
        """Sums of the dose of each answer that ``generate`` returned, as from `DoseLog`."""
        assert self.batch is not None
        sequences = output if isinstance(output, Tensor) else output.sequences
        width = self._ids.shape[1]
        whole = sequences.shape[1] >= width and len(sequences) % len(self._ids) == 0
        prompt_ids = self._ids.repeat_interleave(max(1, len(sequences) // len(self._ids)), 0).to(sequences)
        if whole and torch.equal(sequences[:, :width], prompt_ids):
            sequences = sequences[:, width:]
        pad, ends = self._setting("pad_token_id"), self._ends()
        answers = [_up_to_end(row, ends, pad)[:-1] for row in sequences.tolist()]
        return self.batch.dose_log.sums(answers)

    def require_touched(self, sums: Mapping[str, np.ndarray]) -> None:
        """Refuse a generation in which an edit touched nothing.

        Raises:
            InterventionError: there is one.
        """
        assert self.batch is not None
        if untouched := self.batch.untouched(sums):
            answers = len(next(iter(sums.values())))
            raise InterventionError(
                f"The attached intervention touched nothing in {len(untouched)} of {answers} answers (the "
                f"first is number {untouched[0]}): its keys are not visible in its layers, or its phase was "
                "never reached."
            )

    def _refuse_settings(self) -> None:
        for name, reason in _REFUSED.items():
            value = self._setting(name)
            neutral = name == "guidance_scale" and value == 1
            if not (value is None or value is False or neutral):
                raise ModelError(f"generate has {name}={value!r}, and an intervention is attached: {reason}.")
        if self._lalm.model in (assistant := self._arguments.get("assistant_model"), uncompiled(assistant)):
            raise ModelError(
                "assistant_model is the attached model itself, whose candidates the intervention would edit, "
                "too: pass another model, or prompt_lookup_num_tokens."
            )
        if hasattr(self._lalm.model, "_reorder_cache") and (self._setting("num_beams") or 1) > 1:
            raise ModelError(
                f"{type(self._lalm.model).__name__} reorders its cache in its own way: beam search cannot "
                "be followed while an intervention is attached."
            )

    def _setting(self, name: str) -> Any:
        """A generation setting: the argument of the call, else of its config, else of the model's config."""
        if (value := self._arguments.get(name)) is not None:
            return value
        config = self._arguments.get("generation_config") or {}
        value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        return getattr(self._lalm.model.generation_config, name, None) if value is None else value

    def _ends(self) -> list[int]:
        ends = self._setting("eos_token_id")
        return [] if ends is None else torch.as_tensor(ends).reshape(-1).tolist()


def _up_to_end(tokens: list[int], ends: list[int], pad: int | None) -> list[int]:
    """An answer up to its end-of-sequence token, or without the padding that follows it."""
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    while len(tokens) > 1 and tokens[-1] == pad:
        tokens = tokens[:-1]
    return tokens
