"""Baseline interventions: edits that are active while criteria measure, as if they were part of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.interventions import RULES, AttentionEdit, select_queries
from mata_interp.lalm import SuffixTokens
from mata_interp.ranges import named_layers
from mata_interp.sweeps.tree import grow
from mata_interp.sweeps.tree_edits import TreeEditing

from .context_inputs import ContextInputs

__all__ = ["BaselineEdit", "alters_text", "describe_baseline"]


class BaselineEdit:
    """Applies a baseline at the attention calls of one suffix, with the edit engine of sweeps.

    No baseline changes the states of the audio or of the tokens before it, so the prefill without edits stays
    valid. It can change the states of text after the audio: see :func:`alters_text`.

    Args:
        inputs: the prompt and its baseline, which may be empty.
        tokens: [1, S] ids of the suffix, with the forced tokens at the end.
        forced: number of forced tokens.
    """

    def __init__(self, inputs: ContextInputs, tokens: Tensor, forced: int) -> None:
        baseline = inputs.baseline
        prompt_tokens = tokens.shape[1] - forced
        places = torch.arange(tokens.shape[1], device=tokens.device)
        slots = SuffixTokens(
            tokens, (places - (prompt_tokens - 1))[None], places[:, None] >= places[None, :], prompt_tokens
        )
        self._levels, _ = grow([baseline], inputs.layers)
        self._edit = None
        if baseline:
            self._edit = TreeEditing(self._levels, [baseline], inputs.prompt.groups, slots)

    def edits_layer(self, layer: int) -> bool:
        """Whether the baseline edits anything in this layer."""
        return self._edit is not None and any(self._levels[layer].edits)

    def edited_scores(self, layer: int, call: AttentionCall) -> Tensor:
        """Attention scores of the call under the baseline: float32 [R, H, S, L]."""
        scores = call.scores(slice(None))
        if not self.edits_layer(layer) or self._edit is None:
            return scores
        return self._edit(layer, scores[:, :, None])[:, :, 0]

    def edited_call(self, layer: int, call: AttentionCall) -> AttentionCall:
        """The call with the baseline's change of its scores added to its mask, so that readers of the call
        see it."""
        if not self.edits_layer(layer):
            return call
        plain = call.scores(slice(None))
        bias = torch.where(plain > -torch.inf, self.edited_scores(layer, call) - plain, 0.0)
        return call.biased(bias)


def alters_text(inputs: ContextInputs) -> bool:
    """Whether the baseline changes states of prompt tokens before the last one."""
    last = inputs.prompt.width - 1
    return any(
        bool(select_queries(part.queries, inputs.prompt.groups)[0, :last].any())
        for part in inputs.baseline
        if part.phase != "decode"
    )


def describe_baseline(parts: Sequence[AttentionEdit]) -> str:
    """A baseline in one phrase, such as ``add -4 on audio in layers 2-3, text queries``."""
    phrases = []
    for part in parts:
        rule = f"{part.rule} {part.alpha:+g}" if RULES[part.rule].has_strength else part.rule
        heads = "" if part.heads == "all" else ", some heads"
        layers = named_layers(part.layers)
        phrases.append(f"{rule} on {part.keys} in {layers}, {part.queries} queries{heads}")
    return "; ".join(phrases)
