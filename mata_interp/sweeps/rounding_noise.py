"""How far rounding alone moves a model's logits, measured by one more pass.

Deep models in half precision amplify rounding: two exact ways to compute the same logits can be further apart
than a fixed number of steps of the number format. Where an unedited row is, it is compared with what rounding
does to this model on this prompt: the row runs once more, and the input of every layer is moved by one step,
up or down at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.discovery.hooks import hidden_states_in, replace_hidden_states, temporary_hooks
from mata_interp.seeding import named_generator

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["FACTOR", "logits_with_rounding"]

FACTOR = 2
"""How many times as far as the measured rounding an unedited row may be: both are draws of the same noise."""


def logits_with_rounding(lalm: LALM, run: Callable[[], np.ndarray]) -> np.ndarray:
    """The logits that a pass returns where the input of every layer is moved by one step of its dtype.

    Args:
        lalm: the model.
        run: runs the model's layers, each once, and returns logits.
    """
    random = named_generator(0, "rounding noise")

    def move(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        states = hidden_states_in(args, kwargs)
        return replace_hidden_states(args, kwargs, _moved_by_a_step(states, random))

    before: list[tuple[Any, Callable]] = [(block, move) for block in lalm.structure.blocks]
    with exclusive(lalm.structure.decoder), temporary_hooks(before):
        return run()


def _moved_by_a_step(states: Tensor, random: np.random.Generator) -> Tensor:
    """Every number about one step of its dtype larger or smaller in size, at random."""
    up = torch.from_numpy(random.integers(0, 2, size=tuple(states.shape), dtype=np.int8)).to(states.device)
    factors = 1 + (2 * up - 1) * torch.finfo(states.dtype).eps
    return (states.float() * factors.float()).to(states.dtype)
