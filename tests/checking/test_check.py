"""mi.check on right models finds nothing; on models and instruments broken on purpose, what is broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.attention import AttentionCall
from mata_interp.checking import lines as check_lines
from mata_interp.checking import running
from mata_interp.checking.subject import own_items
from mata_interp.errors import ModelError
from mata_interp.interventions import Editing
from mata_interp.lalm import LALM, Prompt, caches, scoring
from mata_interp.lalm import instrument as instrument_file
from tests.tiny import RATE, tiny_qwen2_audio

NAMES = [
    "same twice",
    "sound at its placeholders",
    "rows sum to 1",
    "rows equal eager attention",
    "trace equals eager attention",
    "alpha 0 is no edit",
    "edit reaches the logits",
    "alone as in a batch",
    "prefill and decode as one pass",
    "options scored as one pass",
    "a sweep equals the loop",
    "transformer-lens agrees",
    "the model is left as found",
]


@pytest.fixture
def lalm() -> LALM:
    """A fresh one: some of these tests break it."""
    return LALM(*tiny_qwen2_audio(seed=0, layers=3))


def failed(lalm: LALM, prompt: Prompt | None = None) -> set[str]:
    report = mi.check(lalm, prompt)
    assert [line.name for line in report.lines] == NAMES
    for line in report.failed:
        assert line.remedy
    return {line.name for line in report.failed}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_right_model_passes(dtype):
    model, processor = tiny_qwen2_audio(seed=0)
    report = mi.check(LALM(model.to(dtype), processor))
    assert report.ok, report
    assert {line.verdict for line in report.lines} == {"pass"}
    effect = report["edit reaches the logits"]
    assert effect.off < effect.bound < 1
    # what is computed in float32 is no less exact in half precision
    assert report["rows sum to 1"].off < 1e-6
    if dtype == torch.float32:
        assert max(line.off / max(line.bound, 1e-9) for line in report.lines) < 0.3


@pytest.mark.parametrize("name", ["organism", "organism-unbiased"])
def test_what_ships_passes(name):
    report = mi.check(LALM.from_pretrained(name))
    assert report.ok, report
    assert all(line.verdict == "pass" for line in report.lines)


def test_ready_made_inputs(lalm):
    """Without a processor options cannot be scored nor rows taken apart; the rest is checked as ever."""
    bare = LALM(lalm.model)
    with pytest.raises(
        ModelError, match=r"no processor to make a prompt with: give one, mi.check\(lalm, mi.Pr"
    ):
        mi.check(bare)
    inputs = lalm.prompt(own_items(lalm)).inputs
    report = mi.check(bare, Prompt.from_inputs(bare, inputs))
    assert report.ok, report
    skipped = {line.name: line.measured for line in report.lines if line.verdict == "not applicable"}
    assert skipped == {"options scored as one pass": "the prompt was not made of items with options."}
    assert "7 tokens of padding" in report["alone as in a batch"].measured


def test_one_prompt(lalm):
    item = mi.Item(
        audio=(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), RATE), question="?"
    )
    report = mi.check(lalm, lalm.prompt(item))
    assert report.ok, report


# --- sabotage: for each line, the thing it guards is broken, and that line fails ----------------------------


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


def wrong_scaling(patched):
    right = instrument_file.attention_call

    def call(*args, **kwargs):
        made = right(*args, **kwargs)
        return replace(made, scaling=made.scaling * 1.1)

    patched.setattr(instrument_file, "attention_call", call)


def mask_off_by_one(patched):
    right = AttentionCall.visible

    def visible(self, rows):
        seen = right(self, rows)
        if self.query.shape[2] == self.length > 1:  # the newest key hidden, as by a mask shifted by one
            seen = seen.clone().expand(len(self.query), -1, -1, -1).clone()
            seen[..., -1] = False
        return seen

    patched.setattr(AttentionCall, "visible", visible)


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
    right = scoring.branch

    def branch(cache):
        made = right(cache)
        for layer in made.layers:
            layer.values = layer.values * 1.05
        return made

    patched.setattr(scoring, "branch", branch)


def sweep_of_another_strength(patched):
    from mata_interp.sweeps import editing

    right = editing.TreeEditing._edited

    def edited(self, layer, scores, rule, *rest):
        changed = right(self, layer, scores, rule, *rest)
        return (
            torch.where(changed > -torch.inf, scores + 1.2 * (changed - scores), changed)
            if rule == "add"
            else changed
        )

    patched.setattr(editing.TreeEditing, "_edited", edited)


def lens_without_the_sound(patched):
    from mata_interp.lalm import lens

    right = lens.Lens.encode

    def encode(self, prompt):
        args, rest = right(self, prompt)
        return args, rest | {"input_features": rest["input_features"] * 0}

    patched.setattr(lens.Lens, "encode", encode)


DECODED = {"prefill and decode as one pass", "options scored as one pass"}
SABOTAGE = {
    wrong_scaling: {
        "rows equal eager attention",
        "trace equals eager attention",
        "edit reaches the logits",
        "a sweep equals the loop",
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

    lalm.anatomy.decoder.layers[1].register_forward_hook(mix)
    assert failed(lalm) == {"alone as in a batch"}


def test_a_model_that_minds_padding(lalm):
    def shift(module, args, kwargs):
        width = kwargs["attention_mask"].shape[-1] if kwargs.get("attention_mask") is not None else 0
        return args, kwargs | {"inputs_embeds": kwargs["inputs_embeds"] * (1 + width * 1e-4)}

    lalm.anatomy.decoder.register_forward_pre_hook(shift, with_kwargs=True)
    assert "alone as in a batch" in failed(lalm)


@pytest.mark.parametrize("what", ["hook", "weight", "attention"])
def test_an_instrument_that_leaves_something_behind(lalm, monkeypatch, what):
    def measure(subject):
        if what == "hook":
            subject.lalm.anatomy.decoder.layers[1].register_forward_hook(lambda *_: None)
        elif what == "weight":
            subject.lalm.model.lm_head.weight.data.mul_(1.001)
        else:
            subject.lalm.model.set_attn_implementation("eager")
        return check_lines.Found("done", 0.0, 0.0)

    last = check_lines.Check("careless", "", "", measure)
    report = run_only(lalm, monkeypatch, last)
    assert [line.name for line in report.failed] == ["the model is left as found"]
    named = {"hook": "hooks", "weight": "weights", "attention": "attention"}[what]
    assert named in report["the model is left as found"].measured


def run_only(lalm, monkeypatch, *checks):
    """A report of these checks alone, and of what is left behind."""
    monkeypatch.setattr(running, "in_order", lambda: list(checks))
    return mi.check(lalm)


def test_a_check_that_raises_fails_alone(lalm, monkeypatch):
    def broken(subject):
        raise KeyError("what a new\n model may do")

    good = check_lines.Check("good", "a", "b", lambda subject: check_lines.Found("fine", 0.5, 1.0))
    nan = check_lines.Check(
        "nan", "a", "do this", lambda subject: check_lines.Found("odd", float("nan"), 1.0)
    )
    report = run_only(lalm, monkeypatch, check_lines.Check("bad", "x and y", "look there", broken), good, nan)
    assert [line.verdict for line in report.lines] == ["fail", "pass", "fail", "pass"]
    assert report["bad"].measured == "KeyError: 'what a new\\n model may do'"
    assert not report.ok
    text = str(report)
    assert "bad: FAILED (x and y). KeyError" in " ".join(text.split())
    assert "look there" in text
    assert "2 of 4 checks passed, 2 failed, 0 not applicable" in text
    with pytest.raises(KeyError, match="No check 'other'"):
        report["other"]


def test_too_weak_an_effect_tells_nothing(lalm):
    """A model that does not read its audio: agreement on a change of nothing is no agreement."""
    for module in lalm.anatomy.attention.values():
        module.o_proj.weight.data.zero_()
    assert failed(lalm) == {"edit reaches the logits", "prefill and decode as one pass"}
    assert "too little to tell from rounding" in mi.check(lalm)["edit reaches the logits"].measured


def test_it_draws_nothing_from_the_random_state_and_leaves_the_mode(lalm):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    mi.check(lalm)
    assert torch.equal(torch.get_rng_state(), before)
    assert caches.branch is scoring.branch
