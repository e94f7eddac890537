"""Checks of edits: an edit of attention does what it says, and nothing else."""

from __future__ import annotations

import torch

from mata_interp.interventions import RULES, Mata

from .bounds import MIN_EFFECT
from .context import CheckContext
from .registry import register_check
from .results import Measurement

__all__ = ["CHECKS", "largest", "too_small"]


@register_check(
    name="alpha 0 leaves logits unchanged",
    compared="the logits under edits of strength 0 in every layer and the model's own, bit for bit",
    remedy="The instrument itself changes the model: do not use it here. Please report it with this output.",
)
def zero_strength(context: CheckContext) -> Measurement:
    lalm, prompt = context.lalm, context.prompt
    plain = lalm.logits(prompt)
    difference, rules = 0.0, tuple(RULES)
    for rule in rules:
        logits = lalm.logits(prompt, Mata(0.0, lalm.attention_layers, rule))
        apart = float((logits.float() - plain.float()).abs().max())
        difference = max(difference, apart, key=nan_first)
    bound, note = context.exact(difference)
    return Measurement(f"max |Δlogit| {difference:.3g} under {', '.join(rules)}{note}", difference, bound)


@register_check(
    name="edited logits equal eager attention",
    compared="the change of the logits under an edit of the audio's scores in every layer, and under the "
    "same edit added to the mask of the model's eager attention",
    remedy="Interventions do not do what they say on this model: do not use them. Please report this output.",
)
def effect(context: CheckContext) -> Measurement:
    edited, routing = context.with_routing(lambda: context.lalm.logits(context.prompt, context.mata).float())
    measured = edited - context.plain
    eager_edited, flips = context.eager_logits(context.strength, routing)
    eager_plain, plain_flips = context.eager_logits(0.0, context.plain_routing)
    reference = eager_edited - eager_plain
    difference, size, expected = (
        float(x.abs().max()) for x in (measured - reference.to(measured), measured, reference)
    )
    return Measurement(
        f"{context.strength:+g} on audio scores: max |Δlogit| {size:.3g}, reference {expected:.3g}, "
        f"difference {difference:.3g}",
        difference,
        context.logit_bound,
        weak=too_small(context, expected),
        unsure=context.unsure,
        flips=flips + plain_flips,
    )


CHECKS = (zero_strength, effect)


def too_small(context: CheckContext, effect: float) -> str:
    """Why an effect shows nothing; "" if it is large enough to show something."""
    if effect >= MIN_EFFECT * context.logit_bound:
        return ""
    strength = f"{context.strength:+g}"
    return f"{strength} on all audio scores changes the logits too little to distinguish it from rounding"


def largest(x: torch.Tensor) -> float:
    """max |x|; NaN if there is one, 0 if x is empty."""
    return float(x.abs().max()) if x.numel() else 0.0


def nan_first(x: float) -> tuple[bool, float]:
    """A key for ``max`` under which NaN is larger than every number."""
    return x != x, x
