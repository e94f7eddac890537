"""For each check, the thing it guards is broken on purpose, and that check fails.

One fault often has several consequences. Where a check cannot fail alone, every check that must fail
with it is named, and no other may fail.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import mata_interp as mi
from mata_interp.attention import AttentionCall
from mata_interp.checking import context as context_file
from mata_interp.checking.bounds import MAX_MASS, ROWS
from mata_interp.checking.context import CheckContext, default_items
from mata_interp.interventions import Editing
from mata_interp.lalm import LALM, scoring
from mata_interp.lalm.calls import attention_calls as calls_file
from tests.tiny import tiny_qwen2_audio

from .small import failed


def test_a_model_that_draws_random_numbers(lalm):
    """In its encoder, as VibeVoice does."""
    lalm.model.model.multi_modal_projector.register_forward_hook(lambda m, a, out: out + torch.randn(1))
    assert failed(lalm) == {"two runs give equal logits"}


def test_an_encoder_that_leaks_into_all_positions(lalm):
    """As models do that add audio to every position."""
    audio = {}
    model = lalm.model.model
    model.multi_modal_projector.register_forward_hook(lambda m, a, out: audio.update(mean=out.mean()))

    def leak(module, args, kwargs):
        embeds = kwargs["inputs_embeds"]
        if embeds.shape[1] > 1:  # not into the tokens of an answer
            audio["shift"] = 0.01 * audio["mean"]
        return args, kwargs | {"inputs_embeds": embeds + audio["shift"]}

    model.language_model.register_forward_pre_hook(leak, with_kwargs=True)
    outcome = failed(lalm)
    assert "audio changes only its placeholders" in outcome
    unaffected = {"attention rows equal eager attention", "alpha 0 leaves logits unchanged"}
    assert not outcome & (unaffected | {"two runs give equal logits", "attention rows sum to 1"})


def test_a_token_in_no_group(lalm):
    prompt = lalm.prompt(default_items(lalm))
    groups = dict(prompt.groups)
    last = torch.zeros_like(groups["template"])
    last[:, -2] = True
    groups["template"] = groups["template"] & ~last
    assert failed(lalm, replace(prompt, groups=groups)) == {"attention rows sum to 1"}


def wrong_scaling(patched, factor=1.1):
    original = calls_file.attention_call

    def call(*args, **kwargs):
        made = original(*args, **kwargs)
        return replace(made, scaling=made.scaling * factor)

    patched.setattr(calls_file, "attention_call", call)


def mask_off_by_one(patched):
    original = AttentionCall.visible

    def visible(self, rows):
        mask = original(self, rows)
        if self.query.shape[2] == self.length > 1:  # the newest key hidden, as by a mask shifted by one
            mask = mask.clone().expand(len(self.query), -1, -1, -1).clone()
            mask[..., -1] = False
        return mask

    patched.setattr(AttentionCall, "visible", visible)
    patched.setattr(AttentionCall, "_sees_all", lambda self, rows: False)  # or no mask would be looked at


def dropped_edit(patched):
    patched.setattr(Editing, "__call__", lambda *args: None)


def half_an_edit(patched):
    original = Editing.__call__

    def halved(*args):
        change = original(*args)
        return change if change is None else (change[0], change[1] / 2)

    patched.setattr(Editing, "__call__", halved)


def masses_to_the_wrong_group(patched):
    original = AttentionCall.masses
    patched.setattr(AttentionCall, "masses", lambda *arguments: original(*arguments).flip(-1))


def edits_that_replace(patched):
    """An edit that does not vanish with its strength, as when rows are replaced in another precision."""
    original = AttentionCall.delta

    def delta(*arguments):
        change, dose = original(*arguments)
        return change + 1e-6, dose

    patched.setattr(AttentionCall, "delta", delta)


def decode_phase_lost(patched):
    original = Editing.__call__
    patched.setattr(
        Editing,
        "__call__",
        lambda self, layer, call, total: None if total > self._width else original(self, layer, call, total),
    )


def cache_one_too_long(patched):
    """Options run on a cache from which the prompt's last token was not removed."""
    original = scoring.crop_last_token

    def crop_last_token(cache):
        made = original(cache)
        for layer in made.layers:
            layer.values = layer.values * 1.05
        return made

    patched.setattr(scoring, "crop_last_token", crop_last_token)


def sweep_of_another_strength(patched):
    from mata_interp.sweeps import tree_edits

    original = tree_edits.TreeEditing._edit

    def edited(self, layer, scores, rule, *rest):
        changed, touched = original(self, layer, scores, rule, *rest)
        if rule == "add":
            changed = torch.where(changed > -torch.inf, scores + 1.2 * (changed - scores), changed)
        return changed, touched

    patched.setattr(tree_edits.TreeEditing, "_edit", edited)


def lens_without_the_audio(patched):
    from mata_interp.lalm.bridge import transformer_lens_view

    original = transformer_lens_view.TransformerLensView.encode

    def encode(self, prompt):
        args, rest = original(self, prompt)
        return args, rest | {"input_features": rest["input_features"] * 0}

    patched.setattr(transformer_lens_view.TransformerLensView, "encode", encode)


