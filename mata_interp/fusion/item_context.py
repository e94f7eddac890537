"""One item as the criteria see it: prefilled once, with the token that decides its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError, ModelError
from mata_interp.interventions import AttentionEdit, select_queries
from mata_interp.lalm import PrefillCache, Prompt
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.decoding import end_of_sequence_ids
from mata_interp.lalm.discovery.hooks import hidden_states_in, temporary_hooks
from mata_interp.lalm.memory import is_out_of_memory
from mata_interp.lalm.scoring import option_logprobs
from mata_interp.precision import full_precision
from mata_interp.sweeps.shared_prefill import on_prefill, shared

from .audio_swaps import rows_at_once
from .baseline_edit import alters_text
from .context_inputs import ContextInputs, Decision
from .suffix_runner import SuffixRunner, SuffixTrace

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["Decision", "ItemContext"]

Result = TypeVar("Result")


class ItemContext:
    """Everything that criteria may use about one item on one model.

    The prompt is prefilled when the context is made. Everything else is computed when it is first used and
    then kept, through :meth:`memo`. No result depends on the order in which criteria ask for things. The page
    for authors of criteria is the docstring of `mata_interp.fusion.criteria.registry`.

    Args:
        lalm: the model.
        prompt: a prompt of one row, without padding.
        decision: the right and the wrong next token; None to derive them from the item's options.
        other: the same question about another clip of the same length (an `Item` or a `Prompt`), if any.
        baseline: interventions that are active in every measurement, applied before those of a criterion.
        last_token_only: compute :attr:`last_token_trace` from the last tokens alone, which costs next to
            nothing. It equals the suffix trace up to rounding. For callers that know that no criterion they
            measure needs the whole suffix (`Criterion.runs_suffix`).
        options: token ids of each answer option; None for those of the item, or for none if there is a
            ``decision``.
        keep_states: keep the hidden states of the prefill, which take (layers + 1) x T x d numbers. Without
            them, :attr:`prefill_states` prefills once more.

    Attributes:
        inputs: the fixed inputs: model, prompt, prefill, decision and baseline.
        item: the item that was asked.
        options: token ids of each answer option; empty for a ready-made prompt.

    Raises:
        ModelError: the model cannot be prefilled and continued.
        ItemError: the item has no audio, no known answer, or options with equal tokens.
    """

    def __init__(
        self,
        lalm: LALM,
        prompt: Prompt,
        decision: Decision | None = None,
        other: Item | Prompt | None = None,
        baseline: tuple[AttentionEdit, ...] = (),
        *,
        last_token_only: bool = False,
        options: Sequence[Sequence[int]] | None = None,
        keep_states: bool = True,
    ) -> None:
        self._asked = lalm.prepare(prompt, generating=True)
        prompt = lalm.prepare(self._asked)
        self.item = prompt.items[0]
        self._other, self._last_token_only = other, last_token_only
        self._prompt_format = "options"  # of ``other``, where it is an item
        first_text_token = _first_text_token(prompt, self.item)
        if options is None:
            options = [] if decision else lalm.option_tokens(self.item, self.item.choices)
        self.options = [list(option) for option in options]
        prefill, states = _prefill(lalm, prompt, keep_states)
        if decision is None:
            decision = _decide(lalm, prompt, self.item, self.options, prefill, baseline)
        self.inputs = ContextInputs(lalm, prompt, prefill, first_text_token, decision, baseline)
        self._memo: dict[Any, Any] = {"prefill states": states} if keep_states else {}

    @classmethod
    def from_item(
        cls,
        lalm: LALM,
        item: Item,
        other: Item | None = None,
        baseline: tuple[AttentionEdit, ...] = (),
        *,
        last_token_only: bool = False,
        keep_states: bool = True,
        prompt_format: str = "options",
    ) -> ItemContext:
        """The context of an item, asked in a prompt format."""
        if item.answer is None or item.answer not in item.choices:
            raise ItemError(item.id, "answer", f"{item.answer!r} is not among the choices.")
        prompt = lalm.prompt(item, format=prompt_format)
        context = cls(
            lalm,
            prompt,
            other=other,
            baseline=baseline,
            last_token_only=last_token_only,
            keep_states=keep_states,
        )
        context._prompt_format = prompt_format
        return context

    def memo(self, key: Any, compute: Callable[[], Result]) -> Result:
        """The value stored under ``key``, computed at its first use. Nothing is stored if that fails."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    @property
    def prefill_states(self) -> list[Tensor]:
        """Hidden states of the prefill, before the first layer and after each, as [layers + 1, T, d].

        They are without the baseline, which does not change states of audio tokens.
        """
        return self.memo("prefill states", lambda: _prefill(self.lalm, self.prompt, True)[1])

    @property
    def lalm(self) -> LALM:
        return self.inputs.lalm

    @property
    def prompt(self) -> Prompt:
        """The prompt of one row, on the model's device."""
        return self.inputs.prompt

    @property
    def decision(self) -> Decision:
        return self.inputs.decision

    @property
    def baseline(self) -> tuple[AttentionEdit, ...]:
        return self.inputs.baseline

    @property
    def first_text_token(self) -> int:
        """Position of the first text token after the audio, where the suffix starts."""
        return self.inputs.first_text_token

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers that have attention."""
        return self.inputs.layers

    @property
    def text_queries(self) -> Tensor:
        """Which tokens of the suffix are text that sees the audio, without the last prompt token and the
        forced tokens: bool [S]."""
        return self.memo("text_queries", self._text_queries)

    def _text_queries(self) -> Tensor:
        text = select_queries("text", self.prompt.groups)[0, self.first_text_token :].clone()
        text[-1] = False
        return torch.nn.functional.pad(text, (0, len(self.decision.forced)))

    @property
    def answer_queries(self) -> Tensor:
        """Which tokens of the suffix are the last prompt token or forced tokens: bool [S]."""
        return self.memo("answer_queries", self._answer_queries)

    def _answer_queries(self) -> Tensor:
        last = torch.zeros_like(self.text_queries)
        last[-1 - len(self.decision.forced) :] = True
        return last

    @property
    def audio_keys(self) -> Tensor:
        """Which of the prompt's tokens and the forced tokens are audio: bool [T + F]."""
        audio, forced = self.prompt.groups["audio"][0], len(self.decision.forced)
        return self.memo("audio_keys", lambda: torch.nn.functional.pad(audio, (0, forced)))

    @property
    def suffix_runner(self) -> SuffixRunner:
        """Runs all text after the audio again."""
        return self.memo("suffix_runner", lambda: SuffixRunner(self.inputs, self.first_text_token))

    @property
    def suffix_trace(self) -> SuffixTrace:
        """Attention calls, gradients and hidden states of the whole suffix, run once more."""
        return self.memo("suffix_trace", self.suffix_runner.trace)

    @property
    def last_token_trace(self) -> SuffixTrace:
        """The same of the last token, and perhaps of tokens before it: read its last row.

        It is the suffix trace itself. Only with ``last_token_only``, and if no baseline changes the text, it
        is a run of the last prompt token and the forced tokens alone.
        """
        if not self._last_token_only or alters_text(self.inputs):
            return self.suffix_trace
        return self.memo("last_token_trace", self._last_token_trace)

    def _last_token_trace(self) -> SuffixTrace:
        return SuffixRunner(self.inputs, self.inputs.prefill.length - 1).trace()

    @property
    def counterfactual(self) -> ItemContext:
        """The same question about another clip.

        Raises:
            ItemError: there is no other clip, or it takes another number of tokens.
        """
        return self.memo("counterfactual", self._counterfactual)

    def _counterfactual(self) -> ItemContext:
        if self._other is None:
            raise ItemError(self.item.id, "audio", "there is no other clip to replace its audio with.")
        prompt = self._other
        if not isinstance(prompt, Prompt):
            prompt = self.lalm.prompt(prompt, format=self._prompt_format)
        question = self.lalm.prepare(prompt, generating=True)
        if not torch.equal(question.inputs["input_ids"], self._asked.inputs["input_ids"]):
            raise ItemError(self.item.id, "audio", "the other clip takes another number of tokens.")
        if question.thought is not None:
            question = _with_audio_of(self.prompt, question)
        return ItemContext(
            self.lalm,
            replace(question, items=(self.item,)),
            self.decision,
            baseline=self.baseline,
            keep_states=False,
        )

    def answer_scores(self, edits: Sequence[tuple[AttentionEdit, ...]], *, verify: bool = True) -> np.ndarray:
        """Scores of the answers under the baseline and each edit.

        Args:
            edits: interventions that are applied after the baseline, one tuple per configuration; ``()`` for
                the baseline alone.
            verify: compare a row without an edit with the plain forward. False skips the comparison where an
                earlier call made it for the same queries and found the two equal, and only there.

        Returns:
            log p of each option, nats [K, C]; of a ready-made prompt, the logits [K, V].
        """
        configurations = [(*self.baseline, *edit) for edit in edits]
        queries = frozenset(part.queries for parts in configurations for part in parts)
        equal: set[frozenset[str]] = self.memo("queries whose rows equal the plain forward", set)
        verify = verify or queries not in equal
        prefill = self.inputs.prefill
        scores, by_rows = _answer_scores(
            self.lalm, self.prompt, self.item, self.options, prefill, configurations, verify
        )
        if by_rows:
            equal.add(queries)
        return scores


