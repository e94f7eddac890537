"""OWL: raise audio and lower text in one pass, the reverse in another, and contrast the two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Composite, Method
from .negatives import SamePrompt, drop_improbable
from .registry import register

__all__ = ["Opposed", "OppositePath", "Owl"]


@register
@dataclass(frozen=True)
class Opposed(Method):
    """Raise the scores of audio and lower those of text: one path of OWL.

    Attributes:
        up: a of audio; negative lowers it.
        down: b of text, the query's own token included; negative raises it.
        ratio: y; where a row's ratio x of attention to audio and to text, the mean over heads, is below it, a
            grows to a + ``growth`` (y - x) / y. 0: a is fixed.
        growth: see ``ratio``.
        most: the largest a that growth may reach.
    """

    up: float = 0.2
    down: float = 0.2
    ratio: float = 0.0
    growth: float = 0.2
    most: float = 0.6
    formula = "A + a |A| on audio, A - b |A| on text; a <- min(most, a + growth (y - x) / y) where x < y"
    source = "CikZ2023/OWL (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        audio, text = context.columns("audio"), context.columns("text")
        lowered = (x - self.down * x.abs()).where(text, x)
        return (x + self._strength(x, audio, text) * x.abs()).where(audio, lowered)

    def _strength(self, x: Tensor, audio: Tensor, text: Tensor) -> Any:
        """a of each row: a number, or [B, 1, Q, 1]."""
        if self.ratio <= 0 or self.up == 0:
            return self.up
        mean = x.softmax(-1).mean(1, keepdim=True)
        on_audio, on_text = ((mean * group).sum(-1, keepdim=True) for group in (audio, text))
        short = (1 - on_audio / on_text.clamp(min=1e-12) / self.ratio).clamp(min=0.0)
        size = (abs(self.up) + self.growth * short).clamp(max=max(self.most, abs(self.up)))
        return math.copysign(1.0, self.up) * size


@register
@dataclass(frozen=True)
class OppositePath(SamePrompt):
    """The logits of OWL: contrast with a pass over the same prompt with the opposite edit.

    Attributes:
        layers_of_path: the layers of that edit.
        up, down: its strengths, from the positive path's.
        ratio: that of `Opposed`.
        contrast: g; 0 changes nothing.
        cutoff: tokens less probable than this part of the most probable one are dropped; 0 drops none.
    """

    layers_of_path: tuple[int, ...]
    up: float = 0.2
    down: float = 0.2
    contrast: float = 2.0
    cutoff: float = 0.1
    ratio: float = 0.0
    formula = "l1 + g (l1 - l2), where p >= cutoff max p"
    source = "CikZ2023/OWL (code read)"

    @property
    def negative_parts(self) -> tuple[Any, ...]:
        """The edit of the other path."""
        return (Opposed(self.layers_of_path, -self.up, -self.down, self.ratio),)

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast."""
        if self.contrast == 0:
            return x
        contrasted = x + self.contrast * (x - self.negative_logits(context))
        return drop_improbable(contrasted, x, self.cutoff)


@register
@dataclass(frozen=True)
class Owl(Composite):
    """OWL (the authors' code was read: CikZ2023/OWL), on audio in place of the image.

    The authors edit the last query in layers 2-32 of 32, and have a variant whose strength grows, up to 0.6,
    where a layer's ratio of image to text is below a reference: set ``ratio``, which depends on the model.

    Attributes:
        up: a; with ``down`` and ``contrast`` 0, nothing changes.
        down: b.
        contrast: g.
        cutoff: tokens less probable than this part of the most probable one are dropped; 0 drops none.
        ratio: y of the adaptive variant, attention to audio over attention to text; 0: a is fixed.
    """

    up: float = 0.2
    down: float = 0.2
    contrast: float = 2.0
    cutoff: float = 0.1
    ratio: float = 0.0
    formula = "path 1: A + a |A| on audio, A - b |A| on text; path 2: signs flipped; l1 + g (l1 - l2)"
    source = "CikZ2023/OWL (code read)"

    @property
    def parts(self) -> tuple[Any, ...]:
        """The edit of the first path, and the contrast with the second."""
        contrast = OppositePath(self.layers, self.up, self.down, self.contrast, self.cutoff, self.ratio)
        return Opposed(self.layers, self.up, self.down, self.ratio), contrast