def backends_that_differ(patched):
    """A ``direct`` backend whose output is off by a rounding error."""
    original = calls_file._Direct.attention

    def attention(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        return (output[0] + 1e-7, *output[1:])

    patched.setattr(calls_file._Direct, "attention", attention)


DECODED = {"cached decoding equals one pass", "option scores equal one pass"}
SABOTAGE = {
    wrong_scaling: {
        "attention rows equal eager attention",
        "trace equals eager attention",
        "edited logits equal eager attention",
        "transformer-lens agrees",
        *DECODED,
    },
    mask_off_by_one: {
        "attention rows equal eager attention",
        "trace equals eager attention",
        "edited logits equal eager attention",
        "sweep equals loop",
        "cached decoding equals one pass",
        "transformer-lens agrees",
    },
    masses_to_the_wrong_group: {"trace equals eager attention"},
    edits_that_replace: {"alpha 0 leaves logits unchanged"},
    dropped_edit: {"edited logits equal eager attention", "sweep equals loop", *DECODED},
    half_an_edit: {"edited logits equal eager attention", "sweep equals loop", *DECODED},
    decode_phase_lost: {*DECODED},
    backends_that_differ: {"both backends give equal logits", "alpha 0 leaves logits unchanged"},
    cache_one_too_long: {"option scores equal one pass"},
    sweep_of_another_strength: {"sweep equals loop"},
    lens_without_the_audio: {"transformer-lens agrees"},
}


@pytest.mark.parametrize("broken", SABOTAGE, ids=lambda f: f.__name__)
def test_a_fault_fails_its_checks_and_no_other(lalm, monkeypatch, broken):
    broken(monkeypatch)
    outcome = failed(lalm)
    assert outcome == SABOTAGE[broken]


def test_a_layer_that_mixes_the_rows_of_a_batch(lalm):
    def mix(module, args, out):
        if out.shape[1] > 150:  # a place where no row has padding, in which attention kernels differ
            out = out.clone()
            out[:, 150] += out[:, 150].mean(0, keepdim=True)
        return out

    lalm.structure.decoder.layers[1].register_forward_hook(mix)
    assert failed(lalm) == {"batch equals single prompts"}


def test_an_encoder_that_depends_on_the_rest_of_the_batch(lalm):
    """As Granite's does. The result says that the decoder is not the cause."""

    def shift(module, args, out):
        return out * (1 + 1e-2 * (len(out) > 1))

    lalm.model.model.multi_modal_projector.register_forward_hook(shift)
    report = mi.check(lalm)
    assert {result.name for result in report.failed} == {"batch equals single prompts"}
    assert "before the decoder" in report.failed[0].measured


def test_a_processor_that_makes_other_tokens_in_a_batch(lalm, monkeypatch):
    """As Qwen 3 Omni's does for some lengths of audio: by one token."""
    original = CheckContext.build

    def build(self, items):
        prompt = original(self, items)
        if len(items) > 1:
            return prompt
        inputs = {n: x[:, 1:] if x.dim() == 2 else x for n, x in prompt.inputs.items()}
        return replace(prompt, inputs=inputs, groups={n: m[:, 1:] for n, m in prompt.groups.items()})

    monkeypatch.setattr(CheckContext, "build", build)
    report = mi.check(lalm)
    assert {result.name for result in report.failed} == {"batch equals single prompts"}
    assert "prompt 1" in report.failed[0].measured


def test_a_model_that_depends_on_padding(lalm):
    def shift(module, args, kwargs):
        width = kwargs["attention_mask"].shape[-1] if kwargs.get("attention_mask") is not None else 0
        return args, kwargs | {"inputs_embeds": kwargs["inputs_embeds"] * (1 + width * 1e-4)}

    lalm.structure.decoder.register_forward_pre_hook(shift, with_kwargs=True)
    assert "batch equals single prompts" in failed(lalm)


@pytest.mark.acceptance
def test_rounding_of_deep_models_in_half_precision_is_measured_before_it_is_called_a_fault(monkeypatch):
    """Beyond the fixed bound, what rounding alone does to the model is measured; a fault exceeds it."""
    model, processor = tiny_qwen2_audio(seed=0)
    names = ("attention rows equal eager attention", "trace equals eager attention")
    half = LALM(model.to(torch.bfloat16), processor)
    fixed = mi.check(half)
    monkeypatch.setitem(ROWS, torch.bfloat16, 1e-6)
    assert {name for name in names if mi.check(half)[name].verdict == "fail"} == set(names)
    monkeypatch.setattr(context_file, "MEASURED_LAYERS", 3)  # of the model's 4
    measured = mi.check(half)
    for name in names:
        assert fixed[name].bound == 0.1
        assert 1e-6 < measured[name].difference == fixed[name].difference <= measured[name].bound < MAX_MASS
    wrong_scaling(monkeypatch, 2.0)
    report = mi.check(half)
    assert {name for name in names if report[name].verdict == "fail"} == set(names)


def test_where_rounding_hides_a_fault_agreement_is_not_claimed(monkeypatch):
    """Not even where nothing differs by more than rounding does."""
    model, processor = tiny_qwen2_audio(seed=0)
    half = LALM(model.to(torch.bfloat16), processor)
    monkeypatch.setitem(ROWS, torch.bfloat16, 1e-6)
    monkeypatch.setattr(context_file, "MEASURED_LAYERS", 3)
    monkeypatch.setattr(context_file, "MAX_MASS", 1e-5)
    report = mi.check(half)
    assert report["trace equals eager attention"].verdict == "not applicable"
    assert report["attention rows sum to 1"].verdict == "pass"


def test_a_difference_that_is_no_number_fails(monkeypatch):
    """Whatever rounding does."""
    model, processor = tiny_qwen2_audio(seed=0)
    context = CheckContext(LALM(model.to(torch.bfloat16), processor), None)
    monkeypatch.setattr(context_file, "MEASURED_LAYERS", 3)
    monkeypatch.setattr(context_file, "MAX_MASS", 0.0)
    assert context.weight_bound(float("nan")) == ROWS[torch.bfloat16]
