"""For each line of a check, the thing it guards is broken on purpose, and that line fails.

One fault often has several consequences: where a line cannot be broken alone, every line that must fall with
it is named, and no other may.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import mata_interp as mi
from mata_interp.attention import AttentionCall
from mata_interp.checking.context import CheckContext, own_items
from mata_interp.interventions import Editing
from mata_interp.lalm import scoring
from mata_interp.lalm.calls import attention_calls as calls_file

from .small import failed


def test_a_model_that_draws_at_random(lalm):
    """In its encoder, as VibeVoice does."""
    lalm.model.model.multi_modal_projector.register_forward_hook(lambda m, a, out: out + torch.randn(1))
    assert failed(lalm) == {"same twice"}


def test_an_encoder_that_leaks_into_all_positions(lalm):
    """As models do that add sound to every position."""
    heard = {}
    model = lalm.model.model
    model.multi_modal_projector.register_forward_hook(lambda m, a, out: heard.update(mean=out.mean()))

    def leak(module, args, kwargs):
        embeds = kwargs["inputs_embeds"]
        if embeds.shape[1] > 1:  # not into the tokens of an answer
            heard["shift"] = 0.01 * heard["mean"]
        return args, kwargs | {"inputs_embeds": embeds + heard["shift"]}

    model.language_model.register_forward_pre_hook(leak, with_kwargs=True)
    found = failed(lalm)
    assert "sound at its placeholders" in found
    assert not found & {"rows equal eager attention", "alpha 0 is no edit", "same twice", "rows sum to 1"}


def test_a_token_in_no_group(lalm):
    prompt = lalm.prompt(own_items(lalm))
    groups = dict(prompt.groups)
    last = torch.zeros_like(groups["template"])
    last[:, -2] = True
    groups["template"] = groups["template"] & ~last
    assert failed(lalm, replace(prompt, groups=groups)) == {"rows sum to 1"}


def wrong_scaling(patched, factor=1.1):
    right = calls_file.attention_call

    def call(*args, **kwargs):
        made = right(*args, **kwargs)
        return replace(made, scaling=made.scaling * factor)

    patched.setattr(calls_file, "attention_call", call)


def mask_off_by_one(patched):
    right = AttentionCall.visible

    def visible(self, rows):
        seen = right(self, rows)
        if self.query.shape[2] == self.length > 1:  # the newest key hidden, as by a mask shifted by one
            seen = seen.clone().expand(len(self.query), -1, -1, -1).clone()
            seen[..., -1] = False
        return seen

    patched.setattr(AttentionCall, "visible", visible)
    patched.setattr(AttentionCall, "_sees_all", lambda self, rows: False)  # or no mask would be looked at


def dropped_edit(patched):
    patched.setattr(Editing, "__call__", lambda *args: None)


def half_an_edit(patched):
    right = Editing.__call__

    def halved(*args):
        change = right(*args)
        return change if change is None else (change[0], change[1] / 2)

    patched.setattr(Editing, "__call__", halved)


def masses_to_the_wrong_group(patched):
    right = AttentionCall.masses
    patched.setattr(AttentionCall, "masses", lambda self, rows, groups: right(self, rows, groups).flip(-1))


def edits_that_replace(patched):
    """An edit that does not vanish with its strength, as when rows are replaced in another precision."""
    right = AttentionCall.delta

    def delta(self, edits, rows):
        change, dose = right(self, edits, rows)
        return change + 1e-6, dose

    patched.setattr(AttentionCall, "delta", delta)


def decode_phase_lost(patched):
    right = Editing.__call__
    patched.setattr(
        Editing,
        "__call__",
        lambda self, layer, call, total: None if total > self._width else right(self, layer, call, total),
    )


def cache_one_too_long(patched):
    """Options run on a cache from which the prompt's last token was not taken back."""
    right = scoring.crop_last_token

    def crop_last_token(cache):
        made = right(cache)
        for layer in made.layers:
            layer.values = layer.values * 1.05
        return made

    patched.setattr(scoring, "crop_last_token", crop_last_token)


def sweep_of_another_strength(patched):
    from mata_interp.sweeps import tree_edits

    right = tree_edits.TreeEditing._edited

    def edited(self, layer, scores, rule, *rest):
        changed = right(self, layer, scores, rule, *rest)
        return (
            torch.where(changed > -torch.inf, scores + 1.2 * (changed - scores), changed)
            if rule == "add"
            else changed
        )

    patched.setattr(tree_edits.TreeEditing, "_edited", edited)


