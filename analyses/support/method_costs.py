"""What a method costs, counted in tokens that the decoder reads; no clock is involved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mata_interp as mi

__all__ = ["relative_cost"]

ANSWER = 8  # tokens


def relative_cost(lalm: mi.LALM, item: mi.Item, intervention: Any) -> dict[str, float]:
    """Tokens that the decoder reads for a prompt and for a token of an answer, relative to none.

    Passes that a method needs beforehand belong to the prompt. What an edit computes inside attention is not
    counted: it is small beside a token of the decoder.

    Args:
        lalm: the model.
        item: any item.
        intervention: the method.

    Returns:
        ``prompt`` and ``token``, ratios from 1 on.
    """
    prompt = lalm.prompt(item)
    word = lalm.processor.tokenizer.decode(lalm.option_tokens(item, item.choices)[0])
    option = " ".join([word] * ANSWER)

    def answer(parts: Any) -> int:
        with _counted(lalm) as passes:
            lalm.score(prompt, [option], parts)
        return sum(passes)

    def read(parts: Any) -> int:
        with _counted(lalm) as passes:
            lalm.logits(prompt, parts)
        return sum(passes)

    lalm.logits(prompt)  # a new model checks its audio tokens once
    whole, alone = read(intervention), read(None)
    behind = [answer(parts) - _first(lalm, prompt, option, parts) for parts in (intervention, None)]
    return {"prompt": whole / alone, "token": behind[0] / behind[1]}


def _first(lalm: mi.LALM, prompt: mi.Prompt, option: str, intervention: Any) -> int:
    """Tokens that are read for an option of a single token, which needs no pass behind the prompt."""
    first = lalm.processor.tokenizer.decode(lalm.option_tokens(prompt.items[0], [option])[0][:1])
    with _counted(lalm) as passes:
        lalm.score(prompt, [first], intervention)
    return sum(passes)


@contextmanager
def _counted(lalm: mi.LALM) -> Iterator[list[int]]:
    """Inside, the number of tokens of each pass of the decoder is noted."""
    passes: list[int] = []

    def note(_: Any, args: tuple, kwargs: dict) -> None:
        inputs = kwargs.get("inputs_embeds", kwargs.get("input_ids", args[0] if args else None))
        assert inputs is not None
        passes.append(inputs.shape[0] * inputs.shape[1])

    handle = lalm.structure.decoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()
