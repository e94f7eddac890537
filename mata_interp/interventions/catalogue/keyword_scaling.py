"""Keyword scaling: the scores of audio are multiplied for the question's keywords and the last token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["KeywordScaling"]

FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been by can could did do does for from had has have how if in is it its many "
        "may most much of on one or over than that the their them then there these they this to under was "
        "were what when where which who whose why will with would you your",
    )
)


@register
@dataclass(frozen=True)
class KeywordScaling(Method):
    """Scaling at the keywords, as described by a digest of arXiv 2606.17417 (its code was not seen).

    The digest names three sets of queries, of which keywords and the last token together are the best, and
    does not say how keywords are chosen. Here they are all words of the question but English function words,
    or those of ``words``.

    Attributes:
        factor: above 1 sharpens, below 1 smooths; 1 changes nothing.
        last: whether the last token of the prompt and those of the answer are edited, too.
        words: the keywords, in lower case; (): all words of the question that carry content.
    """

    factor: float = 2.0
    last: bool = True
    words: tuple[str, ...] = ()
    queries: str = field(default="all", kw_only=True)
    formula = "A w on audio, for the keywords of the question and the last token"
    source = "arXiv 2606.17417 (digest)"

    def measure(self, lalm: Any, prompt: Any) -> Mapping[str, Tensor]:
        """Which tokens of the prompts are edited: bool [B, P].

        Raises:
            InterventionError: a prompt has no keyword in its question.
        """
        tokenizer = getattr(lalm.processor, "tokenizer", None)
        if tokenizer is None:
            raise InterventionError("Keywords need a tokenizer: this model has no processor.")
        chosen = torch.zeros_like(prompt.groups["question"])
        for row, question in enumerate(prompt.groups["question"]):
            places = question.nonzero().flatten().tolist()
            ids = prompt.inputs["input_ids"][row, places].tolist()
            for place, is_keyword in zip(places, self._keywords(tokenizer, ids), strict=True):
                chosen[row, place] = is_keyword
            if not chosen[row].any():
                raise InterventionError(f"Row {row} of the prompt has no keyword in its question.")
        if self.last:
            chosen[:, -1] = True
        return {"queries": chosen}

    def _keywords(self, tokenizer: Any, ids: list[int]) -> list[bool]:
        """Whether each token of a question is a part of a keyword."""
        text = tokenizer.decode(ids)
        words = [match for match in re.finditer(r"\w+", text) if self._is_keyword(match[0].lower())]
        ends = [len(tokenizer.decode(ids[: n + 1])) for n in range(len(ids))]
        spans = zip([0, *ends[:-1]], ends, strict=True)
        return [any(begin < word.end() and word.start() < end for word in words) for begin, end in spans]

    def _is_keyword(self, word: str) -> bool:
        return word in self.words if self.words else word not in FUNCTION_WORDS

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        chosen = context.measured["queries"].to(x.device)
        behind = max(0, int(context.positions.max()) + 1 - context.width)
        rows = pad(chosen, (0, behind), value=self.last)[:, context.positions[0]]
        return (x * self.factor).where(context.columns("audio") & rows[:, None, :, None], x)
