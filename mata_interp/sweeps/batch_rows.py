"""Configurations as rows of a larger batch, on architectures that keep a state.

Rows of queries share keys and values over one past, but not the state of a recurrence or of a convolution:
each configuration continues from a state of its own. So all prompt tokens but the last are read once, the
cache is repeated, and N configurations of B prompts run as a batch of N * B rows, token by token. The edits
of each configuration see its own rows of the attention calls alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError
from mata_interp.lalm import Prompt
from mata_interp.lalm.calls.edited_calls import edited_calls
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.memory import free_bytes, in_halves, memory_devices
from mata_interp.lalm.rows.caches import cache_bytes, repeat_cache
from mata_interp.lalm.scoring import option_logprobs, read, read_last
from mata_interp.lalm.site_hooks import BoundInterventions
from mata_interp.precision import full_precision

from .canary import STEPS, Rounding, token_counts
from .memory import LIMIT, MOST, SHARE, configuration_bytes
from .paths import Parts
from .rounding_noise import FACTOR, logits_with_rounding

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["SideBySide", "in_batch"]

Bound = BoundInterventions | None


class SideBySide:
    """The interventions of N configurations, in force together on a batch of N * B rows.

    Rows n * B to (n + 1) * B belong to configuration n.

    Args:
        bound: those of each configuration, bound to the B prompts; None for none.
        size: B.

    Attributes:
        layers: in which some configuration edits attention.
        token_by_token: that of `BoundInterventions`.
        moved: of each configuration, which rows got anything but zeros added, bool [B]; None: it has edited
            nothing.
    """

    def __init__(self, bound: Sequence[Bound], size: int) -> None:
        self._bound, self._size = bound, size
        self.moved: list[Tensor | None] = [None for _ in bound]
        self.layers = tuple(sorted({layer for one in bound if one is not None for layer in one.layers}))
        self.token_by_token = False
        self._counted: Tensor | None = None
        # each mask with its parts, so that layers that share a mask share its parts as well
        self._masks: list[tuple[Tensor, dict[int, Tensor]]] = []

    @property
    def counted(self) -> Tensor | None:
        """bool [N * B, Q], which queries of the next calls enter the dose; None: all."""
        return self._counted

    @counted.setter
    def counted(self, counted: Tensor | None) -> None:
        self._counted = counted
        for n, one in enumerate(self._bound):
            if one is not None:
                one.counted = None if counted is None else counted[self._rows(n)]

    def __call__(self, layer: int, call: AttentionCall, total: int) -> tuple[slice, Tensor] | None:
        """What to add to an attention call's output, 0 in rows without an edit; see `Editing`."""
        rows, heads, queries, _ = call.query.shape
        added = call.query.new_zeros(rows, queries, heads, call.value.shape[-1], dtype=torch.float32)
        edited = False
        for n, one in enumerate(self._bound):
            if one is None or layer not in one.layers:
                continue
            change = one(layer, self._part(call, n), total)
            if change is not None:
                added[self._rows(n), change[0]] = change[1]
                moved, edited = (change[1] != 0).flatten(1).any(1), True
                before = self.moved[n]
                self.moved[n] = moved if before is None else moved | before.to(moved.device)
        return (slice(0, queries), added) if edited else None

    def _rows(self, n: int) -> slice:
        return slice(n * self._size, (n + 1) * self._size)

    def _part(self, call: AttentionCall, n: int) -> AttentionCall:
        """The call of one configuration's rows."""
        part, mask = call.of_prompts(self._rows(n)), call.mask
        if mask is None or part.mask is None:
            return part
        parts = next((parts for known, parts in self._masks if known is mask), None)
        if parts is None:
            parts = {}
            self._masks = [*self._masks[-1:], (mask, parts)]
        return replace(part, mask=parts.setdefault(n, part.mask))


@full_precision()
@torch.inference_mode()
def in_batch(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Parts],
    options: Sequence[Sequence[Sequence[int]]] | None,
    block: int | None = None,
) -> tuple[np.ndarray, float, list[dict[str, np.ndarray]]]:
    """Every configuration on a batch of prompts that are read once.

    Each block of configurations has rows without an edit, which are compared with the same tokens on one copy
    of the cache. Where an edit changes nothing, the values are those of the unedited rows: a row's place in a
    batch can change its last digits.

    Args:
        lalm: the model.
        prompt: B prompts on the model's device.
        configurations: of the path ``batch``; () for none.
        options: token ids of each option, one list per prompt; None for the next token's logits.
        block: configurations that run at once; as many as memory allows if None.

    Returns:
        float64 [B, K, C], log p of options, or float32 [B, K, V], logits; by how many steps of the number
        format the unedited rows differ, see `Rounding`; and the dose of each configuration.

    Raises:
        ModelError: the prompts cannot be read up to their last token, or unedited rows differ.
    """
    prefill = _Prefill.read(lalm, prompt, options)
    shape = prompt.size, len(configurations), prefill.plain.shape[1]
    values = np.empty(shape, np.float32 if options is None else np.float64)
    doses: list[dict[str, np.ndarray]] = [{} for _ in configurations]

    def run(some: list[int]) -> float:
        found, bound = prefill.rows([(), *(configurations[k] for k in some)])
        for k, value, one in zip(some, found[1:], bound[1:], strict=True):
            values[:, k] = value
            doses[k] = one.dose() if one is not None else {}
        return prefill.error(found[0])

    worst, step = 0.0, block or _at_once(lalm, prompt, prefill.cache)
    for begin in range(0, len(configurations), step):
        worst = max(worst, *in_halves(run, list(range(begin, min(begin + step, len(configurations))))))
    return values, worst, doses