def lens_without_the_sound(patched):
    from mata_interp.lalm.bridge import transformer_lens_view

    right = transformer_lens_view.TransformerLensView.encode

    def encode(self, prompt):
        args, rest = right(self, prompt)
        return args, rest | {"input_features": rest["input_features"] * 0}

    patched.setattr(transformer_lens_view.TransformerLensView, "encode", encode)


def backends_that_differ(patched):
    """A ``direct`` backend that rounds what it adds to the output."""
    right = calls_file._Direct.attention

    def attention(self, own, module, *args, **kwargs):
        output = right(self, own, module, *args, **kwargs)
        return (output[0] + 1e-7, *output[1:])

    patched.setattr(calls_file._Direct, "attention", attention)


DECODED = {"prefill and decode as one pass", "options scored as one pass"}
SABOTAGE = {
    wrong_scaling: {  # the sweep and the loop read calls in one place, and are wrong alike
        "rows equal eager attention",
        "trace equals eager attention",
        "edit reaches the logits",
        "transformer-lens agrees",
        *DECODED,
    },
    mask_off_by_one: {
        "rows equal eager attention",
        "trace equals eager attention",
        "edit reaches the logits",
        "a sweep equals the loop",
        "prefill and decode as one pass",
        "transformer-lens agrees",
    },
    masses_to_the_wrong_group: {"trace equals eager attention"},
    edits_that_replace: {"alpha 0 is no edit"},
    dropped_edit: {"edit reaches the logits", "a sweep equals the loop", *DECODED},
    half_an_edit: {"edit reaches the logits", "a sweep equals the loop", *DECODED},
    decode_phase_lost: {*DECODED},
    backends_that_differ: {"both backends give the same bits", "alpha 0 is no edit"},
    cache_one_too_long: {"options scored as one pass"},
    sweep_of_another_strength: {"a sweep equals the loop"},
    lens_without_the_sound: {"transformer-lens agrees"},
}


@pytest.mark.parametrize("broken", SABOTAGE, ids=lambda f: f.__name__)
def test_sabotage(lalm, monkeypatch, broken):
    broken(monkeypatch)
    found = failed(lalm)
    assert found == SABOTAGE[broken]


def test_a_layer_that_mixes_the_rows_of_a_batch(lalm):
    def mix(module, args, out):
        if out.shape[1] > 150:  # a place where no row has padding, in which attention kernels differ
            out = out.clone()
            out[:, 150] += out[:, 150].mean(0, keepdim=True)
        return out

    lalm.structure.decoder.layers[1].register_forward_hook(mix)
    assert failed(lalm) == {"alone as in a batch"}


def test_an_encoder_that_minds_what_stands_beside_a_sound(lalm):
    """As Granite's does; the line says that it is not the decoder."""

    def shift(module, args, out):
        return out * (1 + 1e-2 * (len(out) > 1))

    lalm.model.model.multi_modal_projector.register_forward_hook(shift)
    report = mi.check(lalm)
    assert {line.name for line in report.failed} == {"alone as in a batch"}
    assert "the sounds enter the decoder otherwise from a batch, off by" in report.failed[0].measured


def test_a_processor_that_makes_other_tokens_in_a_batch(lalm, monkeypatch):
    """As Qwen 3 Omni's does for some lengths of sound: by one token."""
    right = CheckContext.asked

    def asked(self, items):
        prompt = right(self, items)
        if len(items) > 1:
            return prompt
        inputs = {n: x[:, 1:] if x.dim() == 2 else x for n, x in prompt.inputs.items()}
        return replace(prompt, inputs=inputs, groups={n: m[:, 1:] for n, m in prompt.groups.items()})

    monkeypatch.setattr(CheckContext, "asked", asked)
    report = mi.check(lalm)
    assert {line.name for line in report.failed} == {"alone as in a batch"}
    assert "makes other tokens of prompt 1 in a batch" in report.failed[0].measured


def test_a_model_that_minds_padding(lalm):
    def shift(module, args, kwargs):
        width = kwargs["attention_mask"].shape[-1] if kwargs.get("attention_mask") is not None else 0
        return args, kwargs | {"inputs_embeds": kwargs["inputs_embeds"] * (1 + width * 1e-4)}

    lalm.structure.decoder.register_forward_pre_hook(shift, with_kwargs=True)
    assert "alone as in a batch" in failed(lalm)
