"""Activation patching: states or head outputs of a run on other audio in place of the model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mata_interp.errors import InterventionError, unknown_name
from mata_interp.interventions.protocol import SiteContext
from mata_interp.interventions.selection import select_heads

from .method import Method
from .negatives import check_negative, negative_prompt
from .registry import register

__all__ = ["ActivationPatch"]

PATCHED = ("residual", "head_output")


@register
@dataclass(frozen=True)
class ActivationPatch(Method):
    """The output of a layer, or of some heads, from a run of the same question on other audio.

    Activation patching (Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2024, arXiv 2309.16042). The run on
    the other audio is without any intervention. In a sweep, patches at the last token or in the text after
    the audio are rows over the shared prefill.

    Attributes:
        layers: whose outputs are patched.
        site: ``"residual"``, the output of the layer, or ``"head_output"``, that of its attention heads.
        heads: for heads, those that are patched in each layer, one tuple per layer; empty: all.
        at: the tokens that are patched, counted from the last token of the prompt: 0 is this token, -1 the
            one before it. Others than 0 need ``queries="text"``, or ``"all"`` for tokens before the text.
        negative: the other audio, one of NEGATIVES that keep the words of the prompt.
        clip: path of the audio, for ``negative="another"``.
        seed: of the noise, for ``negative="noised"``.

    Raises:
        InterventionError: there is no such site or negative, or a field does not fit the others.
    """

    one_per_layer: ClassVar[bool] = True
    in_rows: ClassVar[bool] = True
    site: str = "residual"
    heads: tuple[tuple[int, ...], ...] = ()
    at: tuple[int, ...] = (0,)
    negative: str = "silent"
    clip: str | None = None
    seed: int = 0
    formula = "x of the run on the negative"
    source = "this package, after arXiv 2202.05262 and arXiv 2309.16042"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.site not in PATCHED:
            raise InterventionError(unknown_name("site", self.site, PATCHED))
        if self.negative in ("omitted", "ignored"):
            raise InterventionError(
                f"negative={self.negative!r} has other tokens: there is no state to patch."
            )
        check_negative(self)
        if self.heads and (self.site != "head_output" or len(self.heads) != len(self.layers)):
            raise InterventionError("heads has one tuple for each layer, and belongs to site='head_output'.")
        if not self.at or max(self.at) > 0 or any(type(place) is not int for place in self.at):
            raise InterventionError(f"at is {self.at}: whole numbers up to 0, the last token of the prompt.")
        if self.queries == "last" and self.at != (0,):
            raise InterventionError(f"at={self.at} names tokens before the last one: pass queries='text'.")

    def measure(self, lalm: Any, prompt: Any) -> Mapping[str, Tensor]:
        """The states of the other run: float32 [B, n, S, d] or, of heads, [B, n, H, S, Dv], for n layers and
        the last S tokens."""
        other = negative_prompt(lalm, prompt, self.negative, self.clip, self.seed)
        read = lalm.hidden_states if self.site == "residual" else lalm.head_outputs
        return {"states": read(other, self.layers, last=1 - min(self.at))}

    def at_layer(self, layer: int) -> ActivationPatch:
        """The same patch in one of its layers alone: equal patches there share their rows of a sweep."""
        heads = (self.heads[self.layers.index(layer)],) if self.heads else ()
        return replace(self, layers=(layer,), heads=heads)

    @staticmethod
    def measure_together(
        lalm: Any, prompt: Any, patches: Sequence[ActivationPatch]
    ) -> dict[ActivationPatch, Mapping[str, Tensor]]:
        """What `measure` returns for each of several patches, with one run for all that have the same audio,
        site and tokens."""
        alike: dict[ActivationPatch, list[ActivationPatch]] = {}
        for patch in patches:
            alike.setdefault(replace(patch, layers=(), heads=()), []).append(patch)
        measured = {}
        for some in alike.values():
            layers = sorted({layer for patch in some for layer in patch.layers})
            states = replace(some[0], layers=layers, heads=()).measure(lalm, prompt)["states"]
            for patch in some:
                measured[patch] = {"states": states[:, [layers.index(layer) for layer in patch.layers]]}
        return measured

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The tensor at the site [B, Q, d] or [B, H, Q, Dv] with the states of the other run."""
        at = self.layers.index(context.layer)
        states = context.measured["states"][:, at].to(x.device)
        places = context.positions - (context.width - 1)  # (B|1, Q), 0 at the last token of the prompt
        chosen = torch.isin(places, torch.tensor(self.at, device=places.device)).expand(len(x), -1)
        index = (places + states.shape[-2] - 1).clamp(0, states.shape[-2] - 1).expand(len(x), -1)
        if x.dim() == 3:
            patched = states.gather(1, index[:, :, None].expand(-1, -1, states.shape[-1]))
            return patched.where(chosen[:, :, None], x)
        patched = states.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, states.shape[-1]))
        heads = select_heads(self.heads[at] if self.heads else None, x.shape[1], x.device)
        return patched.where(chosen[:, None, :, None] & heads[:, None, None], x)
