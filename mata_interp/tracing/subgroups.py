"""The masses of all batches by group, and by the parts of groups: clips, reasoning and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mata_interp.lalm.prompting.groups import is_subgroup

from .attention_masses import AttentionMasses

__all__ = ["concatenate", "of_groups", "of_subgroups", "predicts", "whole_groups"]


def whole_groups(names: Sequence[str]) -> list[str]:
    """The names that are not those of parts of another group."""
    return [name for name in names if not is_subgroup(name)]


def of_groups(masses: Sequence[AttentionMasses], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mass [item, layer, head, G, Q] and number of tokens [item, G, Q] of these groups.

    A batch without such a group has no tokens in it.
    """
    mass, n_tokens = [], []
    for batch in masses:
        places = [_place(name, batch.groups) for name in names]
        missing = np.array(places) < 0
        mass.append(batch.mass[:, :, :, places])
        n_tokens.append(batch.queries.n_tokens[:, places])
        mass[-1][:, :, :, missing] = 0
        n_tokens[-1][:, missing] = 0
    return concatenate(mass, np.nan), concatenate(n_tokens, 0)


def _place(name: str, groups: Sequence[str]) -> int:
    """Where a group is among ``groups``, -1 if it is not; the first clip of prompts with one is all audio."""
    if name == "audio_1" and name not in groups:
        name = "audio"
    return groups.index(name) if name in groups else -1


def of_subgroups(masses: Sequence[AttentionMasses], per_query: bool) -> xr.Dataset:
    """Mass and number of tokens of each clip, of the reasoning and of the answer; empty without any."""
    names = list(dict.fromkeys(name for batch in masses for name in batch.groups if is_subgroup(name)))
    if not names:
        return xr.Dataset()
    mass, n_tokens = of_groups(masses, names)
    # an item without a second clip has no mass on it, not a mass of 0
    absent = n_tokens.max(-1) == 0  # [item, G]
    mass = np.where(absent[:, None, None, :, None], np.float32(np.nan), mass)
    query: tuple[str, ...] = ("query",) if per_query else ()
    if not per_query:
        mass, n_tokens = mass[..., 0], n_tokens[..., 0]
    variables = {
        "subgroup_mass": (("item", "layer", "head", "subgroup", *query), mass),
        "subgroup_n_tokens": (("item", "subgroup", *query), n_tokens),
    }
    return xr.Dataset(variables, {"subgroup": names})


def predicts(batch: AttentionMasses) -> np.ndarray:
    """What each query predicts, [B, Q]: an answer, where the batch has no thought."""
    if batch.predicts is not None:
        return batch.predicts
    return np.where(batch.queries.position >= 0, "answer", "")


def concatenate(batches: Sequence[np.ndarray], absent: Any) -> np.ndarray:
    """Batches [B, ..., Q] one after the other, those with fewer queries filled up with ``absent``."""
    width = max(batch.shape[-1] for batch in batches)
    padded = []
    for batch in batches:
        widths = [(0, 0)] * (batch.ndim - 1) + [(0, width - batch.shape[-1])]
        padded.append(np.pad(batch, widths, constant_values=absent))
    return np.concatenate(padded)
