"""Is a prompt the same alone and in a batch, in one pass and token by token, generated and scored?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mata_interp.lalm import OptionScores, Prompt
from mata_interp.lalm.calls.attention_calls import Backend
from mata_interp.lalm.calls.edited_calls import edited_calls
from mata_interp.lalm.discovery.entry import enter
from mata_interp.lalm.discovery.experts import Routing

from .bounds import LOGITS, SCORES
from .context import STEPS, CheckContext
from .eager import extended, is_per_token, real_in
from .edits import largest, too_small
from .results import Measurement, NotApplicable, register_check

__all__: list[str] = []


@register_check(
    "alone as in a batch",
    "logits, plain and edited, of each prompt alone and beside longer ones, with padding on its left",
    "Use batch_size=1 on this model: its answers depend on what stands beside them in the batch.",
)
def _batch(subject: CheckContext) -> Measurement:
    lalm, prompt, mata = subject.lalm, subject.prompt, subject.mata
    edited, routing = subject.seen(lambda: lalm.logits(prompt, mata).float())
    both = torch.stack([subject.plain, edited])  # (2, B, V)

    def again(other: Prompt, aligned: Callable[[Tensor], Tensor], same: bool = True) -> Tensor:
        """The same of another prompt; if it has the same tokens, with the experts they went to here."""
        routings = (subject.plain_routing, routing) if same else (Routing(), Routing())
        return torch.stack(
            [
                subject.agreeing(led.changed(aligned), other, lambda e=edit: lalm.logits(other, e).float())
                for edit, led in zip((None, mata), routings, strict=True)
            ]
        )

    if subject.items:
        rows = [subject.asked((item,)) for item in subject.items]
        alone = [
            again(row, lambda x, b=b, w=row.width: x[b : b + 1, -w:], same=_same_tokens(prompt, b, row))
            for b, row in enumerate(rows)
        ]
        off = largest(torch.cat(alone, 1) - both)
        padded = max(prompt.width - row.width for row in rows)
        told = f"max |Δlogit| {off:.1g}; {prompt.size} prompts, up to {padded} tokens of padding"
        return Measurement(
            told if off <= subject.logit_bound else told + _otherwise(subject, rows),
            off,
            subject.logit_bound,
            unsure=subject.unsure,
        )
    wider = _padded(prompt, 7, lalm.model.config)
    moved = again(wider, lambda x: torch.cat([x[:, :1].expand(-1, 7, -1), x], 1))
    off = largest(moved - both)
    return Measurement(
        f"max |Δlogit| {off:.1g} with 7 tokens of padding; rows cannot be taken apart",
        off,
        subject.logit_bound,
        unsure=subject.unsure,
    )


@register_check(
    "prefill and decode as one pass",
    "the logits of a generation with a key-value cache, plain and edited, and those of the model's eager "
    "attention over prompt and answer in one pass without a cache",
    "Do not trace or edit generations on this model (query='generated', phase='decode'). Please report it.",
)
def _decode(subject: CheckContext) -> Measurement:
    worst, effect = 0.0, 0.0
    for edited in (False, True):
        (steps, said), routing = subject.seen(lambda e=edited: _generated(subject, e))
        inputs = extended(subject.prompt.inputs, said[:, :-1])
        bias = subject.bias(subject.strength)
        once = subject.eager.logits(inputs, STEPS, bias if edited else None, routing)
        off = largest(steps - once.to(steps))
        worst = max(worst, off, key=lambda x: (x != x, x))
        if edited:
            effect = largest(once - subject.eager.logits(inputs, STEPS))
    told = f"max |Δlogit| {worst:.1g} over {STEPS} tokens; the edit moves {effect:.2g}"
    return Measurement(
        told, worst, subject.logit_bound, weak=too_small(subject, effect), unsure=subject.unsure
    )


@register_check(
    "both backends give the same bits",
    "the logits of an edited generation through nnsight and through a stand-in for the attention function",
    "Do not use results of edits and traces together on this model. Please report it with this output.",
)
def _backends(subject: CheckContext) -> Measurement:
    direct, nnsight = (_generated(subject, True, backend)[0] for backend in ("direct", "nnsight"))
    off = largest(direct - nnsight)
    return Measurement(f"max |Δlogit| {off:.2g} over {STEPS} tokens", off, 0.0)


@register_check(
    "options scored as one pass",
    "log p of answer options, read on a shared cache, plain and edited, and that of the model's eager "
    "attention over prompt and option in one pass",
    "Do not use scores of options on this model (mi.run, mi.study, mi.sweep on items). Please report it.",
)
def _options(subject: CheckContext) -> Measurement:
    lalm, prompt = subject.lalm, subject.prompt
    choices = [item.choices for item in subject.items]
    if not choices or not all(choices):
        raise NotApplicable("the prompt was not made of items with options.")
    edits = (None, subject.mata)
    told = [(scores, Routing()) for scores in lalm.score_each(prompt, choices, edits)]
    found = _scored(subject, choices, told)
    bound = SCORES * subject.logit_bound
    if not found[0] <= bound and subject.plain_routing.experts:
        # one by one, for only then is it known which experts each token of an option went to
        each = []
        for c in range(min(map(len, choices))):
            one = [[texts[c]] for texts in choices]
            alone = [subject.seen(lambda e=edit, o=one: lalm.score(prompt, o, e)) for edit in edits]
            each.append(_scored(subject, one, alone))
        found = [max(numbers, key=lambda x: (x != x, x)) for numbers in zip(*each, strict=True)]
    worst, effect, most = found
    told = f"max |Δlog p| {worst:.1g}, up to {most:.0f} tokens; the edit moves {effect:.2g}"
    return Measurement(told, worst, bound, unsure=subject.unsure)


def _otherwise(subject: CheckContext, rows: Sequence[Prompt]) -> str:
    """What is another already before the decoder when a prompt stands in a batch; "" if nothing is."""
    lalm, prompt = subject.lalm, subject.prompt
    for b, row in enumerate(rows):
        if not _same_tokens(prompt, b, row):
            together, alone = (int(p.groups["audio"][r].sum()) for p, r in ((prompt, b), (row, 0)))
            return (
                f"; the processor itself makes other tokens of prompt {b + 1} in a batch: "
                f"{together} of audio, and {alone} alone"
            )
    with torch.no_grad():
        together = enter(lalm.model, lalm.structure, prompt.inputs).embeds
        alone = [enter(lalm.model, lalm.structure, row.inputs).embeds[0] for row in rows]
    off = max(largest(together[b, -len(x) :] - x) for b, x in enumerate(alone))
    size = max(map(largest, alone))
    if off <= LOGITS.get(lalm.dtype, LOGITS[torch.bfloat16]) * size:
        return ""
    return f"; the sounds enter the decoder otherwise from a batch, off by {off:.1g} of {size:.1g}"


def _same_tokens(prompt: Prompt, place: int, alone: Prompt) -> bool:
    """Whether a row of a batch holds the tokens of the same prompt alone."""
    tokens, real = prompt.inputs["input_ids"][place], real_in(prompt.inputs)[place]
    return torch.equal(tokens[real], alone.inputs["input_ids"][0][real_in(alone.inputs)[0]])


def _scored(
    subject: CheckContext, choices: Sequence[Sequence[str]], told: Sequence[tuple[OptionScores, Routing]]
) -> list[float]:
    """How far scores, plain and edited, are from the eager attention's; what the edit moves; most tokens."""
    lalm, prompt = subject.lalm, subject.prompt
    options = [lalm.option_tokens(item, texts) for item, texts in zip(subject.items, choices, strict=True)]
    biases = (None, subject.bias(subject.strength))
    worst, effect, most = 0.0, 0.0, 1
    for c in range(min(map(len, options))):
        tokens = [row[c] for row in options]
        width = max(map(len, tokens))
        most = max(most, width)
        real = torch.tensor([[k < len(t) for k in range(width)] for t in tokens])
        filled = torch.tensor([t + [0] * (width - len(t)) for t in tokens]).to(lalm.device)
        inputs = extended(prompt.inputs, filled, real.to(lalm.device))
        theirs = [
            _logp(subject.eager.logits(inputs, width + 1, bias, routing), filled, real)
            for bias, (_, routing) in zip(biases, told, strict=True)
        ]
        ours = [torch.from_numpy(scores.logprob[:, c]) for scores, _ in told]
        apart = [largest(a - b) for a, b in zip(ours, theirs, strict=True)]
        worst = max(worst, *apart, key=lambda x: (x != x, x))
        effect = max(effect, largest(theirs[1] - theirs[0]))
    return [worst, effect, most]


def _logp(logits: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
    """log p of tokens [B, N] from logits [B, N + 1, V], the last prompt token's the first: float64 [B]."""
    told = logits[:, :-1].double().log_softmax(-1).gather(2, tokens[:, :, None].to(logits.device))[..., 0]
    return told.cpu().masked_fill(~real, 0.0).sum(1)


def _generated(subject: CheckContext, edited: bool, backend: Backend = "direct") -> tuple[Tensor, Tensor]:
    """Logits [B, STEPS, V] and tokens [B, STEPS] of a greedy generation that does not stop."""
    lalm, prompt = subject.lalm, subject.prompt
    editing = subject.editing() if edited else None
    how: dict[str, Any] = {
        "do_sample": False,
        "num_beams": 1,
        "temperature": None,
        "top_k": None,
        "top_p": None,
    }

    def generate() -> Any:
        return lalm.model.generate(
            **prompt.inputs,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            output_logits=True,
            return_dict_in_generate=True,
            **how,
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
