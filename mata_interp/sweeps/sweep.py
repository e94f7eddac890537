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

from .canary import STEPS, Rounding, token_counts
from .inputs import SweepInputs, SweepWarning, named_configurations
from .shared_prefill import Edits, shared
from .table import table

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["sweep"]

BATCH = 8
SLACK = 4  # an edit sharpens attention, which amplifies rounding beyond what the unedited row shows


def sweep(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    interventions: Sequence[InterventionLike] | Mapping[str, InterventionLike],
    *,
    batch_size: int = BATCH,
    block: int | None = None,
    strict: bool = False,
    progress: bool = True,
) -> xr.DataArray:
    """Every intervention on every item, with one prefill per prompt.

    The same numbers as a loop of ``lalm.score`` (items) or ``lalm.logits`` (prompts). An edit of the
    attention of the last prompt token and of the answer leaves everything before it as it is, so each
    configuration is one more row over a shared prefix, and configurations share their rows up to the first
    layer in which they differ. Edits of all text (``queries="text"``) share the audio and what is before it,
    and rerun the text. Every block has one row that is not edited, the canary: where it differs from the
    plain forward, the batch runs in a plain loop instead, which is exact and slow. In a mixture of experts,
    rounding can choose another expert in an edited row alone: there one edited configuration per sweep is
    compared with the loop, at the cost of one more prefill of the first batch.

    Args:
        lalm: the model.
        items: items with options, asked in the default format, or prompts; a prompt of B rows is B items.
            Items that cannot be used are left out.
        interventions: configurations of attention edits; a mapping names them. None is a configuration, too.
        batch_size: items in a batch. Prompts are batches already.
        block: configurations that run at once; as many as a quarter of the free memory holds if None.
        strict: raise an error for the first item that cannot be used, instead of leaving it out.
        progress: show a progress bar.

    Returns:
        Items: ``[item, configuration, choice]``, log p of each option in nats, NaN where there is none.
        Prompts: ``[item, configuration, vocab]``, logits at the last prompt token.
        Attributes: ``canary``, the largest difference between the unedited row and the plain forward in
        logits and in log p per token of an option, in steps of the number format at the largest logit;
        ``looped``, how many items ran in a plain loop because rows cannot run on the model or the canary was
        off, and ``culprits``, why (layer and item); ``excluded``, the items left out, with reasons.
        `save_sweep` writes a file, and so does ``to_netcdf``.

    Warns:
        ExclusionWarning: items were left out.
        SweepWarning: items ran in a plain loop.

    Raises:
        RunError: no item can be used.
        ItemError: an item cannot be used, with ``strict``.
        InterventionError: a configuration names what the model or a prompt does not have, or acts on another
            site than attention scores.

    See Also:
        LALM.score_each: the loop, with the dose of each edit.
        sweep_generate: generated answers.

    Example:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(2)
        >>> swept = mi.sweep(lalm, items, {"none": None, "mata": mi.Mata(1.0, [3, 4])}, progress=False)
        >>> swept.dims
        ('item', 'configuration', 'choice')
    """
    inputs = SweepInputs(items, strict=strict)
    configurations = named_configurations(lalm, interventions)
    note_unchecked(lalm)
    edits = list(configurations.values())
    batches: list[np.ndarray] = []
    swept_items: list[Item] = []
    culprits: list[str] = []
    canary, looped, verified = 0.0, 0, not experts_of(lalm.structure.blocks)
    for prompt in inputs.prompts(lalm, batch_size, progress, "sweep"):
        options = tokens = None
        if inputs.kind is Item:
            options = [list(item.choices) for item in prompt.items]
            tokens = [lalm.option_tokens(item, item.choices) for item in prompt.items]
        try:
            values, off = shared(lalm, prompt, edits, tokens, block)
            canary = max(canary, off)
            if not verified:
                _verify_against_loop(lalm, prompt, edits, options, values)
                verified = True
        except ModelError as problem:
            if not culprits:
                text = f"{lalm.name} is swept in a plain loop: {problem}"
                warnings.warn(SweepWarning(text), stacklevel=2)
            culprits.append(str(problem))
            values, looped = _loop(lalm, prompt, edits, options), looped + prompt.size
        batches.append(values)
        swept_items.extend(prompt.items)
    attrs = {
        "canary": canary,
        "looped": looped,
        "culprits": "\n".join(dict.fromkeys(culprits)),
        "excluded": inputs.excluded_lines(),
    }
    kind = "vocab" if inputs.kind is Prompt else "choice"
    return table(lalm, batches, swept_items, configurations, kind, attrs)


def _verify_against_loop(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Edits],
    options: Sequence[Sequence[str]] | None,
    values: np.ndarray,
) -> None:
    """Compare the configuration that edits most with the loop.

    Raises:
        ModelError: rows differ from the loop.
    """
    edited = [k for k, parts in enumerate(configurations) if parts]
    if not edited:
        return
    chosen = max(edited, key=lambda k: sum(len(part.layers) * abs(part.alpha) for part in configurations[k]))
    found, loop = values[:, chosen], _loop(lalm, prompt, [configurations[chosen]], options)[:, 0]
    if options is None:
        rounding = Rounding.at(lalm.dtype, loop)
        off = rounding.of_logits(found, loop)
    else:
        rounding = Rounding.at(lalm.dtype, lalm.logits(prompt, configurations[chosen]).float().cpu().numpy())
        tokens = [lalm.option_tokens(i, texts) for i, texts in zip(prompt.items, options, strict=True)]
        off = rounding.of_options(found, loop, token_counts(tokens, loop.shape))
    allowed = SLACK * STEPS[lalm.dtype]
    if not (off <= allowed).all():
        worst = int(np.nan_to_num(off, nan=np.inf).argmax())
        raise ModelError(
            f"an edited row is {off[worst]:.3g} steps of the number format off the plain loop "
            f"(of {rounding.step[worst]:.2g} each; {allowed} are allowed), in item "
            f"{prompt.items[worst].id!r}."
        )


def _loop(
    lalm: LALM, prompt: Prompt, configurations: Sequence[Edits], options: Sequence[Sequence[str]] | None
) -> np.ndarray:
    """The same values, one configuration after the other."""
    if options is not None:
        return np.stack([s.logprob for s in lalm.score_each(prompt, options, configurations)], 1)
    return np.stack([lalm.logits(prompt, parts).float().cpu().numpy() for parts in configurations], 1)
