"""Checks against other instruments: the sweep against the loop, and transformer-lens against this package."""

from __future__ import annotations

import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.interventions import AttentionEdit, Knockout, Mata, in_order
from mata_interp.lalm.discovery.experts import Choose, Flips, Routing, choosing
from mata_interp.lalm.rereading import keeps_states
from mata_interp.sweeps.batch_rows import in_batch
from mata_interp.sweeps.shared_prefill import shared

from .context import CheckContext
from .edits import largest
from .registry import register_check
from .results import Measurement, NotApplicable
from .rows import last_rows

__all__ = ["CHECKS"]


@register_check(
    name="sweep equals loop",
    compared="the logits of several edits as rows of mi.sweep, which prefills the prompt once, and of each "
    "edit alone",
    remedy="Use lalm.logits or lalm.score_each in a loop instead of mi.sweep on this model. Please report "
    "it.",
)
def sweep_equals_loop(context: CheckContext) -> Measurement:
    lalm, prompt, layers = context.lalm, context.prompt, context.lalm.attention_layers
    half = layers[len(layers) // 2 :]
    edits = {
        "nothing": None,
        "everywhere": context.mata,
        "half": Mata(context.strength, half, "add"),
        "abs": Mata(0.5, half, "abs"),
        "knockout": Knockout(layers[:1]),
    }
    logits, routings = zip(
        *(context.with_routing(lambda e=edit: lalm.logits(prompt, e).float()) for edit in edits.values()),
        strict=True,
    )
    loop = torch.stack(logits, 1).cpu()
    parts = [in_order(edit) for edit in edits.values()]
    difference, flips = _sweep_difference(context, parts, list(routings), loop)
    return Measurement(
        f"max |Δlogit| {difference:.3g} over {len(edits)} edits",
        difference,
        context.logit_bound,
        unsure=context.unsure,
        flips=flips,
    )


def _sweep_difference(
    context: CheckContext, parts: list[tuple[AttentionEdit, ...]], routings: list[Routing], loop: Tensor
) -> tuple[float, Flips]:
    """Largest difference between rows and the loop, [B, K, V], and how many choices of experts differed."""
    # not mi.sweep itself, which falls back to the loop where rows are wrong: here the loop may be wrong
    try:
        try:
            difference, problem = largest(_sweep(context, parts) - loop), None
        except ModelError as error:
            difference, problem = float("nan"), error
        flips = Flips()
        states = keeps_states(context.lalm.model)
        if not difference <= context.logit_bound and context.plain_routing.experts and not states:
            rows = []
            for part, routing in zip(parts, routings, strict=True):
                choose = _experts_of_loop(context, routing, flips)
                with choosing(context.lalm.structure.blocks, choose):
                    rows.append(_sweep(context, [part]))
            difference, problem = largest(torch.cat(rows, 1) - loop), None
        if problem:
            raise problem
    except ModelError as reason:
        problem = f"mi.sweep itself runs the loop here, which is correct and slower. {reason}"
        raise NotApplicable(problem) from reason
    return difference, flips


def _sweep(context: CheckContext, parts: list[tuple[AttentionEdit, ...]]) -> Tensor:
    """Logits [B, K, V] of edits as rows, on architectures that keep a state those of a larger batch."""
    if keeps_states(context.lalm.model):
        return torch.as_tensor(in_batch(context.lalm, context.prompt, parts, None)[0])
    return torch.as_tensor(shared(context.lalm, context.prompt, parts, None, None)[0])


def _experts_of_loop(context: CheckContext, routing: Routing, flips: Flips) -> Choose:
    """The experts of a sweep of one edit: in its prefill those of the plain forward pass, in its rows also
    those of the edited one. Counts into ``flips`` how many choices of the rows differed."""
    plain, batch = context.plain_routing, context.prompt.size

    def choose(i: int, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        count = len(experts) // batch
        if count == context.prompt.width:
            return plain.experts[i].flatten(0, 1), plain.weights[i].flatten(0, 1)
        # one row before the first edited layer, then an unedited and an edited one
        expected, expected_weights = (
            torch.stack([a[i][:, -1], b[i][:, -1]], 1)[:, :count].flatten(0, 1)
            for a, b in ((plain.experts, routing.experts), (plain.weights, routing.weights))
        )
        differs = (experts.sort(-1).values != expected.sort(-1).values).any(-1)
        flips.flipped += int(differs.sum())
        flips.of += len(experts)
        return expected, expected_weights

    return choose


@register_check(
    name="transformer-lens agrees",
    compared="the attention weights and logits of transformer-lens on a clone of the model, and those of "
    "this package",
    remedy="One of the two instruments is wrong on this model. If attention rows equal eager attention "
    "(above), it is not this package; do not mix the two before the reason is known.",
)
def transformer_lens_agrees(context: CheckContext) -> Measurement:
    try:
        lens = context.lalm.to_transformer_lens(context.prompt)
        logit_difference = lens.difference
        patterns = {layer: lens.pattern(layer)[:, :, -1].float() for layer in context.lalm.attention_layers}
    except ModelError as reason:
        raise NotApplicable(str(reason)) from reason
    except Exception as error:  # it ships many adapters, not all of which run everything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotApplicable(f"transformer-lens has an adapter, which fails: {reason}") from error
    rows = last_rows(context)
    difference = max(largest(rows[layer] - patterns[layer].to(rows[layer])) for layer in rows)
    part = "the whole model" if lens.whole else "the decoder"
    bound = context.logit_bound
    flaw = "" if logit_difference <= bound else f"the difference of logits exceeds {bound:.3g}"
    measured = f"on {part}: rows differ by {difference:.3g}, logits by {logit_difference:.3g}"
    compared = (logit_difference, bound) if flaw else (difference, context.weight_bound(difference))
    if not context.has_experts:
        return Measurement(measured, *compared, flaw)
    unsure = "it chooses among experts for itself, and rounding may have changed a choice"
    return Measurement(measured, *compared, unsure=unsure)


CHECKS = (sweep_equals_loop, transformer_lens_agrees)
