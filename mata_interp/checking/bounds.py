"""How far two right ways of computing the same may be apart, by precision.

What the package computes of attention is float32, from the model's own queries and keys. What is left is
rounding by the model itself, which two attention kernels of torch do differently. The largest differences
measured on random models of 4 and 12 layers (tests/tiny.py) and on the two organisms stand beside each
bound. A model whose attention is all but one-hot rounds more: with queries and keys twice as large as theirs
(scores four times) rows came to 0.25 and logits to 0.14 of the largest in bfloat16. So where half precision
fails and float32 passes, it was rounding.
"""

from __future__ import annotations

import torch

__all__ = ["LOGITS", "OWN_ROUNDING", "ROWS", "SCORES", "SUMS", "TELLING"]

SUMS = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
"""Of 1, of a sum of attention masses: they are float32 whatever the model is. Measured: 4e-7."""

ROWS = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 0.1}
"""Of an attention weight or mass. Measured: 2e-6, 6e-3 and 0.043 in float32, float16 and bfloat16."""

LOGITS = {torch.float64: 1e-7, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Of a logit, or a change of one, as a part of the largest logit. Measured: 1.7e-6, 2.7e-3 and 0.019."""

OWN_ROUNDING = 4
"""In half precision logits may also be off by so many times what the model's own logits differ between its
own two attentions, SDPA and eager, on the same prompt: models of small logits round more than the rest."""

SCORES = 3
"""Of log p of an option, in bounds of a logit. Measured: 1.9e-6, 4.3e-3 and 0.031 of the largest logit."""

TELLING = 3
"""An edit's effect must be so many bounds large, or else agreement says nothing."""
