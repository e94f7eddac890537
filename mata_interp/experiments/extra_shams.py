"""Shams that a study adds on request: random heads, random signs, silence, reversed audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import ArgumentError, unknown_name
from ..interventions import AttentionEdit
from ..seeding import named_generator
from .conditions import Condition

__all__ = ["SHAMS", "check_shams", "extra_shams"]

SHAMS = ("heads", "signs", "silence", "reversed")
"""``"heads"``: MATA in a random half of the heads of each layer. ``"signs"``: MATA in that half, and the same
rule with the opposite sign in the other heads. ``"silence"`` and ``"reversed"``: zeros, or the audio
backwards, without and with MATA. Their doses are recorded, not matched."""


def check_shams(shams: Sequence[str]) -> tuple[str, ...]:
    """The names of shams, each once.

    Raises:
        ArgumentError: there is no such sham.
    """
    for name in shams:
        if name not in SHAMS:
            raise ArgumentError(unknown_name("sham", name, SHAMS))
    return tuple(dict.fromkeys(shams))


def extra_shams(
    mata: AttentionEdit, shams: Sequence[str], heads: Mapping[int, int], seed: int
) -> dict[str, Condition]:
    """The conditions of these shams, in the order of `SHAMS`.

    Args:
        mata: the chosen configuration.
        shams: names among `SHAMS`.
        heads: number of query heads of each decoder layer.
        seed: seed of the random halves.

    Raises:
        ArgumentError: there is no such sham, or a layer has a single head to draw from.
    """
    wanted = check_shams(shams)
    conditions: dict[str, Condition] = {}
    if {"heads", "signs"} & set(wanted):
        half, rest = _halves(mata, heads, seed)
        raised = replace(mata, heads=half)
        if "heads" in wanted:
            conditions["mata in random heads"] = Condition(raised, role="sham_random_heads")
        if "signs" in wanted:
            lowered = replace(mata, alpha=-mata.alpha, heads=rest)
            conditions["mata with random signs"] = Condition((raised, lowered), role="sham_random_signs")
    if "silence" in wanted:
        conditions["silence"] = Condition(audio="silence", role="silence")
        conditions["mata + silence"] = Condition(mata, audio="silence", role="mata_silence")
    if "reversed" in wanted:
        conditions["reversed audio"] = Condition(audio="reversed", role="reversed_audio")
        conditions["mata + reversed audio"] = Condition(mata, audio="reversed", role="mata_reversed_audio")
    return conditions


def _halves(
    mata: AttentionEdit, heads: Mapping[int, int], seed: int
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """A random half of each layer's edited heads, and the others."""
    rng = named_generator(seed, "random heads")
    half, rest = {}, {}
    for layer in mata.layers:
        edited = np.array(mata.heads_of(layer) or range(heads[layer]))
        if len(edited) < 2:
            raise ArgumentError(f"Layer {layer} has one edited head: there is no random half of it.")
        drawn = rng.permutation(edited)
        half[layer] = sorted(drawn[: len(edited) // 2].tolist())
        rest[layer] = sorted(drawn[len(edited) // 2 :].tolist())
    return half, rest
