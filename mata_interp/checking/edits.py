"""Does an edit of attention do what it says, and nothing else?"""

from __future__ import annotations

import torch

from mata_interp.interventions import RULES, Mata

from .bounds import TELLING
from .context import CheckContext
from .results import Measurement, register_check

__all__: list[str] = []


@register_check(
    "alpha 0 is no edit",
    "the logits under edits of strength 0 in every layer, bit for bit, and the model's own",
    "The instrument itself changes the model: do not use it here. Please report it with this output.",
)
def _nothing(subject: CheckContext) -> Measurement:
    lalm, prompt = subject.lalm, subject.prompt
    own = lalm.logits(prompt)
    off, rules = 0.0, tuple(RULES)
    for rule in rules:
        logits = lalm.logits(prompt, Mata(0.0, lalm.attention_layers, rule))
        off = max(off, float((logits.float() - own.float()).abs().max()), key=lambda x: (x != x, x))
    return Measurement(f"max |Δlogit| {off:.2g} under {', '.join(rules)}", off, 0.0)


@register_check(
    "edit reaches the logits",
    "the change of the logits under an edit of the audio's scores in every layer, and under the same edit "
    "put into the mask of the model's eager attention",
    "Interventions do not do what they say on this model: do not use them. Please report this output.",
)
def _reaches(subject: CheckContext) -> Measurement:
    edited, routing = subject.seen(lambda: subject.lalm.logits(subject.prompt, subject.mata).float())
    ours = edited - subject.plain
    theirs = subject.eager_logits(subject.strength, routing) - subject.eager_logits(
        0.0, subject.plain_routing
    )
    off, moved, wanted = (float(x.abs().max()) for x in (ours - theirs.to(ours), ours, theirs))
    told = f"max |Δlogit| {moved:.3g}, reference {wanted:.3g}, off by {off:.1g}"
    return Measurement(told, off, subject.logit_bound, weak=too_small(subject, wanted), unsure=subject.unsure)


def too_small(subject: CheckContext, effect: float) -> str:
    """Why an effect tells nothing, if so."""
    if effect >= TELLING * subject.logit_bound:
        return ""
    return f"{subject.strength:+g} on all audio scores moves the logits too little to tell from rounding"


def largest(x: torch.Tensor) -> float:
    """max |x|, NaN if there is one; entries that do not exist on purpose must be left out before."""
    return float(x.abs().max()) if x.numel() else 0.0
