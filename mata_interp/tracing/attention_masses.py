"""Attention masses of chosen queries, read layer by layer while the model runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError
from mata_interp.execution import MeasuredBatch
from mata_interp.interventions import select_queries
from mata_interp.lalm import Prompt
from mata_interp.lalm.calls.attention_calls import attention_calls
from mata_interp.lalm.decoding import end_of_sequence_ids

from .queries import Queries, gather_queries, mean_over_queries

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["AttentionMasses", "read_masses"]


@dataclass(frozen=True, eq=False)
class AttentionMasses:
    """The masses of B prompts.

    Attributes:
        mass: float32 [B, layers, heads, G, Q], NaN for absent queries and for heads that a layer does not
            have; with the mean over queries, Q is 1.
        queries: the Q queries.
        groups: names of the G groups.
    """

    mass: np.ndarray
    queries: Queries
    groups: list[str]

    def to_part(self, notes: Mapping[str, Any]) -> MeasuredBatch:
        """The masses as a part of a trace, with further ``notes``."""
        queries = {name: getattr(self.queries, name) for name in Queries.__dataclass_fields__}
        return MeasuredBatch({"mass": self.mass, **queries}, {**notes, "groups": self.groups})

    @classmethod
    def from_part(cls, part: MeasuredBatch) -> AttentionMasses:
        """What `to_part` made a part of."""
        queries = Queries(**{name: part.arrays[name] for name in Queries.__dataclass_fields__})
        return cls(part.arrays["mass"], queries, list(part.notes["groups"]))


@torch.inference_mode()
def read_masses(lalm: LALM, prompt: Prompt, query: str, max_new_tokens: int, mean: bool) -> AttentionMasses:
    """Run the model and read its attention.

    Args:
        lalm: the model.
        prompt: B prompts.
        query: which queries, one of QUERIES.
        max_new_tokens: of the answer, for ``query="generated"``.
        mean: take the mean over queries.
    """
    prompt = lalm.prepare(prompt)
    tokens, groups = prompt.inputs["input_ids"], dict(prompt.groups)
    if query == "generated":
        no_token = torch.zeros_like(tokens, dtype=torch.bool)
        groups.setdefault("generated", no_token)
        masses, answer, predicted = _masses_of_answers(lalm, prompt, groups, max_new_tokens)
        mass = _reduce_queries(masses, predicted, mean).cpu().numpy()
        # all but the last token of the answer are queries, too, after the last one of the prompt
        chosen = torch.cat([no_token[:, :-1], predicted], 1)
        groups = {
            name: torch.cat([group, predicted[:, 1:] & (name == "generated")], 1)
            for name, group in groups.items()
        }
        tokens = torch.cat([tokens, answer[:, :-1]], 1)
    else:
        chosen = select_queries(query, groups)
        mass = _masses_of_prompts(lalm, prompt, groups, chosen, mean)
    return AttentionMasses(mass, Queries.from_tokens(tokens, groups, chosen, mean), list(groups))


def _masses_of_prompts(
    lalm: LALM, prompt: Prompt, groups: dict[str, Tensor], chosen: Tensor, mean: bool
) -> np.ndarray:
    """[B, layers, heads, G, Q] of the queries ``chosen``, bool [B, T], in one forward."""
    stacked = torch.stack(list(groups.values()), 1)  # (B, G, T)
    columns = chosen.any(0).nonzero()[:, 0].cpu()  # (R,) tokens that are a query in some prompt
    chosen = chosen[:, columns]  # (B, R)
    mass = _empty_masses(lalm, prompt.size, len(groups), 1 if mean else int(chosen.sum(1).max()))
    place = {layer: i for i, layer in enumerate(lalm.attention_layers)}

    def on_call(layer: int, call: AttentionCall, total: int) -> None:
        rows = columns - (total - call.query.shape[2])
        if rows[0] < 0:
            raise ModelError(
                f"The attention of layer {layer} does not get all queries at once: trace query='last'."
            )
        keys = stacked[..., total - call.length :].to(call.key.device)
        masses = call.masses(rows, keys).transpose(2, 3)  # (B, H, G, R)
        masses = _reduce_queries(masses, chosen.to(masses.device), mean)
        mass[:, place[layer], : masses.shape[1]] = masses.cpu().numpy()

    # nothing after the last layer's scores is needed: neither its values nor the output head
    with attention_calls(lalm.structure, lalm.attention_layers, on_call, stop_early=True) as run:
        run(lambda: lalm.model(**prompt.inputs, use_cache=False))
    return mass


def _masses_of_answers(
    lalm: LALM, prompt: Prompt, groups: dict[str, Tensor], max_new_tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The last row at every step of a greedy generation.

    Returns:
        masses [B, layers, heads, G, N], the answer's tokens [B, N], and which of them come before or are
        the end of their answer, bool [B, N].
    """
    stacked = torch.stack(list(groups.values()), 1)  # (B, G, P)
    generated = torch.tensor([name == "generated" for name in groups], device=stacked.device)
    place = {layer: i for i, layer in enumerate(lalm.attention_layers)}
    steps: list[np.ndarray] = []  # of each token predicted, [B, layers, heads, G]

    def on_call(layer: int, call: AttentionCall, total: int) -> None:
        step = total - prompt.width  # tokens of the answer so far
        if step == len(steps):
            steps.append(_empty_masses(lalm, prompt.size, len(groups), 1)[..., 0])
        keys = torch.cat([stacked, generated[:, None].expand(prompt.size, -1, step)], 2)
        keys = keys[..., total - call.length :].to(call.key.device)  # a sliding cache has the newest only
        masses = call.masses(slice(-1, None), keys)[:, :, 0]  # (B, H, G)
        steps[step][:, place[layer], : masses.shape[1]] = masses.cpu().numpy()

    with attention_calls(lalm.structure, lalm.attention_layers, on_call) as run:
        answer = run(lambda: lalm.generate(prompt, max_new_tokens=max_new_tokens))
    ends = end_of_sequence_ids(lalm.model, getattr(lalm.processor, "tokenizer", None)).to(answer)
    ended = torch.isin(answer, ends).cumsum(1)
    masses = torch.from_numpy(np.stack(steps, -1)).to(answer.device)
    return masses, answer, pad(ended[:, :-1], (1, 0)) == 0


def _reduce_queries(masses: Tensor, chosen: Tensor, mean: bool) -> Tensor:
    """Masses [B, ..., R] of the chosen queries: their mean, [B, ..., 1], or each, [B, ..., Q]."""
    return mean_over_queries(masses, chosen) if mean else gather_queries(masses, chosen, torch.nan)


def _empty_masses(lalm: LALM, rows: int, groups: int, queries: int) -> np.ndarray:
    """NaN [B, layers, heads, G, Q]."""
    heads = lalm.structure.heads
    return np.full((rows, len(heads), max(heads.values()), groups, queries), np.nan, np.float32)
