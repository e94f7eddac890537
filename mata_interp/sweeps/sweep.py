"""mi.sweep: any number of interventions on the same prompts, for little more than one forward."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from mata_interp.benchmarks import Item
from mata_interp.errors import ModelError
from mata_interp.interventions import Intervention, Mata, in_order
from mata_interp.lalm import Prompt, Reading
from mata_interp.lalm.batching import in_batches

from .answers import Answers
from .editing import TreeEditing
from .memory import configurations_at_once, free_bytes
from .table import table
from .tree import grow

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["SweepWarning", "sweep"]

BATCH = 8
HEAD_BYTES = 256 * 2**20  # of logits at once
BOUND = {torch.float32: 1e-4, torch.float64: 1e-8}  # of the canary's logits; half precision: 0.1

Edits = tuple[Mata, ...]


class SweepWarning(UserWarning):
    """A sweep that had to go the slow way."""


def sweep(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    interventions: Sequence[Intervention] | Mapping[str, Intervention],
    *,
    batch_size: int = BATCH,
    block: int | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """Every intervention on every item, each prompt read once.

    The same numbers as a loop of ``lalm.score`` (items) or ``lalm.logits`` (prompts): an edit of the last
    prompt token's attention, and of the answer's, leaves everything before it as it is, so each configuration
    is one more row over a shared past, and configurations share their rows up to the first layer in which
    they differ.

    Args:
        items: items with options, asked in the default format, or prompts; a prompt of B rows is B items.
        interventions: configurations; of a mapping, its keys name them. None is a configuration, too.
        batch_size: items asked at once. Prompts are batches already.
        block: configurations run at once; as many as a quarter of the free memory holds if not given.

    Returns:
        Items: ``[item, configuration, choice]``, log p of each option in nats, NaN where there is none.
        Prompts: ``[item, configuration, vocab]``, logits at the last prompt token.
        ``canary`` among its attributes is the largest difference between the logits of an unedited row and
        of the plain forward; ``looped`` counts the items that were answered in a plain loop instead, because
        rows cannot run on the model or the canary was off. A `SweepWarning` says why.

    See Also:
        LALM.score_each: the loop, with the dose of each edit.
    """
    given = [items] if isinstance(items, Item | Prompt) else list(items)
    if not given or not interventions:
        raise ValueError("Nothing to sweep: give at least one item and one intervention.")
    if len({isinstance(x, Prompt) for x in given}) > 1:
        raise ValueError("Items and prompts together: sweep them one after the other.")
    named = interventions if isinstance(interventions, Mapping) else dict(enumerate(interventions))
    configurations = [in_order(intervention) for intervention in named.values()]
    for part in (part for parts in configurations for part in parts):
        part.bind(lalm.anatomy.heads)
    found: list[np.ndarray] = []
    asked: list[Item] = []
    canary, looped = 0.0, 0
    with tqdm(total=len(given), desc="sweep", unit="item", disable=not progress) as bar:
        for batch in in_batches(given, batch_size):
            prompt = lalm.place(batch if isinstance(batch, Prompt) else lalm.prompt(batch))
            options = None if isinstance(batch, Prompt) else [item.choices for item in batch]
            try:
                values, off = _rows(lalm, prompt, configurations, options, block)
                canary = max(canary, off)
            except ModelError as problem:
                warnings.warn(SweepWarning(f"{lalm.name} is swept in a plain loop: {problem}"), stacklevel=2)
                values, looped = _loop(lalm, prompt, configurations, options), looped + prompt.size
            found.append(values)
            asked.extend(prompt.items)
            bar.update(1 if isinstance(batch, Prompt) else len(batch))
    kind = "vocab" if isinstance(given[0], Prompt) else "choice"
    return table(lalm, found, asked, named, kind, {"canary": canary, "looped": looped})


@torch.inference_mode()
def _rows(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Edits],
    options: Sequence[Sequence[str]] | None,
    block: int | None,
) -> tuple[np.ndarray, float]:
    """[B, K, C] of options or [B, K, V] of the vocabulary, and how far the canary was off."""
    reading = Reading(lalm.model, lalm.anatomy, prompt)
    last = prompt.inputs["input_ids"][:, -1]
    tokens = (
        [[] for _ in prompt.items]
        if options is None
        else [lalm.option_tokens(item, texts) for item, texts in zip(prompt.items, options, strict=True)]
    )
    answers = Answers(last, tokens)
    width = answers.slots.tokens.shape[1]
    found, worst = [], 0.0
    # alike ones together, so that a block shares most
    order = sorted(range(len(configurations)), key=lambda k: _likeness(configurations[k]))
    step = block or configurations_at_once(
        free_bytes(last.device),
        prompt.size,
        width,
        reading.past,
        max(lalm.anatomy.heads.values()),
        reading.size,
    )
    for begin in range(0, len(order), step):
        some = [(), *(configurations[k] for k in order[begin : begin + step])]  # the canary comes first
        levels, ends = grow(some, lalm.attention_layers)
        parents = {
            layer: torch.tensor(level.parents, device=last.device)
            for layer, level in levels.items()
            if level.branches
        }
        editing = TreeEditing(levels, some, prompt.groups, answers.slots)
        hidden = reading.rows(answers.slots, parents, editing)  # (B, N, S, d)
        plain = reading.head(hidden[:, ends[0], :1])[:, 0]
        off = float((plain.float() - reading.logits.float()).abs().max())
        worst = max(worst, off)
        if not off <= BOUND.get(lalm.dtype, 0.1):
            raise ModelError(f"an unedited row is {off:.2g} off the plain forward's logits.")
        values = _vocabulary(reading, hidden) if options is None else _options(reading, hidden, answers)
        found.append(values[:, list(ends[1:])])
    result = np.concatenate(found, 1)
    return result[:, np.argsort(order)], worst


def _likeness(parts: Edits) -> tuple:
    return tuple(
        (part.layers, part.rule, part.keys, str(part.heads), part.phase, part.alpha) for part in parts
    )


def _vocabulary(reading: Reading, hidden: Tensor) -> np.ndarray:
    """Logits of every node: float32 [B, N, V]."""
    return reading.head(hidden[:, :, 0]).float().cpu().numpy()


def _options(reading: Reading, hidden: Tensor, answers: Answers) -> np.ndarray:
    """log p of every option in every node: float64 [B, N, C]."""
    batch, _, width, _ = hidden.shape
    wanted = torch.tensor([(b, slot, token) for b, _, slot, token in answers.asked], device=hidden.device)
    vocab = reading.logits.shape[-1]
    step = max(1, HEAD_BYTES // (4 * batch * width * vocab))
    told = []
    for some in hidden.split(step, dim=1):
        logp = reading.head(some.flatten(1, 2)).float().log_softmax(-1)
        logp = logp.reshape(batch, some.shape[1], width, vocab)
        told.append(logp[wanted[:, 0], :, wanted[:, 1], wanted[:, 2]].T.double().cpu())  # (n, asked)
    return answers.logprob(torch.cat(told).numpy())


def _loop(
    lalm: LALM, prompt: Prompt, configurations: Sequence[Edits], options: Sequence[Sequence[str]] | None
) -> np.ndarray:
    """The same, one configuration after the other."""
    if options is not None:
        return np.stack([s.logprob for s in lalm.score_each(prompt, options, configurations)], 1)
    return np.stack([lalm.logits(prompt, parts).float().cpu().numpy() for parts in configurations], 1)
