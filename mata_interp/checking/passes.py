"""Checks of passes: a prompt gives the same logits alone and in a batch, in one pass and token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mata_interp.lalm import OptionScores, Prompt
from mata_interp.lalm.calls.attention_calls import Backend
from mata_interp.lalm.calls.edited_calls import edited_calls
from mata_interp.lalm.discovery.entry import enter
from mata_interp.lalm.discovery.experts import Flips, Routing
from mata_interp.lalm.generation_settings import generation_arguments

from .bounds import LOGITS, OPTION_SCORES
from .context import STEPS, CheckContext
from .eager import extend_inputs, is_per_token, real_tokens
from .edits import largest, nan_first, too_small
from .registry import register_check
from .results import Measurement, NotApplicable

__all__ = ["CHECKS"]

MORE_PADDING = 7  # tokens


@register_check(
    name="batch equals single prompts",
    compared="logits, plain and edited, of each prompt alone and beside longer ones, with left padding",
    remedy="Use batch_size=1 on this model: its answers depend on the other prompts of a batch.",
)
def batch_equals_single(context: CheckContext) -> Measurement:
    edited, routing = context.with_routing(lambda: context.lalm.logits(context.prompt, context.mata).float())
    together = _Batch(context, torch.stack([context.plain, edited]), (context.plain_routing, routing))
    return together.against_single_prompts() if context.items else together.against_more_padding()


@register_check(
    name="cached decoding equals one pass",
    compared="the logits of a generation with a key-value cache, plain and edited, and those of the model's "
    "eager attention over prompt and answer in one pass without a cache",
    remedy="Do not trace or edit generations on this model (query='generated', phase='decode'). Please "
    "report it.",
)
def decoding_equals_one_pass(context: CheckContext) -> Measurement:
    worst, effect, total_flips = 0.0, 0.0, Flips()
    for edited in (False, True):
        (steps, answer), routing = context.with_routing(lambda e=edited: _generate(context, e))
        inputs = extend_inputs(context.prompt.inputs, answer[:, :-1])
        edit = context.reference_edit(context.strength) if edited else None
        reference, flips = context.eager.logits(inputs, STEPS, edit, routing)
        total_flips += flips
        worst = max(worst, largest(steps - reference.to(steps)), key=nan_first)
        if edited:
            plain, _ = context.eager.logits(inputs, STEPS)
            effect = largest(reference - plain)
    return Measurement(
        f"max |Δlogit| {worst:.3g} over {STEPS} tokens; the edit changes {effect:.3g}",
        worst,
        context.logit_bound,
        weak=too_small(context, effect),
        unsure=context.unsure,
        flips=total_flips,
    )


@register_check(
    name="both backends give equal logits",
    compared="the logits of an edited generation through nnsight and through a stand-in for the attention "
    "function, bit for bit",
    remedy="Do not combine edits and traces on this model. Please report it with this output.",
)
def backends_agree(context: CheckContext) -> Measurement:
    direct, nnsight = (_generate(context, True, backend)[0] for backend in ("direct", "nnsight"))
    difference = largest(direct - nnsight)
    bound, note = context.exact(difference)
    return Measurement(f"max |Δlogit| {difference:.3g} over {STEPS} tokens{note}", difference, bound)


@register_check(
    name="option scores equal one pass",
    compared="log p of answer options, computed on a shared cache, plain and edited, and that of the model's "
    "eager attention over prompt and option in one pass",
    remedy="Do not use scores of options on this model (mi.run, mi.study, mi.sweep on items). Please report "
    "it.",
)
def options_equal_one_pass(context: CheckContext) -> Measurement:
    lalm, prompt = context.lalm, context.prompt
    choices = [item.choices for item in context.items]
    if not choices or not all(choices):
        raise NotApplicable("the prompt was not made of items with options.")
    edits = (None, context.mata)
    scored = [(scores, Routing()) for scores in lalm.score_each(prompt, choices, edits)]
    comparison = _compare_options(context, choices, scored)
    bound = OPTION_SCORES * context.logit_bound
    if not comparison.difference <= bound and context.plain_routing.experts:
        # one option at a time, so that the experts of each of its tokens are known
        parts = []
        for c in range(min(map(len, choices))):
            option = [[texts[c]] for texts in choices]
            alone = [
                context.with_routing(lambda e=edit, o=option: lalm.score(prompt, o, e)) for edit in edits
            ]
            parts.append(_compare_options(context, option, alone))
        comparison = _worst_of(parts)
    measured = (
        f"max |Δlog p| {comparison.difference:.3g}, up to {comparison.tokens:.0f} tokens; the edit changes "
        f"{comparison.effect:.3g}"
    )
    return Measurement(measured, comparison.difference, bound, unsure=context.unsure, flips=comparison.flips)


CHECKS = (batch_equals_single, decoding_equals_one_pass, backends_agree, options_equal_one_pass)


class _Batch:
    """A batch whose logits are compared with those of other prompts that hold the same questions.

    Args:
        context: the model and the batch.
        logits: of the batch, plain and edited, [2, B, V].
        routings: choices of experts of these two runs.
    """

    def __init__(self, context: CheckContext, logits: Tensor, routings: tuple[Routing, Routing]) -> None:
        self._context, self._logits, self._routings = context, logits, routings
        self._flips = Flips()

    def against_single_prompts(self) -> Measurement:
        """Each item alone."""
        context, prompt = self._context, self._context.prompt
        rows = [context.build((item,)) for item in context.items]
        alone = []
        for b, row in enumerate(rows):
            same = _same_tokens(prompt, b, row)
            alone.append(self._run(row, lambda x, b=b, w=row.width: x[b : b + 1, -w:], same))
        difference = largest(torch.cat(alone, 1) - self._logits)
        padded = max(prompt.width - row.width for row in rows)
        measured = f"max |Δlogit| {difference:.3g}; {prompt.size} prompts, up to {padded} tokens of padding"
        if not difference <= context.logit_bound:
            measured += _difference_before_decoder(context, rows)
        return self._measurement(measured, difference)

    def against_more_padding(self) -> Measurement:
        """The whole batch with more padding, where its rows cannot be separated."""
        prompt, n = self._context.prompt, MORE_PADDING
        wider = _padded(prompt, n, self._context.lalm.model.config)
        moved = self._run(wider, lambda x: torch.cat([x[:, :1].expand(-1, n, -1), x], 1), True)
        difference = largest(moved - self._logits)
        measured = f"max |Δlogit| {difference:.3g} with {n} tokens of padding; rows cannot be separated"
        return self._measurement(measured, difference)

    def _run(self, other: Prompt, align: Callable[[Tensor], Tensor], same_tokens: bool) -> Tensor:
        """Logits of another prompt, plain and edited, [2, B, V]; with the experts of the batch, if it has the
        same tokens. ``align`` takes choices [B, L, k] of the batch to those of the other prompt."""
        context = self._context
        logits = []
        for edit, routing in zip((None, context.mata), self._routings, strict=True):
            leading = (routing if same_tokens else Routing()).changed(align)
            result, flips = context.with_experts_of(
                leading, other, lambda e=edit: context.lalm.logits(other, e).float()
            )
            self._flips += flips
            logits.append(result)
        return torch.stack(logits)

    def _measurement(self, measured: str, difference: float) -> Measurement:
        context = self._context
        return Measurement(
            measured, difference, context.logit_bound, unsure=context.unsure, flips=self._flips
        )


def _difference_before_decoder(context: CheckContext, rows: Sequence[Prompt]) -> str:
    """What differs in a batch already before the decoder; "" if nothing does."""
    lalm, prompt = context.lalm, context.prompt
    for b, row in enumerate(rows):
        if not _same_tokens(prompt, b, row):
            together, alone = (int(p.groups["audio"][r].sum()) for p, r in ((prompt, b), (row, 0)))
            return (
                f"; the processor makes other tokens of prompt {b + 1} in a batch: {together} of audio, "
                f"{alone} if it is alone"
            )
    with torch.no_grad():
        together = enter(lalm.model, lalm.structure, prompt.inputs).embeds
        alone = [enter(lalm.model, lalm.structure, row.inputs).embeds[0] for row in rows]
    difference = max(largest(together[b, -len(x) :] - x) for b, x in enumerate(alone))
    size = max(map(largest, alone))
    if difference <= LOGITS.get(lalm.dtype, LOGITS[torch.bfloat16]) * size:
        return ""
    return f"; audio embeddings in a batch differ before the decoder, by {difference:.3g} of {size:.3g}"


def _same_tokens(prompt: Prompt, place: int, alone: Prompt) -> bool:
    """Whether a row of a batch holds the tokens of a prompt that is alone."""
    tokens, real = prompt.inputs["input_ids"][place], real_tokens(prompt.inputs)[place]
    return torch.equal(tokens[real], alone.inputs["input_ids"][0][real_tokens(alone.inputs)[0]])


@dataclass
class _OptionComparison:
    """How far option scores are from the reference.

    Attributes:
        difference: largest difference of log p.
        effect: largest effect of the edit.
        tokens: number of tokens of the longest option.
        flips: how many choices of experts differed.
    """

    difference: float
    effect: float
    tokens: int
    flips: Flips


def _worst_of(parts: Sequence[_OptionComparison]) -> _OptionComparison:
    return _OptionComparison(
        max((part.difference for part in parts), key=nan_first),
        max((part.effect for part in parts), key=nan_first),
        max(part.tokens for part in parts),
        sum((part.flips for part in parts), Flips()),
    )


def _compare_options(
    context: CheckContext, choices: Sequence[Sequence[str]], scored: Sequence[tuple[OptionScores, Routing]]
) -> _OptionComparison:
    """Scores of options, plain and edited, against eager attention."""
    lalm, prompt = context.lalm, context.prompt
    options = [lalm.option_tokens(item, texts) for item, texts in zip(context.items, choices, strict=True)]
    edits = (None, context.reference_edit(context.strength))
    comparison = _OptionComparison(0.0, 0.0, 1, Flips())
    for c in range(min(map(len, options))):
        tokens = [row[c] for row in options]
        width = max(map(len, tokens))
        comparison.tokens = max(comparison.tokens, width)
        real = torch.tensor([[k < len(t) for k in range(width)] for t in tokens])
        filled = torch.tensor([t + [0] * (width - len(t)) for t in tokens]).to(lalm.device)
        inputs = extend_inputs(prompt.inputs, filled, real.to(lalm.device))
        reference = []
        for edit, (scores, routing) in zip(edits, scored, strict=True):
            logits, flips = context.eager.logits(inputs, width + 1, edit, routing)
            reference.append(_logprob(logits, filled, real))
            comparison.flips += flips
            difference = largest(torch.from_numpy(scores.logprob[:, c]) - reference[-1])
            comparison.difference = max(comparison.difference, difference, key=nan_first)
        comparison.effect = max(comparison.effect, largest(reference[1] - reference[0]))
    return comparison


def _logprob(logits: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
    """log p of tokens [B, N] from logits [B, N + 1, V], of which the last prompt token's come first:
    float64 [B]."""
    logits, tokens = logits[:, :-1].cpu().double(), tokens.cpu()
    each = logits.log_softmax(-1).gather(2, tokens[:, :, None])[..., 0]
    return each.masked_fill(~real, 0.0).sum(1)


def _generate(context: CheckContext, edited: bool, backend: Backend = "direct") -> tuple[Tensor, Tensor]:
    """Logits [B, STEPS, V] and tokens [B, STEPS] of a greedy generation that does not stop."""
    lalm, prompt = context.lalm, context.prompt
    editing = context.editing() if edited else None

    def generate() -> Any:
        return lalm.model.generate(
            **prompt.inputs,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            **generation_arguments(lalm.model) | {"output_logits": True, "return_dict_in_generate": True},
        )

    with torch.inference_mode():
        if editing is None:
            out = generate()
        else:
            with edited_calls(lalm.structure, editing, backend) as run:
                out = run(generate)
    logits = torch.stack([step.float() for step in out.logits], 1)
    return logits.clone(), out.sequences[:, prompt.width :].clone()


def _padded(prompt: Prompt, more: int, config: Any) -> Prompt:
    """The same prompt with more padding on its left."""
    tokens = prompt.inputs["input_ids"]
    blank = getattr(config, "pad_token_id", None) or 0
    inputs = dict(prompt.inputs)
    inputs.setdefault("attention_mask", torch.ones_like(tokens))
    for name, value in inputs.items():
        if is_per_token(value, tokens):
            fill = blank if name == "input_ids" else 0
            inputs[name] = torch.cat([value.new_full((len(value), more), fill), value], 1)
    groups = {n: torch.cat([m.new_zeros(len(m), more), m], 1) for n, m in prompt.groups.items()}
    return replace(prompt, inputs=inputs, groups=groups)