def _with_audio_of(prompt: Prompt, other: Prompt) -> Prompt:
    """A prompt whose thought is over with other audio: the same thought, not one about that audio.

    Args:
        prompt: what came of ``other`` with the audio of ``prompt``.
        other: the same tokens, up to the open thought.
    """
    ids = other.inputs["input_ids"]
    per_token = {name for name, x in other.inputs.items() if isinstance(x, Tensor) and x.shape == ids.shape}
    audio = {name: x for name, x in other.inputs.items() if name not in per_token}
    return replace(
        prompt,
        inputs=prompt.inputs | audio,
        audio_seconds=other.audio_seconds,
        truncated_seconds=other.truncated_seconds,
    )


def _first_text_token(prompt: Prompt, item: Item) -> int:
    """Position of the first text token after the audio."""
    audio = prompt.groups["audio"][0]
    if not audio.any():
        raise ItemError(item.id, "audio", "the prompt has no audio.")
    first = int(select_queries("text", prompt.groups)[0].nonzero()[0])
    if audio[first:].any():
        raise ItemError(item.id, "audio", "text stands between its clips.", "Use a prompt with one clip.")
    return first


def _answer_scores(
    lalm: LALM,
    prompt: Prompt,
    item: Item,
    options: Sequence[Sequence[int]],
    prefill: PrefillCache,
    configurations: Sequence[tuple[AttentionEdit, ...]],
    verify: bool = True,
) -> tuple[np.ndarray, bool]:
    """log p of options, nats [K, C], or without options the next-token logits [K, V]; and whether rows ran.

    ``verify`` is that of `shared`.
    """
    block = rows_at_once(prompt.width, _rerun_tokens(prompt, options, configurations))
    try:
        per_prompt = [options] if options else None
        scores, _ = shared(lalm, prompt, configurations, per_prompt, block, prefill, verify=verify)
        return scores[0], True
    except ModelError:  # rows cannot run on this model: one configuration after the other
        if options:
            scores = lalm.score_each(prompt, [list(item.choices)], configurations)
            return np.stack([score.logprob[0] for score in scores]), False
        logits = [lalm.logits(prompt, parts)[0] for parts in configurations]
        return np.stack([row.float().cpu().numpy() for row in logits]), False


