"""Shams that a study adds on request: random heads, random signs, silence, reversed audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import ArgumentError, unknown_name
from ..interventions import AttentionEdit
from ..seeding import named_generator
from .conditions import Condition

__all__ = ["IN_HEADS", "SHAMS", "check_shams", "edits_in_heads", "extra_shams", "share_of_heads"]

SHAMS = ("heads", "signs", "silence", "reversed")
"""What each further sham is, and whether it has MATA's dose (mean row KL on the selection clips).

- ``"heads"``: MATA in a random half of the heads of each layer. Dose-matched: it has an alpha of its own, at
  which it changes attention as much as MATA.
- ``"signs"``: MATA in that half, and the same rule with the opposite sign in the other heads. Dose-matched.
- ``"silence"``: zeros in place of the audio, without and with MATA. Not dose-matched, and it cannot be: what
  differs from the study's audio is the input, which has no strength to choose. MATA keeps its alpha and is
  compared with the same input without it; its dose there is recorded.
- ``"reversed"``: the audio backwards, without and with MATA. Not dose-matched, for the same reason.

The same holds for the shams of every study: the sham on text and the random layers are dose-matched, another
clip's audio and omitted audio are not. The headline is MATA against the dose-matched sham on text."""

IN_HEADS = ("heads", "signs")
"""Those whose dose a study matches."""


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
    mata: AttentionEdit,
    shams: Sequence[str],
    heads: Mapping[int, int],
    seed: int,
    alphas: Mapping[str, float] | None = None,
) -> dict[str, Condition]:
    """The conditions of these shams, in the order of `SHAMS`.

    Args:
        mata: the chosen configuration.
        shams: names among `SHAMS`.
        heads: number of query heads of each decoder layer.
        seed: seed of the random halves.
        alphas: strength of ``"heads"`` and ``"signs"`` at MATA's dose; None: MATA's own.

    Raises:
        ArgumentError: there is no such sham, or a layer has a single head to draw from.
    """
    names = check_shams(shams)
    conditions: dict[str, Condition] = {}
    strengths = dict.fromkeys(IN_HEADS, mata.alpha) | dict(alphas or {})
    if "heads" in names:
        edits = edits_in_heads(mata, "heads", heads, seed, strengths["heads"])
        conditions["mata in random heads"] = Condition(edits, role="sham_random_heads")
    if "signs" in names:
        edits = edits_in_heads(mata, "signs", heads, seed, strengths["signs"])
        conditions["mata with random signs"] = Condition(edits, role="sham_random_signs")
    if "silence" in names:
        conditions["silence"] = Condition(audio="silence", role="silence")
        conditions["mata + silence"] = Condition(mata, audio="silence", role="mata_silence")
    if "reversed" in names:
        conditions["reversed audio"] = Condition(audio="reversed", role="reversed_audio")
        conditions["mata + reversed audio"] = Condition(mata, audio="reversed", role="mata_reversed_audio")
    return conditions


def edits_in_heads(
    mata: AttentionEdit, sham: str, heads: Mapping[int, int], seed: int, alpha: float
) -> tuple[AttentionEdit, ...]:
    """The edits of the sham ``"heads"`` or ``"signs"``.

    Args:
        mata, heads, seed: as in `extra_shams`.
        sham: ``"heads"`` or ``"signs"``.
        alpha: strength, above 0.

    Raises:
        ArgumentError: a layer has a single head to draw from.
    """
    half, rest = _halves(mata, heads, seed)
    raised = replace(mata, alpha=alpha, heads=half)
    return (raised,) if sham == "heads" else (raised, replace(mata, alpha=-alpha, heads=rest))


def share_of_heads(mata: AttentionEdit, sham: str, heads: Mapping[int, int]) -> float:
    """Fraction of MATA's edited heads that the sham edits: ``"signs"`` edits all of them.

    Args:
        mata, heads: as in `extra_shams`.
        sham: ``"heads"`` or ``"signs"``.
    """
    counts = [len(mata.heads_of(layer) or range(heads[layer])) for layer in mata.layers]
    return 1.0 if sham == "signs" else sum(count // 2 for count in counts) / sum(counts)


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
