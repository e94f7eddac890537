"""transformer-lens beside the model: the same numbers, the sound really there, the model as it was."""

from __future__ import annotations

import subprocess
import warnings

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ModelError
from mata_interp.lalm import LALM
from mata_interp.lalm.bridge import causal_lm, transformer_lens_view
from mata_interp.lalm.bridge.clone import clone_sharing_weights
from tests import reference
from tests.tiny import RATE, tiny_qwen2_audio


@pytest.fixture(scope="module")
def pair():
    """Two batches of two prompts of unlike length (left-padded) that differ in their sound alone."""
    lalm = LALM(*tiny_qwen2_audio(seed=0))

    def items(seed):
        noise = np.random.default_rng(seed)
        sound = lambda s: (noise.normal(0, 0.1, int(s * RATE)).astype(np.float32), RATE)  # noqa: E731
        return [
            mi.Item(audio=sound(0.9), question="Which sound is it?", choices=("a bell", "x")),
            mi.Item(audio=sound(0.4), question="Why?", choices=("no", "yes")),
        ]

    return lalm, lalm.prompt(items(0)), lalm.prompt(items(1))


@pytest.fixture(scope="module", params=["whole", "rehoused"])
def both(request, pair):
    """The lens on the whole model, and on its decoder in a Qwen2ForCausalLM."""
    lalm, prompt, other = pair
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "rehoused":
            patched.setattr(transformer_lens_view, "bridge_whole", lambda model: _refuse())
        made = lalm.to_transformer_lens(prompt)
    assert made.whole == (request.param == "whole")
    return lalm, made, prompt, other


def _refuse():
    raise ModelError("not this one.")


def test_logits_are_the_models_own(both):
    _, made, *_ = both
    assert made.difference < 1e-5
    assert made.logits.shape[:2] == made.prompt.inputs["input_ids"].shape


def test_patterns_are_those_of_eager_attention_and_of_the_trace(both):
    lalm, made, prompt, _ = both
    eager = tiny_qwen2_audio(seed=0, attention="eager")[0]
    masses = mi.trace(lalm, prompt, "last", progress=False)["mass"]
    for layer, rows in enumerate(reference.last_row(eager, prompt.inputs)):
        torch.testing.assert_close(made.pattern(layer)[:, :, -1], rows, atol=1e-5, rtol=0)
        audio = (made.pattern(layer)[:, :, -1] * prompt.groups["audio"][:, None]).sum(-1)
        np.testing.assert_allclose(audio, masses.sel(layer=layer, group="audio"), atol=1e-5)


def test_the_sound_is_in_the_cache(both):
    """Another sound moves the placeholders' embeddings and with them everything later."""
    _, made, prompt, other = both
    _, moved = made.run_with_cache(other)
    first = (made.cache["resid_pre", 0] != moved["resid_pre", 0]).any(-1)
    assert torch.equal(first, prompt.groups["audio"])
    assert (made.cache["resid_post", 3] - moved["resid_post", 3])[:, -1].abs().max() > 0.01


