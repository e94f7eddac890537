"""A user's own nnsight trace of a model with an attached intervention: reads and edits beside it."""

from __future__ import annotations

import torch

import mata_interp as mi
from mata_interp.interventions import catalogue as c
from mata_interp.lalm import LALM
from tests.lalm.test_nothing_left_behind import HOOKS
from tests.tiny import tiny_qwen2_audio

MATA = mi.Mata(1.5, [1, 2], "add")


def layer_of(lalm: LALM, number: int):
    """The envoy of a decoder layer."""
    wrapped = {module: name for name, module in lalm.model.named_modules()}
    return lalm.nnsight.get(wrapped[lalm.structure.blocks[number]])


def test_reads_beside_an_edit(items):
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    prompt = lalm.prompt(items)
    for edit in (MATA, c.ValueScaling((1, 2)), c.InstABoost((1, 2))):
        expected = lalm.logits(prompt, edit)
        with torch.no_grad(), mi.attach(lalm, edit), lalm.nnsight.trace(**prompt.inputs):
            hidden = layer_of(lalm, 2).output.save()
            logits = lalm.nnsight.output.logits[:, -1].save()
        assert torch.equal(logits, expected)
        states = hidden[0] if isinstance(hidden, tuple) else hidden
        assert not torch.equal(states[:, -1], lalm.hidden_states(prompt, [2], last=True)[:, 0, 0])


def test_edits_of_the_user_beside_an_edit(items):
    """A user's edit of a layer under MATA is that of a hook under MATA."""
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    prompt = lalm.prompt(items)

    def halve(_, __, output):
        states = output[0] if isinstance(output, tuple) else output
        return (states * 0.5, *output[1:]) if isinstance(output, tuple) else states * 0.5

    handle = lalm.structure.blocks[1].register_forward_hook(halve)
    expected = lalm.logits(prompt, MATA)
    handle.remove()
    with torch.no_grad(), mi.attach(lalm, MATA), lalm.nnsight.trace(**prompt.inputs):
        layer = layer_of(lalm, 1)
        layer.output = layer.output * 0.5
        logits = lalm.nnsight.output.logits[:, -1].save()
    assert torch.equal(logits, expected)
    assert not torch.equal(logits, lalm.logits(prompt, MATA))


def test_the_wrapper_is_one_and_other_calls_go_on(items):
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    prompt = lalm.prompt(items)
    before = lalm.logits(prompt, MATA)
    assert lalm.nnsight is lalm.nnsight
    assert torch.equal(lalm.logits(prompt, MATA), before)
    assert mi.trace(lalm, items, progress=False) is not None
    assert all(
        not getattr(module, name) for module in lalm.model.modules() for name in HOOKS if "pre" in name
    )
