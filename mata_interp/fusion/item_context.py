"""One item as the criteria see it: read once, with the token that decides its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError, ModelError
from mata_interp.interventions import AttentionEdit, Mata, select_queries
from mata_interp.lalm import PrefillCache, Prompt
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.decoding import end_of_sequence_ids
from mata_interp.lalm.discovery.hooks import hidden_states_in, temporary_hooks
from mata_interp.lalm.scoring import option_logprobs
from mata_interp.sweeps.shared_prefill import shared

from .baseline_edit import alters_text
from .suffix_runner import SuffixRunner, SuffixTrace

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["Decision", "ItemContext"]


@dataclass(frozen=True)
class Decision:
    """Where an answer is decided: behind ``forced``, tokens that two options share, by ``right - wrong``.

    "a bell" and "a crow" begin alike, and what tells them apart is not the prompt's next token but the one
    after "a"; so that is given, and the token behind it asked for.
    """

    right: int
    wrong: int
    forced: tuple[int, ...] = ()

    @classmethod
    def between(cls, right: Sequence[int], wrong: Sequence[int], end: int | None) -> Decision | None:
        """Of two options' tokens; an option that ends where the other goes on is followed by ``end``."""
        ended = [] if end is None else [end]
        for place, (a, b) in enumerate(zip([*right, *ended], [*wrong, *ended], strict=False)):
            if a != b:
                return cls(a, b, tuple(right[:place]))
        return None


