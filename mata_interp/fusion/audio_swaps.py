"""Runs of the text after the audio that read another clip's audio in some layers, all in one tree of rows.

Audio tokens do not see the text after them, so that another clip changes nothing but their keys and values.
Every run is a row over the clean prompt's past; where it reads the other clip, the scores and values of the
audio tokens come from that clip's past. Runs that read the same clips up to a layer share one row up to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError
from mata_interp.lalm.memory import in_halves
from mata_interp.lalm.rows.row_attention import PastAttention, RowAttention
from mata_interp.precision import full_precision
from mata_interp.sweeps.canary import STEPS, Rounding
from mata_interp.sweeps.option_slots import OptionSlots
from mata_interp.sweeps.tree import grow
from mata_interp.sweeps.tree_edits import TreeEditing

if TYPE_CHECKING:
    from .item_context import ItemContext

__all__ = ["rows_at_once", "swapped_margins"]

TOKENS = 2  # tokens of all rows that run at once, in prompts: bounds the memory of a long prompt
SCORES = 2**20  # scores of a head that always fit: many rows of a short prompt run at once


def rows_at_once(width: int, slots: int) -> int:
    """Rows of ``slots`` tokens that run at once, for a prompt of ``width`` tokens."""
    return max(8, max(TOKENS * width**2, SCORES) // (slots * width))


def swapped_margins(context: ItemContext, plans: Sequence[Sequence[int]]) -> np.ndarray:
    """The margin under the baseline where text reads the other clip's audio in some layers.

    Args:
        context: an item with a counterfactual clip.
        plans: of each run, the layers in which it reads the other clip.

    Returns:
        logit(right) - logit(wrong): float64 [K].

    Raises:
        ItemError: there is no other clip of the same length.
        ModelError: rows cannot run on the model.
    """
    runs = _SwapRuns(context)
    order = sorted(range(len(plans)), key=lambda k: (min(plans[k], default=0), len(plans[k])))
    margins = np.empty(len(plans))

    def measure(some: Sequence[int]) -> list[None]:
        margins[list(some)] = runs.margins([tuple(plans[k]) for k in some])
        return []

    step = rows_at_once(context.prompt.width, runs.slots.tokens.shape[1])
    for begin in range(0, len(order), step):
        in_halves(measure, order[begin : begin + step])
    return margins


@dataclass(frozen=True)
class _OtherAudio:
    """Stands for a patch in the tree of runs: the layers in which a run reads the other clip."""

    layers: tuple[int, ...]

    def at_layer(self, layer: int) -> _OtherAudio:
        """What it does in one of its layers, where all runs that read the other clip are alike."""
        return _OtherAudio((layer,))


class _SwapRuns:
    """The runs of one item.

    Attributes:
        slots: the tokens of a run: the text after the audio, and the forced tokens.
    """

    def __init__(self, context: ItemContext) -> None:
        self._context, self._prefill = context, context.inputs.prefill
        suffix_length = context.prompt.width - context.first_text_token
        decision = context.decision
        end = context.prompt.inputs["input_ids"][:, -suffix_length:]
        answers = OptionSlots(end, [[[*decision.forced, decision.right]]])
        self.slots = answers.slots
        self._place = answers.targets[-1][2]  # the slot that predicts the deciding token
        self._other = context.counterfactual.inputs.prefill.before(suffix_length)
        self._audio = context.audio_keys[: context.first_text_token].nonzero()[:, 0]

    @full_precision()
    @torch.inference_mode()
    def margins(self, plans: Sequence[tuple[int, ...]]) -> np.ndarray:
        """float64 [K]; the first call checks that a row without any edit equals the plain forward."""
        context, lalm = self._context, self._context.lalm
        runs: list[tuple[Any, ...]] = [
            (*context.baseline, *([_OtherAudio(plan)] if plan else ())) for plan in plans
        ]
        verified: list[bool] = context.memo("rows verified", list)
        if not verified:
            runs.append(())
        levels, ends = grow(runs, lalm.attention_layers)
        swapped = {
            layer: [node for node, patches in enumerate(level.patches) if patches]
            for layer, level in levels.items()
        }
        parents = {layer: torch.tensor(level.parents) for layer, level in levels.items() if level.branches}
        editing = TreeEditing(levels, [context.baseline], context.prompt.groups, self.slots)

        def attention_of(*arguments: Any) -> RowAttention:
            return _TwoClipAttention(*arguments, other=self._other, audio=self._audio, swapped=swapped)

        hidden = self._prefill.rows(self.slots, parents, editing, attention_of)  # (1, N, S, d)
        if not verified:
            self._require_equal(hidden[:, [ends[-1]], self.slots.prompt_slots - 1])
            verified.append(True)
            ends = ends[:-1]
        logits = self._prefill.head(hidden[:, list(ends), self._place])[0].float()  # (K, V)
        decision = context.decision
        return (logits[:, decision.right] - logits[:, decision.wrong]).cpu().double().numpy()

    def _require_equal(self, unedited: Tensor) -> None:
        """Raise a ModelError unless an unedited row, [1, 1, d], has the logits of the plain forward."""
        dtype, plain = self._context.lalm.dtype, self._prefill.logits.float().cpu().numpy()
        logits = self._prefill.head(unedited)[:, 0].float().cpu().numpy()
        off = Rounding.at(dtype, plain).of_logits(logits, plain).max()
        if not off <= STEPS[dtype]:
            raise ModelError(f"an unedited row is {off:.3g} steps of {dtype} off the plain forward.")


class _TwoClipAttention(RowAttention):
    """Row attention in which some rows see another clip's keys and values at the audio tokens.

    Args:
        *arguments: those of `RowAttention`.
        other: the cache of the other clip's prompt, as long as the first.
        audio: positions of the audio tokens, int [A].
        swapped: layer -> rows that read the other clip there.
    """

    def __init__(
        self, *arguments: Any, other: Any, audio: Tensor, swapped: Mapping[int, Sequence[int]]
    ) -> None:
        super().__init__(*arguments)
        self._other, self._audio, self._swapped = other, audio, swapped

    def _past(self, layer: int, owner: int, call: AttentionCall) -> PastAttention:
        swapped = self._swapped.get(layer)
        if not swapped:
            return super()._past(layer, owner, call)
        own, other, device = self._cache.layers[owner], self._other.layers[owner], call.query.device
        audio = self._audio.to(device)
        keys, values = (
            states.index_copy(2, audio, others.index_select(2, audio))
            for states, others in ((own.keys, other.keys), (own.values, other.values))
        )
        width = self._slots.tokens.shape[1]
        swaps = torch.zeros(call.query.shape[2] // width, dtype=torch.bool)  # on the CPU: nothing waits
        swaps[list(swapped)] = True
        swaps = swaps.repeat_interleave(width)
        parts = []
        for chosen, key, value in ((~swaps, own.keys, own.values), (swaps, keys, values)):
            rows = chosen.nonzero()[:, 0].to(device)
            query = call.query.index_select(2, rows)
            if len(rows):
                parts.append((rows, AttentionCall(query, key, value, None, call.scaling, call.softcap)))
        return _TwoClips(own.keys.shape[2], tuple(parts))


@dataclass(frozen=True, eq=False)
class _TwoClips:
    """Attention to the past, in which some rows see another clip's audio in place of the first clip's.

    Attributes:
        length: P, the number of keys of either past.
        parts: indices of rows, int [R] each, and their attention.
    """

    length: int
    parts: tuple[tuple[Tensor, AttentionCall], ...]

    def raw_scores(self, rows: slice) -> Tensor:
        """Of all rows: ``rows`` is that slice, as `RowAttention` needs no other."""
        return self._together([call.raw_scores(rows) for _, call in self.parts])

    def mix(self, weights: Tensor) -> Tensor:
        return self._together([call.mix(weights.index_select(2, chosen)) for chosen, call in self.parts])

    def _together(self, results: list[Tensor]) -> Tensor:
        """The results of the parts, [1, H, R, ...] each, in the order of the rows: [1, H, N * S, ...]."""
        place = torch.cat([chosen for chosen, _ in self.parts]).argsort()
        return torch.cat(results, 2).index_select(2, place)
