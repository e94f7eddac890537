"""OWL: raise audio and lower text in one pass, the reverse in another, and contrast the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Composite, Method
from .negatives import Negative, drop_improbable
from .registry import register

__all__ = ["Opposed", "OppositePath", "Owl"]


@register
@dataclass(frozen=True)
class Opposed(Method):
    """Raise the scores of audio and lower those of text: one path of OWL.

    Attributes:
        up: a of audio; negative lowers it.
        down: b of text, the query's own token included; negative raises it.
    """

    up: float = 0.2
    down: float = 0.2
    formula = "A + a |A| on audio, A - b |A| on text"
    source = "CikZ2023/OWL (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        lowered = (x - self.down * x.abs()).where(context.columns("text"), x)
        return (x + self.up * x.abs()).where(context.columns("audio"), lowered)


@register
@dataclass(frozen=True)
class OppositePath(Negative):
    """The logits of OWL: contrast with a pass over the same prompt with the opposite edit.

    Attributes:
        layers_of_path: the layers of that edit.
        up, down: its strengths, from the positive path's.
        contrast: g; 0 changes nothing.
        cutoff: tokens less probable than this part of the most probable one are dropped; 0 drops none.
    """

    layers_of_path: tuple[int, ...]
    up: float = 0.2
    down: float = 0.2
    contrast: float = 2.0
    cutoff: float = 0.1
    formula = "l1 + g (l1 - l2), where p >= cutoff max p"
    source = "CikZ2023/OWL (code read)"

    negative: ClassVar[str] = "omitted"  # not used: the negative is the prompt itself
    clip: ClassVar[None] = None

    @property
    def negative_parts(self) -> tuple[Any, ...]:
        """The edit of the other path."""
        return (Opposed(self.layers_of_path, -self.up, -self.down),)

    def negative_prompt(self, lalm: Any, prompt: Any) -> Any:
        """The prompt itself."""
        return prompt

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast."""
        if self.contrast == 0:
            return x
        contrasted = x + self.contrast * (x - self.negative_logits(context))
        return drop_improbable(contrasted, x, self.cutoff)


@register
@dataclass(frozen=True)
class Owl(Composite):
    """OWL (the authors' code was read: CikZ2023/OWL), on audio in place of the image, with fixed strengths.

    The authors edit the last query in layers 2-32 of 32, and have a variant whose strength grows, up to 0.6,
    where a layer's ratio of image to text is low, which is not here.

    Attributes:
        up: a; with ``down`` and ``contrast`` 0, nothing changes.
        down: b.
        contrast: g.
        cutoff: tokens less probable than this part of the most probable one are dropped; 0 drops none.
    """

    up: float = 0.2
    down: float = 0.2
    contrast: float = 2.0
    cutoff: float = 0.1
    formula = "path 1: A + a |A| on audio, A - b |A| on text; path 2: signs flipped; l1 + g (l1 - l2)"
    source = "CikZ2023/OWL (code read)"

    @property
    def parts(self) -> tuple[Any, ...]:
        """The edit of the first path, and the contrast with the second."""
        contrast = OppositePath(self.layers, self.up, self.down, self.contrast, self.cutoff)
        return Opposed(self.layers, self.up, self.down), contrast
