"""Do the other instruments say the same: the sweep, and transformer-lens?"""

from __future__ import annotations

import torch

from mata_interp.errors import ModelError
from mata_interp.interventions import Mata, in_order
from mata_interp.lalm import Anatomy
from mata_interp.lalm.fingerprint import fingerprint
from mata_interp.sweeps.sharing import shared

from .edits import largest
from .lines import Found, NotApplicable, check_of
from .rows import fast_rows
from .subject import Subject, steady

__all__: list[str] = []


@check_of(
    "a sweep equals the loop",
    "the logits of several edits as rows of mi.sweep, which reads the prompt once, and of each edit alone",
    "Use lalm.logits or lalm.score_each in a loop instead of mi.sweep on this model. Please report it.",
)
def _sweep(subject: Subject) -> Found:
    lalm, prompt, layers = subject.lalm, subject.prompt, subject.lalm.attention_layers
    half = layers[len(layers) // 2 :]
    edits = {
        "nothing": None,
        "everywhere": subject.mata,
        "half": Mata(subject.strength, half, "add"),
        "abs": Mata(0.5, half, "abs"),
        "knockout": Mata(1.0, layers[:1], "knockout"),
    }
    # not mi.sweep itself, which answers in the loop where rows are wrong: it may be the loop that is wrong
    try:
        swept, _ = shared(lalm, lalm.place(prompt), [in_order(edit) for edit in edits.values()], None, None)
    except ModelError as reason:
        raise NotApplicable(f"mi.sweep takes the loop itself here, right and slower. {reason}") from reason
    loop = torch.stack([lalm.logits(prompt, edit).float() for edit in edits.values()], 1).cpu()
    off = largest(torch.as_tensor(swept) - loop)
    return Found(f"max |Δlogit| {off:.1g} over {len(edits)} edits", off, subject.logit_bound)


@check_of(
    "transformer-lens agrees",
    "the attention weights and logits of transformer-lens on a twin of the model, and ours",
    "One of the two instruments is wrong on this model. Where the rows above equal eager attention it is not "
    "ours; do not mix the two before it is known why.",
)
def _lens(subject: Subject) -> Found:
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
    return Found(f"on {body}: rows off by {off:.1g}, logits by {apart:.1g}", off, subject.row_bound, flaw)


class Remembered:
    """The state of a model, to be compared with a later one: modules, hooks, settings, weights, outputs."""

    def __init__(self, subject: Subject) -> None:
        model = subject.lalm.model
        self.parts = {
            "modules": [(name, id(module), type(module)) for name, module in model.named_modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
            "modes": [module.training for module in model.modules()],
            "attention": [
                config._attn_implementation
                for module in Anatomy.of(model).attention.values()
                if (config := getattr(module, "config", None)) is not None
            ],
            "places of weights": [t.data_ptr() for t in (*model.parameters(), *model.buffers())],
            "weights": fingerprint(model)["weights_sha256"],
            "config": model.config.to_json_string(),
        }
        with steady(subject.lalm), torch.no_grad():
            self.logits = model(**subject.prompt.inputs).logits[:, -1].clone()

    def compare(self, later: Remembered) -> Found:
        changed = [name for name, value in self.parts.items() if later.parts[name] != value]
        off = float((self.logits.float() - later.logits.float()).abs().max())
        told = (
            f"{len(self.parts) - len(changed)} of {len(self.parts)} parts as before, max |Δlogit| {off:.2g}"
        )
        return Found(told, off, 0.0, f"changed: {', '.join(changed)}" if changed else "")