@dataclass(frozen=True, eq=False)
class _Prefill:
    """Prompts that were read up to their last token, and the values without an edit.

    Attributes:
        lalm, prompt, options: those of `in_batch`.
        cache: of all tokens but the last.
        plain: logits [B, V] or log p of options [B, C], from one copy of the cache.
        rounding: of the prompts' logits.
        tokens: number of tokens of each option, int [B, C].
    """

    lalm: LALM
    prompt: Prompt
    options: Sequence[Sequence[Sequence[int]]] | None
    cache: Any
    plain: np.ndarray
    rounding: Rounding
    tokens: np.ndarray

    @classmethod
    def read(cls, lalm: LALM, prompt: Prompt, options: Sequence[Sequence[Sequence[int]]] | None) -> _Prefill:
        """Read the prompts.

        Raises:
            ModelError: they cannot be read up to their last token.
        """
        most = max((len(choices) for choices in options or ()), default=0)
        tokens = token_counts(options or [], (prompt.size, most))
        with exclusive(lalm.structure.decoder):
            cache = read(lalm.model, prompt, int(tokens.max(initial=0)))
            if cache is None:
                raise ModelError(f"{lalm.name} cannot read its prompts up to their last token.")
            logits = read_last(lalm.model, prompt, cache)[1].float().cpu().numpy()
            plain = logits if options is None else option_logprobs(lalm.model, prompt, options, cache)
        return cls(lalm, prompt, options, cache, plain, Rounding.at(lalm.dtype, logits), tokens)

    def rows(self, edits: Sequence[Parts]) -> tuple[np.ndarray, list[Bound]]:
        """What each configuration gives, the first of which has no edit, [N, B, C or V]; and its edits."""
        lalm, prompt, options = self.lalm, self.prompt, self.options
        bound = [BoundInterventions(lalm, prompt, parts) if parts else None for parts in edits]
        together, cache = _repeated(prompt, len(edits)), repeat_cache(self.cache, len(edits))
        editing = SideBySide(bound, prompt.size)
        with exclusive(lalm.structure.decoder), edited_calls(lalm.structure, editing) as run:
            if options is None:
                found = run(lambda: read_last(lalm.model, together, cache)[1].float().cpu().numpy())
            else:
                every = [*options] * len(edits)
                found = run(lambda: option_logprobs(lalm.model, together, every, cache, editing))
        found = found.reshape(len(edits), prompt.size, -1)
        for n, moved in enumerate(editing.moved):
            same = np.ones(prompt.size, bool) if moved is None else ~moved.cpu().numpy()
            found[n, same] = found[0, same]
        return found, bound

    def error(self, unedited: np.ndarray) -> float:
        """By how many steps rows without an edit, [B, C or V], differ from the prompts by themselves.

        Raises:
            ModelError: by more than rounding explains; the text names the item.
        """
        off, allowed = self._off(unedited, self.plain), np.asarray(STEPS[self.lalm.dtype])
        if not (off <= allowed).all():
            moved = logits_with_rounding(self.lalm, self._unedited)
            allowed = np.maximum(allowed, FACTOR * self._off(moved, self._unedited()))
        if not (off <= allowed).all():
            row = int(np.nan_to_num(off, nan=np.inf).argmax())
            raise ModelError(
                f"a row of a larger batch is {off[row]:.3g} steps of the number format off the prompt by "
                f"itself, in item {self.prompt.items[row].id!r}."
            )
        return float(off.max())

    def _unedited(self) -> np.ndarray:
        return self.rows([()])[0][0]

    def _off(self, values: np.ndarray, others: np.ndarray) -> np.ndarray:
        if self.options is None:
            return self.rounding.of_logits(values, others)
        return self.rounding.of_options(values, others, self.tokens)


def _repeated(prompt: Prompt, copies: int) -> Prompt:
    """The tokens of the prompts again and again, which their cache goes on from."""
    names = {"input_ids", "attention_mask"} & set(prompt.inputs)
    return replace(prompt, inputs={name: prompt.inputs[name].repeat(copies, 1) for name in names}, groups={})


def _at_once(lalm: LALM, prompt: Prompt, cache: Any) -> int:
    """Configurations in a block: what a part of the free memory holds, up to a limit."""
    decoder: Any = lalm.structure.decoder
    heads, size = max(lalm.structure.heads.values()), decoder.config.hidden_size
    # twice: a step of the cache is in memory beside the last one
    each = 2 * cache_bytes(cache) + configuration_bytes(prompt.size, 1, prompt.width, heads, size)
    free = free_bytes(*memory_devices(decoder.parameters()))
    return min(MOST, max(1, min(int(SHARE * free), LIMIT) // each))
