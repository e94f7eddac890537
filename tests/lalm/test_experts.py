"""Which experts tokens go to: found by structure, read pass by pass, carried from run to run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mata_interp import Mata
from mata_interp.lalm import LALM, Prompt
from mata_interp.lalm.discovery.experts import agreeing, experts_of, routed
from tests.families.registry import FAMILIES

EXPERTS = {
    "qwen3_omni_moe": 3,
    "nemotron_h_omni": 1,
    "granite_speech on granitemoehybrid": 5,
    "audioflamingo3 on qwen3_next": 5,
    "inkling_mm_model": 2,
}
"""How many mixtures the decoder of a family has; all others have none."""


def built(name: str, rows: int = 2, dtype: torch.dtype = torch.float32) -> tuple[LALM, Prompt]:
    family = FAMILIES[name]
    lalm = LALM(family.model(None).to(dtype))
    return lalm, lalm.prompt_from_inputs(family.inputs(rows))


@pytest.mark.parametrize("name", FAMILIES)
def test_found_by_structure_and_read(name):
    lalm, prompt = built(name)
    assert len(experts_of(lalm.structure.blocks)) == EXPERTS.get(name, 0)
    with routed(lalm.structure) as routing:
        lalm.logits(prompt)
    assert len(routing.experts) == EXPERTS.get(name, 0)
    assert not routing.unread
    for i, experts in routing.experts.items():
        assert experts.shape == routing.weights[i].shape == (2, prompt.width, experts.shape[-1])


@pytest.mark.parametrize("name", EXPERTS)
def test_pass_by_pass_as_in_one(name):
    """A generation writes the same, token by token, as one pass over prompt and answer."""
    lalm, prompt = built(name, 1)
    with routed(lalm.structure) as steps:
        output = lalm.generate(prompt, max_new_tokens=4)
    inputs = dict(prompt.inputs)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], output[:, :-1]], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with routed(lalm.structure) as once, torch.no_grad():
        lalm.model(**inputs, use_cache=False)
    for i, experts in once.experts.items():
        assert torch.equal(steps.experts[i], experts)
        torch.testing.assert_close(steps.weights[i], once.weights[i], rtol=1e-3, atol=1e-4)


def test_carried_into_another_run():
    """An edited run given the plain run's experts has those, counts its own that differ, and nothing else."""
    lalm, prompt = built("qwen3_omni_moe")
    edit = Mata(8.0, lalm.attention_layers, "add", queries="text")
    real = prompt.inputs["attention_mask"].bool()

    def logits(intervention) -> Callable[[], torch.Tensor]:
        return lambda: lalm.logits(prompt, intervention).clone()

    with routed(lalm.structure) as plain:
        expected = logits(None)()
    with routed(lalm.structure) as edited:
        edited_logits = logits(edit)()
    apart = [(a.sort(-1).values != edited.experts[i].sort(-1).values) for i, a in plain.experts.items()]
    assert torch.stack(apart).any()

    same, flips = agreeing(lalm.structure, plain, real, logits(None))
    assert torch.equal(same, expected)
    assert (flips.flipped, flips.of) == (0, 3 * int(real.sum()))

    # hooks stand in the order in which they were made: this one sees what the experts get
    choices: dict[int, torch.Tensor] = {}
    led, flips = agreeing(lalm.structure, plain, real, _watched(lalm, choices, logits(edit)))
    assert flips.flipped > 0
    for i, experts in plain.experts.items():
        assert torch.equal(choices[i].reshape(experts.shape), experts)
    assert (led - edited_logits).abs().max() > 1e-3
    assert (led - expected).abs().max() > 1e-3
    assert torch.equal(logits(edit)(), edited_logits)  # nothing is left behind


def test_only_what_is_no_padding_is_counted():
    lalm, prompt = built("qwen3_omni_moe")
    with routed(lalm.structure) as routing:
        lalm.logits(prompt)
    real = prompt.inputs["attention_mask"].bool()
    assert not real.all()
    padding = ~real[..., None]
    other = routing.changed(lambda x: torch.where(padding, x.flip(0), x))
    other.experts = {i: torch.where(padding, (x + 1) % 4, x) for i, x in other.experts.items()}
    _, flips = agreeing(lalm.structure, other, real, lambda: lalm.logits(prompt))
    assert flips.flipped == 0


def _watched(lalm: LALM, choices: dict[int, torch.Tensor], run: Callable[[], torch.Tensor]):
    def watched() -> torch.Tensor:
        handles = [
            module.register_forward_pre_hook(lambda _, args, i=i: choices.update({i: args[1].clone()}))
            for i, module in enumerate(experts_of(lalm.structure.blocks))
        ]
        try:
            return run()
        finally:
            for handle in handles:
                handle.remove()

    return watched