class ItemContext:
    """One prompt on a model, read once; what several criteria need is computed when first asked for.

    Attributes:
        lalm: the model.
        prompt: of one row, without padding, on the model's device.
        item: what was asked.
        options: the tokens of its options; empty for a ready-made prompt.
        reading: of the prompt, outside inference mode, so that gradients can go on from it.
        begin: the first token of text behind the sound: what stands before it is shared by all reruns.
        states: of the reading, before the first layer and behind each: [layers + 1, T, d].
        other: the same question about another sound of the same length, if there is one.
        baseline: interventions in force whatever is asked, done before any that a criterion tries; the
            reading and its states are without them, which the sound cannot tell.

    Raises:
        ModelError: the model cannot be read once and gone on from.
        ItemError: the item has no sound, no known answer, or options that cannot be told apart.
    """

    def __init__(
        self,
        lalm: LALM,
        prompt: Prompt,
        decision: Decision | None = None,
        other: Any = None,
        baseline: tuple[AttentionEdit, ...] = (),
    ) -> None:
        self.lalm, self.prompt, self.item, self._other = lalm, lalm.prepare(prompt), prompt.items[0], other
        self.baseline = baseline
        audio = self.prompt.groups["audio"][0]
        if not audio.any():
            raise ItemError(self.item.id, "audio", "the prompt has no sound.")
        self.begin = int(select_queries("text", self.prompt.groups)[0].nonzero()[0])
        if audio[self.begin :].any():
            raise ItemError(self.item.id, "audio", "text stands between its sounds.", "Ask about one sound.")
        self.options = [] if decision else lalm.option_tokens(self.item, self.item.choices)
        self.reading, self.states = _read(lalm, self.prompt)
        self.decision = decision or self._decide()

    @classmethod
    def of_item(
        cls, lalm: LALM, item: Item, other: Item | None = None, baseline: tuple[AttentionEdit, ...] = ()
    ) -> ItemContext:
        """Ask an item in the default format."""
        if item.answer is None or item.answer not in item.choices:
            raise ItemError(item.id, "answer", f"{item.answer!r} is not among the choices.")
        return cls(lalm, lalm.prompt(item), other=other, baseline=baseline)

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers that have attention."""
        return self.lalm.attention_layers

    @cached_property
    def text(self) -> Tensor:
        """Which tokens of the ending (from ``begin``, and the forced ones) are text that sees the sound and
        stands before the last prompt token: bool [S]."""
        named = select_queries("text", self.prompt.groups)[0, self.begin :].clone()
        named[-1] = False
        return torch.nn.functional.pad(named, (0, len(self.decision.forced)))

    @cached_property
    def speaking(self) -> Tensor:
        """The last prompt token and the forced ones: bool [S]."""
        last = torch.zeros_like(self.text)
        last[-1 - len(self.decision.forced) :] = True
        return last

    @cached_property
    def audio(self) -> Tensor:
        """bool [T + F], of the keys."""
        return torch.nn.functional.pad(self.prompt.groups["audio"][0], (0, len(self.decision.forced)))

    @cached_property
    def ending(self) -> SuffixRunner:
        """All text behind the sound."""
        return SuffixRunner(self, self.begin)

    @cached_property
    def watched(self) -> SuffixTrace:
        """The ending run again with its attention calls and their gradients kept."""
        return self.ending.watch()

    @cached_property
    def said(self) -> SuffixTrace:
        """The same of its last tokens alone, the last of the prompt and the forced ones, which costs next to
        nothing; or of all of it, if that was run before, or if a baseline makes the text another."""
        if "watched" in self.__dict__ or alters_text(self):
            return self.watched
        return SuffixRunner(self, self.reading.length - 1).watch()

    @cached_property
    def corrupted(self) -> ItemContext:
        """The same question about the other sound.

        Raises:
            ItemError: there is none, or it makes another number of tokens.
        """
        if self._other is None:
            raise ItemError(self.item.id, "audio", "there is no other sound to put in its place.")
        prompt = self._other if isinstance(self._other, Prompt) else self.lalm.prompt(self._other)
        if not torch.equal(self.lalm.prepare(prompt).inputs["input_ids"], self.prompt.inputs["input_ids"]):
            raise ItemError(self.item.id, "audio", "the other sound makes another number of tokens.")
        return ItemContext(
            self.lalm, replace(prompt, items=(self.item,)), self.decision, baseline=self.baseline
        )

    def told(self, edits: Sequence[AttentionEdit]) -> np.ndarray:
        """What the model says under the baseline and each edit behind it (one without layers: the baseline
        alone): log p of options, nats [K, C], or of a ready-made prompt the logits [K, V]."""
        configurations = [(*self.baseline, *((edit,) if edit.layers else ())) for edit in edits]
        options = [self.options] if self.options else None
        try:
            return shared(self.lalm, self.prompt, configurations, options, None, self.reading)[0][0]
        except ModelError:  # rows cannot run on this model: one by one
            if self.options:
                scores = self.lalm.score_each(self.prompt, [list(self.item.choices)], configurations)
                return np.stack([score.logprob[0] for score in scores])
            each = [self.lalm.logits(self.prompt, parts)[0] for parts in configurations]
            return np.stack([logits.float().cpu().numpy() for logits in each])

    @torch.no_grad()
    def _decide(self) -> Decision:
        """Between the right option and the wrong one that the model finds likeliest."""
        choices, right = list(self.item.choices), self.item.choices.index(self.item.answer or "")
        if self.baseline:
            told = self.told([Mata(0.0, [])])[0]
        else:
            told = option_logprobs(self.lalm.model, self.prompt, [self.options], self.reading.before(1))[0]
        told[right] = -np.inf
        rival = int(told.argmax())
        ends = end_of_sequence_ids(self.lalm.model).tolist()
        end = ends[0] if ends else None
        found = Decision.between(self.options[right], self.options[rival], end)
        if found is None:
            problem = f"{choices[right]!r} and {choices[rival]!r} have the same tokens."
            raise ItemError(self.item.id, "choices", problem)
        return found


@torch.no_grad()
def _read(lalm: LALM, prompt: Prompt) -> tuple[PrefillCache, list[Tensor]]:
    """A reading, and the states it passed through."""
    states: list[Tensor] = []
    blocks = lalm.structure.blocks

    def keep(state: Any) -> None:
        state = state[0] if isinstance(state, tuple) else state
        states.append(state.reshape(-1, *state.shape[-2:])[0])  # (T, d)

    before: list[Any] = [(blocks[0], lambda args, kwargs: keep(hidden_states_in(args, kwargs)))]
    after: list[Any] = [(block, lambda args, kwargs, out: keep(out)) for block in blocks]
    with exclusive(lalm.structure.decoder), temporary_hooks(before, after):
        reading = PrefillCache(lalm.model, lalm.structure, prompt)
    if len(states) != lalm.num_layers + 1:
        raise ModelError(f"{lalm.name} runs its layers in an order that is not understood.")
    return reading, states
