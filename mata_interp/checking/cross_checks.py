"""Do the other instruments say the same: the sweep, and transformer-lens?"""

from __future__ import annotations

import torch
from torch import Tensor

from mata_interp.compat import attention_name, count_hooks
from mata_interp.errors import ModelError
from mata_interp.interventions import AttentionEdit, Mata, in_order
from mata_interp.lalm import ModelStructure
from mata_interp.lalm.discovery.experts import Choose, Flips, Routing, choosing
from mata_interp.lalm.fingerprint import fingerprint
from mata_interp.sweeps.shared_prefill import shared

from .context import CheckContext, steady
from .edits import largest
from .results import Measurement, NotApplicable, register_check
from .rows import fast_rows

__all__: list[str] = []


@register_check(
    "a sweep equals the loop",
    "the logits of several edits as rows of mi.sweep, which reads the prompt once, and of each edit alone",
    "Use lalm.logits or lalm.score_each in a loop instead of mi.sweep on this model. Please report it.",
)
def _sweep(subject: CheckContext) -> Measurement:
    lalm, prompt, layers = subject.lalm, subject.prompt, subject.lalm.attention_layers
    half = layers[len(layers) // 2 :]
    edits = {
        "nothing": None,
        "everywhere": subject.mata,
        "half": Mata(subject.strength, half, "add"),
        "abs": Mata(0.5, half, "abs"),
        "knockout": Mata(1.0, layers[:1], "knockout"),
    }
    told, routings = zip(
        *(subject.seen(lambda e=edit: lalm.logits(prompt, e).float()) for edit in edits.values()), strict=True
    )
    loop = torch.stack(told, 1).cpu()
    parts = [in_order(edit) for edit in edits.values()]
    # not mi.sweep itself, which answers in the loop where rows are wrong: it may be the loop that is wrong
    try:
        try:
            off, problem = largest(_swept(subject, parts) - loop), None
        except ModelError as stray:
            off, problem = float("nan"), stray
        if not off <= subject.logit_bound and subject.plain_routing.experts:
            led = []
            for part, routing in zip(parts, routings, strict=True):
                with choosing(lalm.structure.blocks, _as_the_loop(subject, routing)):
                    led.append(_swept(subject, [part]))
            off, problem = largest(torch.cat(led, 1) - loop), None
        if problem:
            raise problem
    except ModelError as reason:
        raise NotApplicable(f"mi.sweep takes the loop itself here, right and slower. {reason}") from reason
    return Measurement(
        f"max |Δlogit| {off:.1g} over {len(edits)} edits", off, subject.logit_bound, unsure=subject.unsure
    )


def _swept(subject: CheckContext, parts: list[tuple[AttentionEdit, ...]]) -> Tensor:
    """Logits [B, K, V] of edits as rows."""
    return torch.as_tensor(shared(subject.lalm, subject.prompt, parts, None, None)[0])


def _as_the_loop(subject: CheckContext, routing: Routing) -> Choose:
    """The experts of a sweep of one edit: the plain forward's in its reading, in its rows also the edit's."""
    plain, batch = subject.plain_routing, subject.prompt.size

    def choose(i: int, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        count = len(experts) // batch
        if count == subject.prompt.width:
            return plain.experts[i].flatten(0, 1), plain.weights[i].flatten(0, 1)
        # one row before the first edited layer, then what is not edited and what is
        wanted, led = (
            torch.stack([a[i][:, -1], b[i][:, -1]], 1)[:, :count].flatten(0, 1)
            for a, b in ((plain.experts, routing.experts), (plain.weights, routing.weights))
        )
        differs = (experts.sort(-1).values != wanted.sort(-1).values).any(-1)
        subject.flips.append(Flips(int(differs.sum()), len(experts)))
        return wanted, led

    return choose


@register_check(
    "transformer-lens agrees",
    "the attention weights and logits of transformer-lens on a twin of the model, and ours",
    "One of the two instruments is wrong on this model. Where the rows above equal eager attention it is not "
    "ours; do not mix the two before it is known why.",
)
def _lens(subject: CheckContext) -> Measurement:
    try:
        lens = subject.lalm.to_transformer_lens(subject.prompt)
        apart = lens.difference
        theirs = {layer: lens.pattern(layer)[:, :, -1].float() for layer in subject.lalm.attention_layers}
    except ModelError as reason:
        raise NotApplicable(str(reason)) from reason
    except Exception as error:  # it ships many adapters, not all of which run everything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotApplicable(f"transformer-lens has an adapter and stumbles over it: {reason}") from error
    ours = fast_rows(subject)
    off = max(largest(ours[layer] - theirs[layer].to(ours[layer])) for layer in ours)
    body = "the whole model" if lens.whole else "the decoder"
    flaw = "" if apart <= subject.logit_bound else f"its logits exceed {subject.logit_bound:.0e}"
    told = f"on {body}: rows off by {off:.1g}, logits by {apart:.1g}"
    if not subject.has_experts:
        return Measurement(told, off, subject.row_bound, flaw)
    unsure = "it chooses among experts for itself, and rounding may have flipped a choice"
    held = (apart, subject.logit_bound) if flaw else (off, subject.row_bound)
    return Measurement(told, *held, unsure=unsure)


class ModelSnapshot:
    """The state of a model, to be compared with a later one: modules, hooks, settings, weights, outputs."""

    def __init__(self, subject: CheckContext) -> None:
        model = subject.lalm.model
        self.parts = {
            "modules": [(name, id(module), type(module)) for name, module in model.named_modules()],
            "hooks": [count_hooks(module) for module in model.modules()],
            "modes": [module.training for module in model.modules()],
            "attention": [
                attention_name(config)
                for module in ModelStructure.from_model(model).attention.values()
                if (config := getattr(module, "config", None)) is not None
            ],
            "places of weights": [t.data_ptr() for t in (*model.parameters(), *model.buffers())],
            "weights": fingerprint(model)["weights_sha256"],
            "config": model.config.to_json_string(),
        }
        with steady(subject.lalm), torch.no_grad():
            self.logits = model(**subject.prompt.inputs).logits[:, -1].clone()

    def compare(self, later: ModelSnapshot) -> Measurement:
        changed = [name for name, value in self.parts.items() if later.parts[name] != value]
        off = float((self.logits.float() - later.logits.float()).abs().max())
        told = (
            f"{len(self.parts) - len(changed)} of {len(self.parts)} parts as before, max |Δlogit| {off:.2g}"
        )
        return Measurement(told, off, 0.0, f"changed: {', '.join(changed)}" if changed else "")
