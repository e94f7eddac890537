"""mi.sweep: any number of interventions on the same prompts, for little more than one forward."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.errors import ModelError
from mata_interp.interventions import InterventionLike
from mata_interp.lalm import Prompt
from mata_interp.lalm.discovery.experts import experts_of
from mata_interp.lalm.verification import note_unchecked

from .inputs import SweepInputs, SweepWarning, named_configurations
from .shared_prefill import BOUND, Edits, shared
from .table import table

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["sweep"]

BATCH = 8
SLACK = 4  # an edit sharpens attention, which makes more of rounding than the unedited row shows


def sweep(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    interventions: Sequence[InterventionLike] | Mapping[str, InterventionLike],
    *,
    batch_size: int = BATCH,
    block: int | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """Every intervention on every item, each prompt read once.

    The same numbers as a loop of ``lalm.score`` (items) or ``lalm.logits`` (prompts). An edit of the last
    prompt token's attention, and of the answer's, leaves everything before it as it is, so each configuration
    is one more row over a shared past, and configurations share their rows up to the first layer in which
    they differ. Edits of all text (``queries="text"``) share the sound and what stands before it, and run the
    text anew. With every block goes a row that is not edited, the canary: where it is not the plain forward,
    the batch is answered in a plain loop instead, which is exact and slow. In a mixture of experts, rounding
    can choose another expert in an edited row alone: there one edited configuration is compared with the loop
    once a sweep, at the cost of one more reading of the first batch.

    Args:
        items: items with options, asked in the default format, or prompts; a prompt of B rows is B items.
            Items that cannot be used are left out.
        interventions: configurations; of a mapping, its keys name them. None is a configuration, too.
        batch_size: items asked at once. Prompts are batches already.
        block: configurations run at once; as many as a quarter of the free memory holds if not given.

    Returns:
        Items: ``[item, configuration, choice]``, log p of each option in nats, NaN where there is none.
        Prompts: ``[item, configuration, vocab]``, logits at the last prompt token.
        Attributes: ``canary``, the largest difference between what the unedited row and the plain forward say
        of next tokens and of options, relative to the size of the logits and of each log p; ``looped``, how
        many items were answered in a plain loop because rows cannot run on the model or the canary was off,
        and ``culprits``, why (layer and item); ``excluded``, what was left out, and why.

    Warns:
        SweepWarning: items were left out, or answered in a plain loop.

    Raises:
        RunError: no item can be used.
        InterventionError: a configuration names what the model or a prompt does not have.

    See Also:
        LALM.score_each: the loop, with the dose of each edit.
        mata_interp.sweeps.generate: answers in the model's own words.
    """
    given, configurations = SweepInputs(items), named_configurations(lalm, interventions)
    note_unchecked(lalm)
    edits = list(configurations.values())
    found: list[np.ndarray] = []
    asked: list[Item] = []
    culprits: list[str] = []
    canary, looped, verified = 0.0, 0, not experts_of(lalm.structure.blocks)
    for prompt in given.batches(lalm, batch_size, progress, "sweep"):
        options = None if given.kind is Prompt else [list(item.choices) for item in prompt.items]
        tokens = (
            None if options is None else [lalm.option_tokens(item, item.choices) for item in prompt.items]
        )
        try:
            values, off = shared(lalm, prompt, edits, tokens, block)
            canary = max(canary, off)
            if not verified:
                _verify_against_loop(lalm, prompt, edits, options, values)
                verified = True
        except ModelError as problem:
            if not culprits:
                said = f"{lalm.name} is swept in a plain loop: {problem}"
                warnings.warn(SweepWarning(said), stacklevel=2)
            culprits.append(str(problem))
            values, looped = _loop(lalm, prompt, edits, options), looped + prompt.size
        found.append(values)
        asked.extend(prompt.items)
    notes = {
        "canary": canary,
        "looped": looped,
        "culprits": "\n".join(dict.fromkeys(culprits)),
        "excluded": given.told(),
    }
    return table(lalm, found, asked, configurations, "vocab" if given.kind is Prompt else "choice", notes)


def _verify_against_loop(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Edits],
    options: Sequence[Sequence[str]] | None,
    values: np.ndarray,
) -> None:
    """Compare the configuration edited most with the loop; ModelError where rows say something else."""
    edited = [k for k, parts in enumerate(configurations) if parts]
    if not edited:
        return
    chosen = max(edited, key=lambda k: sum(len(part.layers) * abs(part.alpha) for part in configurations[k]))
    loop = _loop(lalm, prompt, [configurations[chosen]], options)[:, 0]
    size = np.abs(loop).clip(1) if options is not None else np.abs(loop).max(1, keepdims=True).clip(1)
    off = np.nan_to_num(np.abs(values[:, chosen] - loop) / size, nan=0.0).max(1)  # (B,)
    bound = SLACK * BOUND[lalm.dtype]
    if not (off <= bound).all():
        raise ModelError(
            f"an edited row is {off.max():.2g} off the plain loop (relative, and {bound:g} is allowed), "
            f"in item {prompt.items[int(off.argmax())].id!r}."
        )


def _loop(
    lalm: LALM, prompt: Prompt, configurations: Sequence[Edits], options: Sequence[Sequence[str]] | None
) -> np.ndarray:
    """The same, one configuration after the other."""
    if options is not None:
        return np.stack([s.logprob for s in lalm.score_each(prompt, options, configurations)], 1)
    return np.stack([lalm.logits(prompt, parts).float().cpu().numpy() for parts in configurations], 1)