def _rerun_tokens(
    prompt: Prompt, options: Sequence[Sequence[int]], configurations: Sequence[tuple[AttentionEdit, ...]]
) -> int:
    """Tokens of one row: those of the prompt from the first edited query on, and those of the options."""
    queries = {part.queries for parts in configurations for part in parts} or {"last"}
    first = min(int(select_queries(name, prompt.groups).any(0).nonzero()[0]) for name in queries)
    return prompt.width - first + sum(len(option) - 1 for option in options)


@full_precision()
@torch.no_grad()
def _decide(
    lalm: LALM,
    prompt: Prompt,
    item: Item,
    options: Sequence[Sequence[int]],
    prefill: PrefillCache,
    baseline: tuple[AttentionEdit, ...],
) -> Decision:
    """The decision between the right option and the wrong option with the highest probability."""
    choices, right = list(item.choices), item.choices.index(item.answer or "")
    if baseline:
        scores = _answer_scores(lalm, prompt, item, options, prefill, [baseline])[0][0]
    else:
        with exclusive(lalm.structure.decoder):
            scores = option_logprobs(lalm.model, prompt, [options], prefill.before(1))[0]
    scores[right] = -np.inf
    rival = int(scores.argmax())
    ends = end_of_sequence_ids(lalm.model).tolist()
    decision = Decision.between(options[right], options[rival], ends[0] if ends else None)
    if decision is None:
        problem = f"{choices[right]!r} and {choices[rival]!r} have the same tokens."
        raise ItemError(item.id, "choices", problem)
    return decision


@torch.no_grad()
def _prefill(lalm: LALM, prompt: Prompt, keep_states: bool) -> tuple[PrefillCache, list[Tensor]]:
    """The prefilled prompt, and the hidden states that it passed through, empty without ``keep_states``.

    Without them the last layer need not finish the tokens before the last, of which only keys and values are
    used. Models on which that does not give the plain forward's logits do all of it.
    """
    if not keep_states:
        try:
            prefill = _prefill_whole(lalm, prompt, False, last_token_only=True)[0]
            on_prefill(lalm, prompt, [()], None, None, prefill)  # refuses what differs from the plain forward
        except (ModelError, RuntimeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
        else:
            return prefill, []
    return _prefill_whole(lalm, prompt, keep_states)


def _prefill_whole(
    lalm: LALM, prompt: Prompt, keep_states: bool, last_token_only: bool = False
) -> tuple[PrefillCache, list[Tensor]]:
    """`_prefill` in one way; ``last_token_only`` is that of `PrefillCache`."""
    states: list[Tensor] = []
    blocks = lalm.structure.blocks

    def keep(state: Any) -> None:
        state = state[0] if isinstance(state, tuple) else state
        state = state.reshape(-1, *state.shape[-2:])[0]  # (T, d)
        states.append(state if keep_states else state.new_empty(0))  # a slice would hold its memory

    before: list[Any] = [(blocks[0], lambda args, kwargs: keep(hidden_states_in(args, kwargs)))]
    after: list[Any] = [(block, lambda args, kwargs, out: keep(out)) for block in blocks]
    with exclusive(lalm.structure.decoder), temporary_hooks(before, after):
        prefill = PrefillCache(lalm.model, lalm.structure, prompt, last_token_only)
    if len(states) != lalm.num_layers + 1:
        raise ModelError(
            f"{lalm.name} ran {len(states) - 1} layers in a forward pass and has {lalm.num_layers}: "
            "criteria need a decoder that runs each of its layers once."
        )
    return prefill, states if keep_states else []
