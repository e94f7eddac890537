"""Attention of the last prompt token to bins of time, of the model as it is and under edits of attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.attention import AttentionCall, SharedMasks
from mata_interp.errors import ModelError
from mata_interp.interventions import AttentionEdit, Editing
from mata_interp.lalm import Prompt
from mata_interp.lalm.calls.attention_calls import Add, attention_calls
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.discovery.output_head import last_position_only
from mata_interp.lalm.prompting.groups import clip_group
from mata_interp.lalm.rows.caches import branch_cache, position_ids_after
from mata_interp.lalm.scoring import read

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["BINS", "AttentionOverTime", "attention_over_time"]

BINS = 60  # of a prompt's audio at most: as many as can be told apart on a page

Edits = Sequence[AttentionEdit]


@dataclass(frozen=True, eq=False)
class AttentionOverTime:
    """Attention of the last token of B prompts to N bins of time.

    Attributes:
        mass: float32 [B, conditions, layers, heads, N]; NaN for bins that a prompt does not have and for
            heads that a layer does not have. Over its bins it sums to the mass on audio.
        edges: edges of the bins in seconds, float64 [B, N + 1], NaN after a prompt's last.
        layers: index in the decoder of each of ``layers``.
    """

    mass: np.ndarray
    edges: np.ndarray
    layers: tuple[int, ...]

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Mass [conditions, layers, heads, n] and edges [n + 1] of one prompt, with the bins that it has."""
        edges = self.edges[row]
        edges = edges[~np.isnan(edges)]
        return self.mass[row, ..., : len(edges) - 1], edges


@torch.inference_mode()
def attention_over_time(
    lalm: LALM, prompt: Prompt, ends: Sequence[np.ndarray], conditions: Sequence[Edits], bins: int = BINS
) -> AttentionOverTime:
    """Measure the attention of the last prompt token to bins of time, under several edits.

    The prompts are read once; each condition is then one more run of the last token on their keys and values,
    where the model can step back by a token and the edits leave earlier tokens as they are. Elsewhere each
    condition reads the prompts again. No row of attention is stored.

    Args:
        lalm: the model.
        prompt: B prompts with audio.
        ends: where the clips of each prompt begin and end, in seconds, one after the other: [clips + 1] each.
        conditions: attention edits of each condition, in order; none for the model as it is.
        bins: number of bins of a prompt's audio, at most. The bins of a clip have equally many tokens, up to
            one, and each is of one clip only.

    Raises:
        ModelError: a prompt has no audio; the model's attention is not understood.
        InterventionError: a layer, head or group of an edit does not exist.
    """
    prompt = lalm.prepare(prompt)
    keys, edges = _time_bins(prompt, ends, bins)
    keys = keys.to(lalm.device)
    with exclusive(lalm.structure.decoder):
        cache = read(lalm.model, prompt)
        masses = [_last_token_mass(lalm, prompt, edits, keys, cache) for edits in conditions]
    mass = np.stack(masses, 1)  # (B, conditions, layers, heads, N)
    for row, of_row in enumerate(edges):
        mass[row, ..., int((~np.isnan(of_row)).sum()) - 1 :] = np.nan
    return AttentionOverTime(mass, edges, lalm.attention_layers)


def _time_bins(prompt: Prompt, ends: Sequence[np.ndarray], bins: int) -> tuple[Tensor, np.ndarray]:
    """Which tokens are in which bin, float32 [B, N, T], and edges in seconds, [B, N + 1], then NaN."""
    masks = {name: mask.cpu() for name, mask in prompt.groups.items() if name.startswith("audio")}
    rows = []
    for row, of_row in enumerate(ends):
        places: list[np.ndarray] = []
        edges = [float(of_row[0])]
        for clip, (begin, end) in enumerate(pairwise(of_row), 1):
            positions = masks.get(clip_group(clip), masks["audio"])[row].nonzero().flatten().numpy()
            if not len(positions):
                raise ModelError(f"Item {prompt.items[row].id!r} has no audio token in clip {clip}.")
            count = max(1, round(bins * (end - begin) / (of_row[-1] - of_row[0])))
            parts = np.array_split(positions, min(count, len(positions)))
            places += parts
            done = np.cumsum([len(part) for part in parts]) / len(positions)
            edges += (begin + (end - begin) * done).tolist()
        rows.append((places, edges))
    width = max(len(places) for places, _ in rows)
    keys = torch.zeros(len(rows), width, prompt.width)
    all_edges = np.full((len(rows), width + 1), np.nan)
    for row, (places, edges) in enumerate(rows):
        for number, tokens in enumerate(places):
            keys[row, number, tokens] = 1.0
        all_edges[row, : len(edges)] = edges
    return keys, all_edges


def _last_token_mass(lalm: LALM, prompt: Prompt, edits: Edits, keys: Tensor, cache: Any) -> np.ndarray:
    """Mass of the last row in every layer under some edits: float32 [B, layers, heads, N].

    Args:
        lalm: the model.
        prompt: B prompts, as the model takes them.
        edits: in order.
        keys: which tokens are in which bin, float32 [B, N, T].
        cache: of all tokens but the last; None: the whole prompts are read.
    """
    editing = Editing(edits, prompt.groups, lalm.structure.heads) if edits else None
    masks = SharedMasks()
    masses: dict[int, Tensor] = {}

    def on_call(layer: int, call: AttentionCall, total: int) -> Add | None:
        count = call.query.shape[2]
        last = slice(count - 1, count)
        bins = keys[..., total - call.length : total].to(call.key.device)  # a sliding cache has the newest
        change = editing(layer, call, total) if editing and layer in editing.layers else None
        if editing is None or change is None:
            masses[layer] = call.masses(last, bins, masks.of(call, last))[:, :, 0]
            return None
        rows, delta = change
        _, scores = call.delta(editing.edits(layer, call, total), rows)
        weights = scores.edited[:, :, -1].softmax(-1)  # (B, H, L)
        masses[layer] = weights @ bins.transpose(1, 2)
        return Add(rows, delta)

    inputs: dict[str, Any] = dict(prompt.inputs)
    if cache is not None and (editing is None or editing.shares):
        tokens = prompt.inputs["input_ids"]
        mask = prompt.inputs.get("attention_mask", torch.ones_like(tokens))
        inputs = {"input_ids": tokens[:, -1:], "attention_mask": mask, "past_key_values": branch_cache(cache)}
        inputs |= position_ids_after(cache, 0, 1)
    calls = attention_calls(lalm.structure, lalm.attention_layers, on_call, "direct")
    with last_position_only(lalm.model), calls as run:
        run(lambda: lalm.model(**inputs, use_cache=cache is not None))
    heads = max(mass.shape[1] for mass in masses.values())
    result = np.full((prompt.size, len(masses), heads, keys.shape[1]), np.nan, np.float32)
    for place, layer in enumerate(lalm.attention_layers):
        result[:, place, : masses[layer].shape[1]] = masses[layer].float().cpu().numpy()
    return result
