"""What an attached MATA costs a token, counted in operations, since time depends on the machine."""

from __future__ import annotations

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

import mata_interp as mi
from mata_interp.lalm import LALM
from tests.tiny import tiny_qwen2_audio

SHORT, LONG, LAYERS = 4, 12, 4
VIEWS = {"aten._unsafe_view.default", "aten.detach.default"}


class Operations(TorchDispatchMode):
    """Counts operations that compute something: views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view and str(func) not in VIEWS
        return func(*args, **(kwargs or {}))


def of_a_token(generate) -> float:
    counts = []
    for length in (SHORT, LONG):
        with Operations() as operations:
            generate(length)
        counts.append(operations.count)
    return (counts[1] - counts[0]) / (LONG - SHORT)


@pytest.mark.parametrize(("rule", "operations"), [("add", 6), ("mul", 6), ("abs", 7)])
def test_operations_of_a_token(items, rule, operations):
    """Operations of each edited layer, and those of the dose, which are shared by many tokens."""
    lalm = LALM(*tiny_qwen2_audio(seed=0, layers=LAYERS))
    lalm.model.generation_config.eos_token_id = None
    inputs = lalm.prompt(items[0]).inputs

    def plain(length):
        lalm.model.generate(**inputs, max_new_tokens=length, do_sample=False)

    def attached(layers):
        def generate(length):
            with mi.attach(lalm.model, mi.Mata(1.0, range(layers), rule)):
                plain(length)

        return generate

    plain(1)
    base = of_a_token(plain)
    one, all_layers = of_a_token(attached(1)), of_a_token(attached(LAYERS))
    assert base > 100
    assert all_layers - one <= (operations + 0.5) * (LAYERS - 1)
    assert one - base <= operations + 0.5 + 2  # the dose: layers of a token are joined in two operations
