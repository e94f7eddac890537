"""The fixed inputs of one item on one model: what every re-run of its suffix needs, and nothing computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mata_interp.interventions import AttentionEdit
from mata_interp.lalm import PrefillCache, Prompt

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["ContextInputs", "Decision"]


@dataclass(frozen=True)
class Decision:
    """The token that decides between two options, and the tokens before it that the options share.

    "a bell" and "a crow" begin alike, so the prompt's next token does not separate them. The shared tokens
    (``forced``) are appended to the prompt, and the model is asked for the token after them.

    Attributes:
        right: token id by which the right option continues.
        wrong: token id by which the wrong option continues.
        forced: token ids appended to the prompt.
    """

    right: int
    wrong: int
    forced: tuple[int, ...] = ()

    @classmethod
    def between(cls, right: Sequence[int], wrong: Sequence[int], end: int | None) -> Decision | None:
        """The decision between two options, or None if their tokens are equal.

        Args:
            right: token ids of the right option.
            wrong: token ids of the wrong option.
            end: id of the end-of-text token, which follows the shorter of two options that begin alike; None
                if there is no such token.

        >>> Decision.between([5, 6], [5, 6, 7], end=2)
        Decision(right=2, wrong=7, forced=(5, 6))
        """
        ended = [] if end is None else [end]
        for place, (a, b) in enumerate(zip([*right, *ended], [*wrong, *ended], strict=False)):
            if a != b:
                return cls(a, b, tuple(right[:place]))
        return None


@dataclass(frozen=True, eq=False)
class ContextInputs:
    """One prompt on a model, prefilled once.

    Attributes:
        lalm: the model.
        prompt: a prompt of one row, without padding, on the model's device.
        prefill: keys and values of the prompt, computed outside inference mode so that gradients can start
            from them, and without any intervention.
        first_text_token: position of the first text token after the audio. All tokens before it are shared
            by every re-run.
        decision: the token that decides the answer.
        baseline: interventions that are active in every re-run, applied before any that a criterion adds.
    """

    lalm: LALM
    prompt: Prompt
    prefill: PrefillCache
    first_text_token: int
    decision: Decision
    baseline: tuple[AttentionEdit, ...] = ()

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers that have attention."""
        return self.lalm.attention_layers
