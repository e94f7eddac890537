"""The options of a batch of prompts as slots behind the last prompt token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mata_interp.lalm import Slots

__all__ = ["Answers"]

Tokens = Sequence[int]


class Answers:
    """C options (the most any prompt has) of B prompts, laid out in S slots.

    The last token of an option is only predicted, never given: options of one token need no slot.

    Args:
        last: [B] the prompts' last tokens.
        options: of each prompt, its options' tokens, at least one each; no options at all give slot 0 alone.

    Attributes:
        slots: what is given, where, and what it sees.
    """

    def __init__(self, last: Tensor, options: Sequence[Sequence[Tokens]]) -> None:
        self._options, device = options, last.device
        given = [[len(option) - 1 for option in row] for row in options]
        width = 1 + max((sum(row) for row in given), default=0)
        tokens = last[:, None].repeat(1, width)
        depth = torch.zeros(len(last), width, dtype=torch.long)
        sees = torch.eye(width, dtype=torch.bool).repeat(len(last), 1, 1)
        sees[:, :, 0] = True
        self._first = []  # of each option, its first slot
        for b, row in enumerate(options):
            at, firsts = 1, []
            for option in row:
                n = len(option) - 1
                firsts.append(at)
                tokens[b, at : at + n] = torch.tensor(option[:-1], dtype=torch.long, device=device)
                depth[b, at : at + n] = torch.arange(1, n + 1)
                sees[b, at : at + n, at : at + n] |= torch.ones(n, n, dtype=torch.bool).tril()
                at += n
            self._first.append(firsts)
        self.slots = Slots(tokens, depth.to(device), sees.to(device))
        self.asked = self._asked()

    def _asked(self) -> list[tuple[int, int, int, int]]:
        """Every token that is asked for: prompt, option, slot that predicts it, id."""
        return [
            (b, c, 0 if k == 0 else self._first[b][c] + k - 1, token)
            for b, row in enumerate(self._options)
            for c, option in enumerate(row)
            for k, token in enumerate(option)
        ]

    def logprob(self, logprobs: np.ndarray) -> np.ndarray:
        """From log p of every token asked for, [..., len(asked)], to options: [B, ..., C], NaN if none."""
        choices = max(map(len, self._options), default=0)
        out = np.full((len(self._options), *logprobs.shape[:-1], choices), np.nan)
        for b, row in enumerate(self._options):
            out[b, ..., : len(row)] = 0.0
        for place, (b, c, _, _) in enumerate(self.asked):
            out[b, ..., c] += logprobs[..., place]
        return out
