"""The masses of chosen queries, layer by layer, as the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError
from mata_interp.interventions import select_queries
from mata_interp.lalm import Prompt
from mata_interp.lalm.decoding import end_of_sequence_ids

from .queries import Queries, kept

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["AttentionMasses", "read"]


@dataclass(frozen=True, eq=False)
class AttentionMasses:
    """What was read of B prompts.

    Attributes:
        mass: float32 [B, layers, heads, G, Q], NaN for absent queries and for heads that a layer does not
            have; with the mean taken, Q is 1.
        queries: the Q queries.
        groups: names of the G groups.
    """

    mass: np.ndarray
    queries: Queries
    groups: list[str]


@torch.inference_mode()
def read(lalm: LALM, prompt: Prompt, query: str, max_new_tokens: int, mean: bool) -> AttentionMasses:
    """Run the model and read its attention; the arguments are those of `trace`."""
    prompt = lalm.prepare(prompt)
    tokens, groups = prompt.inputs["input_ids"], dict(prompt.groups)
    if query == "generated":
        nobody = torch.zeros_like(tokens, dtype=torch.bool)
        groups.setdefault("generated", nobody)
        mass, answer, here = _answers(lalm, prompt, groups, max_new_tokens)
        mass = kept(mass, here, mean, torch.nan).cpu().numpy()
        # all but the last token of the answer are queries, too, after the last one of the prompt
        chosen = torch.cat([nobody[:, :-1], here], 1)
        groups = {n: torch.cat([m, here[:, 1:] & (n == "generated")], 1) for n, m in groups.items()}
        tokens = torch.cat([tokens, answer[:, :-1]], 1)
    else:
        chosen = select_queries(query, groups)
        mass = _prompts(lalm, prompt, groups, chosen, mean)
    return AttentionMasses(mass, Queries.of(tokens, groups, chosen, mean), list(groups))


def _prompts(lalm: LALM, prompt: Prompt, groups: dict[str, Tensor], chosen: Tensor, mean: bool) -> np.ndarray:
    """[B, layers, heads, G, Q] of the queries ``chosen``, bool [B, T], in one forward."""
    stacked = torch.stack(list(groups.values()), 1)  # (B, G, T)
    rows = chosen.any(0).nonzero()[:, 0].cpu()  # (R,) what any prompt has chosen
    here = chosen[:, rows]  # (B, R)
    mass = _nothing(lalm, prompt.size, len(groups), 1 if mean else int(here.sum(1).max()))
    place = {layer: i for i, layer in enumerate(lalm.attention_layers)}

    def visit(layer: int, call: AttentionCall, total: int) -> None:
        own = rows - (total - call.query.shape[2])
        if own[0] < 0:
            raise ModelError(f"The attention of layer {layer} is not given all queries: trace query='last'.")
        seen = stacked[..., total - call.length :].to(call.key.device)
        masses = call.masses(own, seen).transpose(2, 3)  # (B, H, G, R)
        told = kept(masses, here.to(masses.device), mean, torch.nan)
        mass[:, place[layer], : masses.shape[1]] = told.cpu().numpy()

    # nothing after the last layer's scores is wanted: neither its values nor the output head
    lalm.instrument.look(lambda: lalm.model(**prompt.inputs, use_cache=False), lalm.attention_layers, visit)
    return mass


def _answers(
    lalm: LALM, prompt: Prompt, groups: dict[str, Tensor], max_new_tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The last row at every step of a greedy generation.

    Returns:
        masses [B, layers, heads, G, N], the answer's tokens [B, N], and which of them come before or are
        the end of their answer, bool [B, N].
    """
    stacked = torch.stack(list(groups.values()), 1)  # (B, G, P)
    answer = torch.tensor([name == "generated" for name in groups], device=stacked.device)
    place = {layer: i for i, layer in enumerate(lalm.attention_layers)}
    steps: list[np.ndarray] = []  # of each token predicted, [B, layers, heads, G]

    def visit(layer: int, call: AttentionCall, total: int) -> None:
        step = total - prompt.width  # tokens of the answer so far
        if step == len(steps):
            steps.append(_nothing(lalm, prompt.size, len(groups), 1)[..., 0])
        keys = torch.cat([stacked, answer[:, None].expand(prompt.size, -1, step)], 2)
        seen = keys[..., total - call.length :].to(call.key.device)  # a sliding cache has the newest only
        masses = call.masses(slice(-1, None), seen)[:, :, 0]  # (B, H, G)
        steps[step][:, place[layer], : masses.shape[1]] = masses.cpu().numpy()

    said = lalm.instrument.run(
        lambda: lalm.generate(prompt, max_new_tokens=max_new_tokens), lalm.attention_layers, visit
    )
    ended = torch.isin(said, end_of_sequence_ids(lalm.model).to(said)).cumsum(1)
    return torch.from_numpy(np.stack(steps, -1)).to(said.device), said, pad(ended[:, :-1], (1, 0)) == 0


def _nothing(lalm: LALM, rows: int, groups: int, queries: int) -> np.ndarray:
    """NaN [B, layers, heads, G, Q]."""
    heads = lalm.structure.heads
    return np.full((rows, len(heads), max(heads.values()), groups, queries), np.nan, np.float32)