def test_the_residual_stream_adds_up(both):
    lalm, made, prompt, _ = both
    stack, labels = made.cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1, return_labels=True)
    assert len(labels) == len(stack) == 2 * 4 + 1
    last = stack[-1].detach()
    normed = lalm.structure.decoder.norm(last)
    torch.testing.assert_close(
        lalm.model.get_output_embeddings()(normed), lalm.logits(prompt), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("heads", [True, False])
def test_direct_attribution_is_the_logit_in_parts(both, heads):
    lalm, made, prompt, _ = both
    tokens, against = [40, 41], [50, 51]
    report = made.attribution(tokens, against, heads=heads)
    logits = lalm.logits(prompt)
    difference = logits[[0, 1], tokens] - logits[[0, 1], against]
    np.testing.assert_allclose(report.sum("component"), difference, atol=1e-4)
    assert report.attrs["off"] < 1e-4
    assert ("L2H3" in report["component"]) == heads
    assert (np.abs(report).max("component") > 0.01).all()


def test_a_part_that_is_taken_out_takes_its_share_of_the_logit(pair):
    """By hand: one head's output in the last layer to zero, the last norm's scale held."""
    lalm, prompt, _ = pair
    made = lalm.to_transformer_lens(prompt)
    report = made.attribution([40, 41]).sel(component="L3H1")
    z = made.cache["blocks.3.attn.hook_z"][:, -1, 1]
    o = lalm.structure.attention[3].o_proj.weight[:, 8:16]
    final = made.cache["blocks.3.hook_resid_post"][:, -1]
    scale = final.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt()
    share = (z @ o.T) * scale * lalm.structure.decoder.norm.weight
    by_hand = (share * lalm.model.lm_head.weight[[40, 41]]).sum(-1).detach()
    np.testing.assert_allclose(report, by_hand, atol=1e-5)


def test_patching_everything_behind_the_sound_gives_the_other_answer(both):
    lalm, made, _, other = both
    _, source = made.run_with_cache(other)
    plain, expected = lalm.logits(made.prompt), lalm.logits(other)
    assert (plain - expected).abs().max() > 0.1
    patched = made.patch("blocks.0.hook_resid_pre", source)
    torch.testing.assert_close(patched, expected, atol=2e-5, rtol=0)
    at_audio = made.patch("blocks.0.hook_resid_pre", source, positions=made.prompt.groups["audio"])
    torch.testing.assert_close(at_audio, expected, atol=2e-5, rtol=0)
    untouched = made.patch("blocks.0.hook_resid_pre", source, positions=~made.prompt.groups["audio"])
    torch.testing.assert_close(untouched, plain, atol=2e-5, rtol=0)
    last = made.patch("blocks.3.hook_resid_post", source, positions=[-1])
    torch.testing.assert_close(last, expected, atol=2e-5, rtol=0)


def test_patching_one_head_at_some_positions(both):
    """Against a hook of torch's own on the output projection of the model itself."""
    lalm, made, prompt, other = both
    _, source = made.run_with_cache(other)
    patched = made.patch("blocks.1.attn.hook_z", source, positions=slice(-3, None), heads=[2])
    expected = source["blocks.1.attn.hook_z"][:, -3:, 2]

    def put(_, args):
        (x,) = args
        x = x.clone()
        x[:, -3:, 16:24] = expected
        return (x,)

    handle = lalm.structure.attention[1].o_proj.register_forward_pre_hook(put)
    try:
        by_hand = lalm.logits(prompt)
    finally:
        handle.remove()
    torch.testing.assert_close(patched, by_hand, atol=2e-5, rtol=0)
    assert (patched - lalm.logits(prompt)).abs().max() > 1e-3


def test_activations_of_another_length_are_refused(pair):
    lalm, prompt, _ = pair
    made = lalm.to_transformer_lens(prompt)
    short = lalm.prompt(mi.Item(audio=(np.ones(8000, np.float32), RATE), question="?", choices=("a", "b")))
    with pytest.raises(ModelError, match=r"blocks.1.hook_resid_post is .* patch between prompts of as many"):
        made.patch("blocks.1.hook_resid_post", made.run_with_cache(short)[1])


def test_tokens_without_their_sound_are_refused(both):
    """What transformer_lens.patching does; by itself it would go on without a word."""
    from transformer_lens import patching

    _, made, prompt, _ = both
    tokens = prompt.inputs["input_ids"]
    for run in (
        lambda: made.bridge(tokens),
        lambda: made.bridge.run_with_cache(tokens, attention_mask=prompt.inputs["attention_mask"]),
        lambda: made.bridge.generate(tokens, max_new_tokens=1, verbose=False),
        lambda: patching.get_act_patch_resid_pre(
            made.bridge, tokens, made.cache, lambda logits: logits.sum()
        ),
    ):
        with pytest.raises(ModelError, match=r"hold \d+ audio placeholders"):
            run()
    assert made.bridge(tokens[:, -4:]).shape[1] == 4  # text alone is a prompt like any other


def state(model):
    """All that an instrument could change: classes and places of modules, hooks, settings, weights."""
    modules = {
        name: (id(m), type(m), len(m._forward_hooks), len(m._forward_pre_hooks), m.training)
        for name, m in model.named_modules()
    }
    settings = {id(c): c._attn_implementation for m in model.modules() if (c := getattr(m, "config", None))}
    tensors = {name: (t.data_ptr(), t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
    return modules, settings, tensors, model.config.to_json_string()


@pytest.mark.parametrize("whole", [True, False])
def test_the_model_is_left_as_it_was(pair, monkeypatch, whole):
    lalm, prompt, other = pair
    before, logits = state(lalm.model), lalm.model(**prompt.inputs).logits
    mata = mi.Mata(1.0, [1, 2])
    edited = lalm.logits(prompt, mata)
    if not whole:
        monkeypatch.setattr(transformer_lens_view, "bridge_whole", lambda model: _refuse())
    made = lalm.to_transformer_lens(prompt)
    made.patch("blocks.1.hook_resid_post", made.run_with_cache(other)[1])
    made.bridge.add_perma_hook("blocks.2.hook_resid_post", lambda x, hook: x * 0)
    made.bridge.enable_compatibility_mode(
        disable_warnings=True
    )  # folds and centres weights: those of the twin
    after = state(lalm.model)
    assert before[0] == after[0]
    assert before[1] == after[1]
    assert before[3] == after[3]
    for name, (place, values) in before[2].items():
        assert after[2][name][0] == place, name
        assert torch.equal(after[2][name][1], values), name
    assert torch.equal(lalm.model(**prompt.inputs).logits, logits)
    assert torch.equal(lalm.logits(prompt, mata), edited)
    assert (edited - logits[:, -1]).abs().max() > 0.05


def test_nothing_is_installed_and_nobody_silenced(pair, monkeypatch):
    """boot_transformers runs pip where torchvision is missing, and its import silences transformers."""
    import logging

    def refuse(*args, **kwargs):
        raise AssertionError(f"a process was started: {args}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    level, filters = logging.getLogger("transformers").level, list(warnings.filters)
    lalm, prompt, _ = pair
    lalm.to_transformer_lens(prompt)
    assert logging.getLogger("transformers").level == level
    assert warnings.filters == filters


def test_ready_made_inputs(pair):
    lalm, prompt, _ = pair
    made = lalm.to_transformer_lens(lalm.prompt_from_inputs(prompt.inputs))
    assert made.difference < 1e-5


def test_half_precision(pair):
    """Measured: 0.06 where logits reach 20."""
    _, prompt, _ = pair
    model, processor = tiny_qwen2_audio(seed=0)
    half = LALM(model.to(torch.bfloat16), processor)
    made = half.to_transformer_lens(half.prepare(prompt))
    assert made.bridge.cfg.dtype == torch.bfloat16
    assert made.difference < 0.02 * float(half.logits(prompt).abs().max())
    report = made.attribution([40, 41])
    assert report.attrs["off"] < 0.02 * float(np.abs(report).sum("component").max())


def test_what_it_cannot_stand_on_is_refused_with_the_reasons(pair, monkeypatch):
    lalm, prompt, _ = pair
    monkeypatch.setattr(causal_lm, "_bridge", lambda body, name: _raise(f"no adapter for {name}."))
    with pytest.raises(ModelError, match=r"Qwen2Audio.*Qwen2ForCausalLM"):
        lalm.to_transformer_lens(prompt)


def _raise(text):
    raise ModelError(text)


def test_a_twin_shares_weights_and_nothing_else(pair):
    lalm, prompt, _ = pair
    other = clone_sharing_weights(lalm.model)
    with torch.no_grad():
        assert torch.equal(other(**prompt.inputs).logits, lalm.model(**prompt.inputs).logits)
    for (name, mine), expected in zip(lalm.model.named_parameters(), other.parameters(), strict=True):
        assert mine is expected, name
    assert not {id(m) for m in lalm.model.modules()} & {id(m) for m in other.modules()}
    assert other.config is not lalm.model.config
