"""TAD: contrastive decoding, and a penalty on "yes" where the audio does not speak for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.attention_edit import indices
from mata_interp.interventions.protocol import SiteContext

from .negatives import Negative
from .registry import register

__all__ = ["Tad"]

YES = ("yes", " yes", "Yes", " Yes")
NO = ("no", " no", "No", " No")


@register
@dataclass(frozen=True)
class Tad(Negative):
    """TAD (the authors' code was read: Changhy26/TAD), for questions that are answered by yes or no.

    At the first token of an answer, the evidence for yes is LSE(yes) - LSE(no) of the logits with audio minus
    that of the logits without, where LSE is over the ids of either. Where it is below the threshold, the
    logits of yes are lowered. `for_model` finds the ids; the authors' lists have Chinese words, too.

    Attributes:
        yes, no: token ids of the two answers.
        strength: a, as in AAD.
        threshold: t.
        penalty: gamma; with ``strength`` 0, nothing changes where this is 0, too.
        negative, clip, seed: what the extra pass is given; see NEGATIVES.
    """

    yes: tuple[int, ...]
    no: tuple[int, ...]
    strength: float = 0.5
    threshold: float = 0.2
    penalty: float = 2.5
    negative: str = "omitted"
    clip: str | None = None
    seed: int = 0
    formula = "(1 + a) l - a l_negative; at the first token, - gamma on yes where its evidence < t"
    source = "Changhy26/TAD (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("yes", "no"):
            object.__setattr__(self, name, indices(getattr(self, name), name))
            if not getattr(self, name):
                raise InterventionError(f"{name} names no token: see Tad.for_model.")

    @classmethod
    def for_model(cls, lalm: Any, yes: Iterable[str] = YES, no: Iterable[str] = NO, **settings: Any) -> Tad:
        """With the first tokens of these words in a model's vocabulary.

        Args:
            lalm: an LALM with a processor.
            yes, no: ways to write the two answers.
            settings: other attributes.
        """
        tokenizer = lalm.processor.tokenizer

        def ids(words: Iterable[str]) -> tuple[int, ...]:
            return tuple({tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words})

        return cls(ids(yes), ids(no), **settings)

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast and the penalty."""
        other = self.negative_logits(context)
        yes, no = list(self.yes), list(self.no)
        with_audio, without = (
            logits[..., yes].logsumexp(-1) - logits[..., no].logsumexp(-1) for logits in (x, other)
        )
        unsupported = (with_audio - without < self.threshold) & (context.positions == context.width - 1)
        edited = (1 + self.strength) * x - self.strength * other
        lowered = torch.where(unsupported[..., None], edited[..., yes] - self.penalty, edited[..., yes])
        return edited.index_copy(-1, torch.tensor(yes, device=x.device), lowered)
