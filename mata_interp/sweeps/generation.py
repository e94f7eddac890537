"""Answers in the model's own words under any number of interventions, each prompt read once."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.interventions import Editing, InterventionLike
from mata_interp.lalm import Decoding, GenerationOutput, Prompt
from mata_interp.lalm.decoding import decode, read_to_answer

from .inputs import SweepInputs, SweepWarning, named_configurations
from .shared_prefill import Edits
from .table import configuration_labels, item_coordinates

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["generate"]


def generate(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    interventions: Sequence[InterventionLike] | Mapping[str, InterventionLike],
    decoding: Decoding | None = None,
    *,
    batch_size: int = 8,
    progress: bool = True,
) -> xr.Dataset:
    """Every intervention's answer to every item, each prompt read once for all of them.

    Token for token what ``lalm.answer`` gives for each alone: edits reach no token before the last of the
    prompt, so what comes before it is read once, and each answer is decoded from there. Interventions with
    ``queries="text"`` read their prompt themselves. Of each batch, the unedited answer from the shared
    reading is compared with the plain one, and where they differ the batch is answered in a plain loop.

    Args:
        items: items (options are not needed), asked in the default format, or prompts. Items that cannot be
            used are left out.
        interventions: as of `sweep`.
        decoding: how; greedy, of at most 64 tokens, if not given.

    Returns:
        ``[item, configuration]``: ``text``; ``length``, tokens said, the end mark among them; ``stopped``,
        whether the answer came to its end. ``tokens[item, configuration, token]``, -1 behind an answer.
        ``looped`` and ``excluded`` are among the attributes, as of `sweep`.

    Warns:
        SweepWarning: items were left out, or answered in a plain loop.
    """
    decoding = decoding or Decoding()
    given, configurations = SweepInputs(items, options=False), named_configurations(lalm, interventions)
    asked: list[Item] = []
    found: list[list[GenerationOutput]] = []
    looped = 0
    for prompt in given.batches(lalm, batch_size, progress, "generate"):
        answers, shared = _each(lalm, prompt, decoding, list(configurations.values()))
        if not shared and looped == 0:
            said = "its prompts cannot be read ahead, or are then answered otherwise."
            warnings.warn(SweepWarning(f"{lalm.name} answers in a plain loop: {said}"), stacklevel=2)
        looped += 0 if shared else prompt.size
        asked.extend(prompt.items)
        found.append(answers)
    width = max(answers.tokens.shape[1] for batch in found for answers in batch)
    both = ("item", "configuration")
    coords: dict[Hashable, Any] = {**item_coordinates(asked), **configuration_labels(configurations)}
    return xr.Dataset(
        {
            "text": (both, _joined(found, lambda a: np.array(a.texts, dtype=object)).astype(str)),
            "tokens": ((*both, "token"), _joined(found, lambda a: _padded(a, width))),
            "length": (both, _joined(found, lambda a: a.lengths)),
            "stopped": (both, _joined(found, lambda a: a.stopped)),
        },
        coords,
        {
            "model": lalm.name,
            "looped": looped,
            "excluded": given.told(),
            **{k: v for k, v in decoding.to_dict().items() if v is not None},
        },
    )


@torch.inference_mode()
def _each(
    lalm: LALM, prompt: Prompt, decoding: Decoding, configurations: Sequence[Edits]
) -> tuple[list[GenerationOutput], bool]:
    """The answers under each configuration, and whether the prompt was read once for them."""
    tokenizer = getattr(lalm.processor, "tokenizer", None)
    cache = read_to_answer(lalm.model, prompt, room=1 + decoding.max_new_tokens)

    def answer(edits: Edits, cache: Any) -> GenerationOutput:
        if not edits:
            return decode(lalm.model, tokenizer, prompt, decoding, None, cache)
        editing = Editing(edits, prompt.groups, lalm.structure.heads)
        cache = cache if editing.shares else None
        answers = lalm.instrument.edit(
            lambda: decode(lalm.model, tokenizer, prompt, decoding, editing, cache), editing.layers, editing
        )
        return replace(answers, dose=editing.dose())

    plain = answer((), None)
    if cache is not None and not torch.equal(answer((), cache).tokens, plain.tokens):
        cache = None
    return [answer(edits, cache) if edits else plain for edits in configurations], cache is not None


def _joined(found: Sequence[Sequence[GenerationOutput]], what: Any) -> np.ndarray:
    """[item, configuration, ...] from batches of configurations."""
    return np.concatenate([np.stack([what(answers) for answers in batch], 1) for batch in found])


def _padded(answers: GenerationOutput, width: int) -> np.ndarray:
    """Tokens [B, width], -1 behind each answer's end."""
    tokens = np.full((len(answers.tokens), width), -1)
    for row, length in enumerate(answers.lengths):
        tokens[row, :length] = answers.tokens[row, :length].cpu().numpy()
    return tokens
