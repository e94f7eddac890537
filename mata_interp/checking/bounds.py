"""How far two correct computations of the same quantity may differ, by precision.

This package computes attention in float32, from the model's own queries and keys. What remains is rounding
in the model itself, which differs between two attention kernels of torch. The largest differences measured on
random models of 4 and 12 layers (tests/tiny.py) and on the two organisms stand beside each bound. A model
whose attention is nearly one-hot rounds more: with queries and keys twice as large (scores four times), rows
differed by up to 0.25 and logits by up to 0.14 of the largest in bfloat16. So a check that fails in half
precision and passes in float32 found rounding.
"""

from __future__ import annotations

import torch

__all__ = [
    "JITTER_FACTOR",
    "LOGITS",
    "MAX_MASS",
    "MEASURED_LAYERS",
    "MIN_EFFECT",
    "OPTION_SCORES",
    "ROUNDING_FACTOR",
    "ROWS",
    "SUMS",
]

SUMS = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
"""Of a sum of attention masses, which is float32 in every model, from 1. Measured: 4e-7."""

ROWS = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 0.1}
"""Of an attention weight or mass. Measured: 2e-6, 6e-3 and 0.043 in float32, float16 and bfloat16."""

LOGITS = {torch.float64: 1e-7, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Of a logit, or a change of one, relative to the largest logit. Measured: 1.7e-6, 2.7e-3 and 0.019."""

ROUNDING_FACTOR = 4
"""In half precision logits may also differ by this multiple of the difference between the model's own two
attention implementations, SDPA and eager, on the same prompt: models with small logits round more."""

MEASURED_LAYERS = 12
"""Attention layers of the deepest model that the bounds above were measured on. Rounding grows with depth."""

JITTER_FACTOR = 2
"""In models with quantised layers logits and attention weights may also differ by this multiple of what the
model's own eager attention makes of states that are off by two roundings; attention weights of deep models in
half precision too. A batch and single prompts, and passes with and without a cache, differed by up to 1.3
times that (weights in 8 or 4 bits) and 0.9 times (states in 8 bits, token by token)."""

OPTION_SCORES = 3
"""Of log p of an option, in multiples of the bound of a logit. Measured: 1.9e-6, 4.3e-3 and 0.031 of the
largest logit."""

MIN_EFFECT = 3
"""Size that the effect of an edit must have, in multiples of the bound. Below it, agreement shows nothing."""

MAX_MASS = 0.5
"""A bound of attention weights and masses above which agreement shows nothing: unrelated ones rarely
differ by more."""
