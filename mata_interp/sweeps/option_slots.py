"""The end of a batch of prompts and the options after it, as slots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mata_interp.lalm import SuffixTokens

__all__ = ["OptionSlots"]

Tokens = Sequence[int]


class OptionSlots:
    """C options (the most any prompt has) of B prompts, in S slots together with the prompts' last W tokens.

    The last token of an option is only predicted: options of one token need no slot.

    Args:
        end: [B, W] the prompts' last tokens.
        options: token ids of each option, one list per prompt, at least one token each; or empty lists.

    Attributes:
        slots: the tokens, their positions, and what each sees.
        targets: every token whose probability is needed: prompt, option, slot that predicts it, id.
    """

    def __init__(self, end: Tensor, options: Sequence[Sequence[Tokens]]) -> None:
        self._options, device, asking = options, end.device, end.shape[1]
        width = asking + max((sum(len(option) - 1 for option in row) for row in options), default=0)
        tokens = torch.cat([end, end[:, -1:].repeat(1, width - asking)], 1)
        depth = torch.arange(width).clamp(max=asking - 1).repeat(len(end), 1) - (asking - 1)
        sees = torch.eye(width, dtype=torch.bool).repeat(len(end), 1, 1)
        sees[:, :, :asking] = torch.ones(width, asking, dtype=torch.bool).tril()
        self._first = []  # the first slot of each option
        for b, row in enumerate(options):
            at, firsts = asking, []
            for option in row:
                n = len(option) - 1
                firsts.append(at)
                tokens[b, at : at + n] = torch.tensor(option[:-1], dtype=torch.long, device=device)
                depth[b, at : at + n] = torch.arange(1, n + 1)
                sees[b, at : at + n, at : at + n] |= torch.ones(n, n, dtype=torch.bool).tril()
                at += n
            self._first.append(firsts)
        self.slots = SuffixTokens(tokens, depth.to(device), sees.to(device), asking)
        self.targets = self._all_targets()

    def _all_targets(self) -> list[tuple[int, int, int, int]]:
        return [
            (b, c, self.slots.prompt_slots - 1 if k == 0 else self._first[b][c] + k - 1, token)
            for b, row in enumerate(self._options)
            for c, option in enumerate(row)
            for k, token in enumerate(option)
        ]

    def logprob(self, logprobs: np.ndarray) -> np.ndarray:
        """Log p of options [B, ..., C] from that of the ``targets``, [..., n]; NaN without an option."""
        choices = max(map(len, self._options), default=0)
        out = np.full((len(self._options), *logprobs.shape[:-1], choices), np.nan)
        for b, row in enumerate(self._options):
            out[b, ..., : len(row)] = 0.0
        for place, (b, c, _, _) in enumerate(self.targets):
            out[b, ..., c] += logprobs[..., place]
        return out
