"""Mixtures of experts: where rounding chooses another expert for a row, the sweep sees it and says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mata_interp import Mata
from mata_interp.lalm import LALM
from mata_interp.sweeps import SweepWarning, sweep
from tests.families.registry import FAMILIES

LAYER = 2
EDIT = Mata(1.5, [0, 1], "add")


def gate_of(lalm: LALM) -> Any:
    block: Any = lalm.structure.blocks[LAYER]
    return block.mlp.gate


def routed(lalm: LALM, run) -> list[torch.Tensor]:
    """What the router of one layer is given, call by call."""
    states: list[torch.Tensor] = []
    router = gate_of(lalm)
    handle = router.register_forward_pre_hook(lambda _, args: states.append(args[0].detach().clone()))
    try:
        run()
    finally:
        handle.remove()
    return states


@pytest.mark.parametrize(
    ("edit", "culprit"),
    [(None, "an unedited row is .* off the plain forward .* after layer 2"), (EDIT, "an edited row is")],
    ids=["any row", "an edited row alone"],
)
def test_a_flip_of_experts_is_seen(edit, culprit):
    """The router is set on the edge between two experts, halfway between a token in a row and in the loop."""
    family = FAMILIES["qwen3_omni_moe"]
    lalm = LALM(family.model(None))
    prompt = lalm.prompt_from_inputs(family.inputs(1))
    configurations = {"edit": EDIT}
    assert sweep(lalm, prompt, configurations, progress=False).attrs["looped"] == 0
    plain = routed(lalm, lambda: lalm.logits(prompt, edit))[-1].flatten(0, -2)[-1].double()
    calls = routed(lalm, lambda: sweep(lalm, prompt, configurations, progress=False))
    rows = calls[1].flatten(0, -2).double()  # the first call reads, the second runs the rows
    row = rows[0 if edit is None else 1]
    apart, middle = plain - row, (plain + row) / 2
    edge = apart - (apart @ middle) / (middle @ middle) * middle
    edge = edge / edge.norm()
    with torch.no_grad():
        chosen = middle / middle.norm()
        gate_of(lalm).weight.copy_(torch.stack([edge, -edge, chosen, -chosen]).float())
    with pytest.warns(SweepWarning, match=f"plain loop: {culprit}"):
        swept = sweep(lalm, prompt, configurations, progress=False)
    assert swept.attrs["looped"] == 1
    assert swept.attrs["culprits"]
    np.testing.assert_array_equal(swept.values[:, 0], lalm.logits(prompt, EDIT))
