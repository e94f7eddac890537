"""Generated answers under any number of interventions, with one prefill per prompt."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.interventions import InterventionLike
from mata_interp.lalm import Decoding, GenerationOutput, Prompt
from mata_interp.lalm.calls.edited_calls import edited_calls
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.decoding import decode, read_to_answer
from mata_interp.lalm.rereading import reread
from mata_interp.lalm.site_hooks import BoundInterventions
from mata_interp.precision import full_precision

from .inputs import SweepInputs, SweepWarning, named_configurations
from .paths import Parts
from .table import configuration_labels, item_coordinates

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["answer_conditions", "sweep_generate"]


def sweep_generate(
    lalm: LALM,
    items: Item | Prompt | Sequence[Item | Prompt],
    interventions: Sequence[InterventionLike] | Mapping[str, InterventionLike],
    *,
    decoding: Decoding | None = None,
    batch_size: int = 8,
    strict: bool = False,
    progress: bool = True,
    prompt_format: str = "options",
) -> xr.Dataset:
    """The answer under every intervention to every item, with one prefill per prompt.

    Token for token what ``lalm.answer`` returns for each alone: edits reach no token before the last of the
    prompt, so what comes before it runs once, and each answer is decoded from there. Edits of the text after
    the audio read that text again, in float32; interventions that edit earlier tokens need a prefill of their
    own. In each batch, the unedited answer from the shared
    prefill is compared with the plain one, and where they differ the batch runs in a plain loop.

    Args:
        lalm: the model.
        items: items (options are not needed) or prompts. Items that cannot be used are left out.
        interventions, batch_size, strict, progress, prompt_format: those of `sweep`.
        decoding: greedy, of at most 64 tokens, if None.

    Returns:
        ``[item, configuration]``: ``text``; ``length``, number of tokens, the end-of-sequence token included;
        ``stopped``, whether the answer reached its end. ``tokens[item, configuration, token]``, -1 after an
        answer. ``looped`` and ``excluded`` are among the attributes, as in `sweep`.

    Warns:
        ExclusionWarning: items were left out.
        SweepWarning: items ran in a plain loop.

    Raises:
        RunError, ItemError, InterventionError: those of `sweep`.

    Example:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(1)
        >>> short = mi.Decoding(max_new_tokens=3)
        >>> mi.sweep_generate(lalm, items, {"none": None}, decoding=short, progress=False)["text"].dims
        ('item', 'configuration')
    """
    decoding = decoding or Decoding()
    inputs = SweepInputs(items, options=False, strict=strict, format=prompt_format)
    configurations = named_configurations(lalm, interventions)
    swept_items: list[Item] = []
    outputs: list[list[GenerationOutput]] = []
    looped = 0
    edits = list(configurations.values())

    def run(prompt: Prompt) -> tuple[list[GenerationOutput], bool]:
        return answer_conditions(lalm, prompt, decoding, edits)

    results = inputs.results(lalm, run, batch_size, progress, "generate", generating=True)
    for prompt, (answers, shared) in results:
        if not shared and looped == 0:
            reason = "the prefill cannot be shared, or the unedited answer from it is another one."
            warnings.warn(SweepWarning(f"{lalm.name} answers in a plain loop: {reason}"), stacklevel=2)
        looped += 0 if shared else prompt.size
        swept_items.extend(prompt.items)
        outputs.append(answers)
    width = max(answers.tokens.shape[1] for batch in outputs for answers in batch)
    both = ("item", "configuration")
    coords: dict[Hashable, Any] = {**item_coordinates(swept_items), **configuration_labels(configurations)}
    return xr.Dataset(
        {
            "text": (both, _joined(outputs, lambda a: np.array(a.texts, dtype=object)).astype(str)),
            "tokens": ((*both, "token"), _joined(outputs, lambda a: _padded(a, width))),
            "length": (both, _joined(outputs, lambda a: a.lengths)),
            "stopped": (both, _joined(outputs, lambda a: a.stopped)),
        },
        coords,
        {
            "model": lalm.name,
            "looped": looped,
            "excluded": inputs.excluded_lines(),
            **{k: v for k, v in decoding.to_dict().items() if v is not None},
        },
    )


@full_precision()
@torch.inference_mode()
def answer_conditions(
    lalm: LALM, prompt: Prompt, decoding: Decoding, configurations: Sequence[Parts]
) -> tuple[list[GenerationOutput], bool]:
    """The answers of one batch under each configuration: what a run measures of it.

    An answer does not depend on which other configurations there are.

    Args:
        lalm: the model.
        prompt: B prompts on the model's device.
        decoding: how the answers are generated.
        configurations: each () or several interventions in order.

    Returns:
        What ``lalm.answer`` returns under each configuration; and whether they share a prefill, which they do
        not where the model cannot or where the unedited answer from it is another one.
    """
    tokenizer = getattr(lalm.processor, "tokenizer", None)
    with exclusive(lalm.structure.decoder):
        cache = read_to_answer(lalm.model, prompt, room=1 + decoding.max_new_tokens)

    def answer(edits: Parts, cache: Any) -> GenerationOutput:
        if not edits:
            with exclusive(lalm.structure.decoder):
                return decode(lalm.model, tokenizer, prompt, decoding, None, cache)
        bound = BoundInterventions(lalm, prompt, edits)
        room = 1 + decoding.max_new_tokens

        def read_and_decode() -> GenerationOutput:
            past = cache
            if past is not None and not bound.shares:
                alone = bound.follows_thoughts  # decoding finds out which tokens are reasoning
                past = None if alone else reread(lalm.model, prompt, past, bound.first, room, lalm.dtype)
            return decode(lalm.model, tokenizer, prompt, decoding, bound, past)

        with exclusive(lalm.structure.decoder), bound.in_force(), edited_calls(lalm.structure, bound) as run:
            answers = run(read_and_decode)
        return replace(answers, dose=bound.dose())

    plain = answer((), None)
    if cache is not None and not torch.equal(answer((), cache).tokens, plain.tokens):
        cache = None
    return [answer(edits, cache) if edits else plain for edits in configurations], cache is not None


def _joined(outputs: Sequence[Sequence[GenerationOutput]], field: Any) -> np.ndarray:
    """[item, configuration, ...] from batches of configurations."""
    return np.concatenate([np.stack([field(answers) for answers in batch], 1) for batch in outputs])


def _padded(answers: GenerationOutput, width: int) -> np.ndarray:
    """Tokens [B, width], -1 after each answer's end."""
    tokens = np.full((len(answers.tokens), width), -1)
    for row, length in enumerate(answers.lengths):
        tokens[row, :length] = answers.tokens[row, :length].cpu().numpy()
    return tokens
