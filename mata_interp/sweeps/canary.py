"""How far an unedited row of a sweep may be from the plain forward: some steps of the number format.

A step is the distance between neighbouring numbers of the model's dtype at the size of the prompt's largest
logit. In bfloat16 it is 0.25 between 32 and 64, so a log p that is a difference of two logits near 38 cannot
be more exact than that, however small it is itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["STEPS", "Rounding", "relative_bound", "token_counts"]

STEPS = {torch.float64: 2**19, torch.float32: 128, torch.float16: 4, torch.bfloat16: 4}
"""Steps that a logit, or log p per token of an option, may differ. Sums of some hundred terms round more
often in float32 than the logits that half precision keeps."""


def relative_bound(dtype: torch.dtype) -> float:
    """The same bound relative to the size of a number just above a power of 2."""
    return STEPS[dtype] * torch.finfo(dtype).eps


@dataclass(frozen=True)
class Rounding:
    """Differences of a batch of prompts in steps of a number format.

    Attributes:
        dtype: the model's.
        step: of every prompt, float [B].
    """

    dtype: torch.dtype
    step: np.ndarray

    @classmethod
    def at(cls, dtype: torch.dtype, logits: np.ndarray) -> Rounding:
        """The steps at the largest of each prompt's logits.

        Args:
            dtype: the model's.
            logits: float32 [B, V].

        Examples:
            >>> import numpy as np, torch
            >>> Rounding.at(torch.bfloat16, np.array([[38.0, -2.0], [0.1, -3.0]])).step
            array([0.25    , 0.015625])
        """
        size = np.abs(logits).max(1).clip(1).astype(np.float64)
        return cls(dtype, torch.finfo(dtype).eps * 2.0 ** np.floor(np.log2(size)))

    def of_logits(self, logits: np.ndarray, plain: np.ndarray) -> np.ndarray:
        """The largest difference of two arrays of logits [B, V]: steps [B], NaN where one is NaN."""
        return np.abs(logits - plain).max(1) / self.step

    def of_options(self, logprobs: np.ndarray, plain: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The largest difference per token of log p of options.

        Args:
            logprobs: float64 [B, C].
            plain: the same, NaN where there is no option.
            tokens: number of tokens of every option, int [B, C].

        Returns:
            steps [B], 0 without options, NaN where ``logprobs`` alone is NaN.
        """
        apart = np.abs(logprobs - plain) / np.maximum(tokens, 1) / self.step[:, None]
        return np.where(np.isnan(plain), 0, apart).max(1, initial=0)


def token_counts(options: Sequence[Sequence[Sequence[int]]], shape: tuple[int, ...]) -> np.ndarray:
    """Number of tokens of every option, int [B, C]; 0 where there is none.

    Args:
        options: token ids of each option, one list per prompt.
        shape: B and C, the largest number of options.
    """
    counts = np.zeros(shape, int)
    for row, choices in zip(counts, options, strict=False):
        row[: len(choices)] = [len(choice) for choice in choices]
    return counts
