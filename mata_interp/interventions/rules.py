"""The rules by which scores of chosen keys are changed before the softmax.

A rule is ``rule(scores[B, H, Q, L], keys, alpha) -> scores``, with every head present; ``keys`` is a bool
mask [B, L], or anything that broadcasts to the scores. Scores outside ``keys`` come back untouched, bit for
bit; hidden keys (-inf) must not be among ``keys``.

MATA (arXiv 2509.18816; Interspeech 2026 #1212) raises the scores from the last token to the audio keys. Which
rule its authors used is not settled, as no official code is known and digests of the paper disagree, so none
of these is "the paper's". For scores above zero ``mul`` and ``abs`` are the same; below zero ``mul`` lowers
attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

__all__ = ["RULES", "Rule", "abs_rule", "add_rule", "knockout_rule", "mul_rule"]

Rule = Callable[[Tensor, Tensor, Any], Tensor]
"""alpha: a number, or a tensor of numbers that broadcasts to the scores."""


def abs_rule(scores: Tensor, keys: Tensor, alpha: float) -> Tensor:
    """scores + alpha * abs(scores): the rule of PAI, MATA's ancestor, as its code has it (LALBJ/PAI)."""
    return _where(keys, scores + alpha * scores.abs(), scores)


def mul_rule(scores: Tensor, keys: Tensor, alpha: float) -> Tensor:
    """scores * (1 + alpha): two digests of the paper and an unofficial port read it so."""
    return _where(keys, scores * (1 + alpha), scores)


def add_rule(scores: Tensor, keys: Tensor, alpha: float) -> Tensor:
    """scores + alpha, which multiplies the odds of every chosen key by exp(alpha): one digest reads it so."""
    return _where(keys, scores + alpha, scores)


def knockout_rule(scores: Tensor, keys: Tensor, alpha: float) -> Tensor:
    """-inf, so that nothing is read from the keys (Geva et al. 2023); any alpha but 0, which does nothing."""
    hidden = torch.full_like(scores, -torch.inf)
    return _where(
        keys, torch.where(torch.as_tensor(alpha != 0, device=scores.device), hidden, scores), scores
    )


def _where(keys: Tensor, changed: Tensor, scores: Tensor) -> Tensor:
    # chosen, never blended: a blend would turn the -inf of hidden keys into NaN
    return torch.where(keys[:, None, None] if keys.dim() == 2 else keys, changed, scores)


RULES: Mapping[str, Rule] = MappingProxyType(
    {"abs": abs_rule, "mul": mul_rule, "add": add_rule, "knockout": knockout_rule}
)
"""The rules by name."""
