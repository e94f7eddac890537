"""Option scores with doses under several interventions, from one prefill: what a run measures of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from mata_interp.errors import ModelError
from mata_interp.interventions import DOSE, AttentionEdit, InterventionLike, in_order
from mata_interp.interventions.editing import mean_dose
from mata_interp.interventions.selection import refuse_reasoning_phase
from mata_interp.interventions.spans import with_spans
from mata_interp.lalm import OptionScores, PrefillCache, Prompt
from mata_interp.lalm.discovery.experts import experts_of
from mata_interp.lalm.rereading import EXACT, keeps_states
from mata_interp.lalm.site_hooks import check_sites
from mata_interp.precision import full_precision

from .batch_rows import in_batch
from .canary import token_counts
from .inputs import SweepWarning
from .memory import LIMIT, MOST, configuration_bytes
from .paths import Parts, path_of
from .shared_prefill import on_prefill, with_prefill

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["score_conditions"]


@full_precision()
@torch.inference_mode()
def score_conditions(
    lalm: LALM,
    prompt: Prompt,
    choices: Sequence[Sequence[str]],
    interventions: Sequence[InterventionLike],
) -> list[OptionScores]:
    """What `LALM.score_each` returns, with attention edits as rows over the same prefill.

    Two or more conditions that edit attention or nothing run together, as in a `sweep`, and their doses are
    measured on the way; other methods run one after the other, on the same prefill. On architectures that
    keep a state, these conditions are rows of a larger batch. All conditions run in the
    loop of ``score_each``, which has one prefill as well, in half precision, in a mixture of experts (where
    rounding can choose another expert), and on models that rows cannot run on.

    Args:
        lalm: the model.
        prompt: B prompts.
        choices: the options of each prompt.
        interventions: each None, one, or several in order.

    Returns:
        The scores under each intervention. Log p of options differs from that of ``score_each`` by rounding
        of float32 alone.

    Warns:
        SweepWarning: rows cannot run on this model, or an unedited row differs from the plain forward.

    Raises:
        ItemError, ModelError, InterventionError: those of ``score_each``.

    Example:
        >>> import mata_interp as mi
        >>> from mata_interp.sweeps.condition_scores import score_conditions
        >>> lalm, item = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[0]
        >>> edits = [None, mi.Mata(1.0, [3, 4]), mi.Mata(2.0, [3, 4])]
        >>> len(score_conditions(lalm, lalm.prompt(item), [item.choices], edits))
        3
    """
    parts = [in_order(intervention) for intervention in interventions]
    states = keeps_states(lalm.model)
    rows = [k for k, some in enumerate(parts) if _runs_together(some, states)]
    prompt = lalm.prepare(prompt)
    exact = lalm.dtype in EXACT and not experts_of(lalm.structure.blocks)
    if len(rows) < 2 or not exact or "position_ids" in prompt.inputs:
        return lalm.score_each(prompt, choices, interventions)
    refuse_reasoning_phase(part for some in parts for part in some)
    others = [k for k in range(len(parts)) if k not in set(rows)]

    def run(prefill: PrefillCache | None) -> dict[int, OptionScores]:
        edits = [parts[k] for k in rows]
        together = (
            _in_batch(lalm, prompt, choices, edits)
            if prefill is None
            else _in_rows(lalm, prompt, choices, edits, prefill)
        )
        scores = dict(zip(rows, together, strict=True))
        if others:
            cached = prefill if _keeps_all_keys(lalm) else None
            alone = lalm.score_each(prompt, choices, [interventions[k] for k in others], prefill=cached)
            scores |= zip(others, alone, strict=True)
        return scores

    try:
        scores = run(None) if states else with_prefill(lalm, prompt, run)
    except ModelError as problem:
        reason = str(problem).rstrip(".")
        warnings.warn(SweepWarning(f"{lalm.name} answers in a plain loop: {reason}."), stacklevel=2)
        return lalm.score_each(prompt, choices, interventions)
    return [scores[k] for k in range(len(parts))]


def _runs_together(parts: Parts, states: bool) -> bool:
    """Whether a condition runs together with others; ``states`` is that of `path_of`."""
    return path_of(parts, True, states) == "batch" or (
        not states and all(isinstance(part, AttentionEdit) for part in parts)
    )


def _in_batch(
    lalm: LALM, prompt: Prompt, choices: Sequence[Sequence[str]], configurations: Sequence[Parts]
) -> list[OptionScores]:
    """The scores of conditions that are rows of a larger batch."""
    tokens = [lalm.option_tokens(item, texts) for item, texts in zip(prompt.items, choices, strict=True)]
    check_sites(lalm.structure, [part for some in configurations for part in some])
    values, _, doses = in_batch(lalm, prompt, configurations, tokens)
    counts = token_counts(tokens, (prompt.size, values.shape[2]))
    return [OptionScores(values[:, k], counts, dose) for k, dose in enumerate(doses)]


def _in_rows(
    lalm: LALM,
    prompt: Prompt,
    choices: Sequence[Sequence[str]],
    configurations: Sequence[Parts],
    prefill: PrefillCache,
) -> list[OptionScores]:
    """The scores of attention edits."""
    tokens = [lalm.option_tokens(item, texts) for item, texts in zip(prompt.items, choices, strict=True)]
    every = [part for some in configurations for part in some]
    check_sites(lalm.structure, every)
    grouped = replace(prompt, groups=with_spans(prompt.groups, every, prompt.audio_seconds))
    sums = np.zeros((1 + len(DOSE), prompt.size, len(configurations)))
    block = _conditions_at_once(lalm, prompt, prefill, tokens)
    values, _ = on_prefill(lalm, grouped, configurations, tokens, block, prefill, sums)
    counts = token_counts(tokens, (prompt.size, values.shape[2]))
    return [
        OptionScores(values[:, k], counts, mean_dose(torch.from_numpy(sums[:, :, k])) if parts else {})
        for k, parts in enumerate(configurations)
    ]


def _conditions_at_once(
    lalm: LALM, prompt: Prompt, prefill: PrefillCache, tokens: Sequence[Sequence[Sequence[int]]]
) -> int:
    """Conditions in a block: a number that depends on sizes alone, so that a run repeats bit for bit."""
    slots = 1 + max(sum(len(option) - 1 for option in options) for options in tokens)
    heads = max(lalm.structure.heads.values())
    # twice: scores before and after each edit are kept until their dose is measured
    each = 2 * configuration_bytes(prompt.size, slots, prefill.length, heads, prefill.size)
    return min(MOST, max(1, LIMIT // each))


def _keeps_all_keys(lalm: LALM) -> bool:
    """Whether the model's own cache keeps the keys of all tokens, as that of a prefill does."""
    decoder: Any = lalm.structure.decoder
    layers = DynamicCache(config=decoder.config).layers
    return not any(getattr(layer, "is_sliding", False) for layer in layers)
