"""What an intervention is: a site in the model, the layers, and a function of the tensor at that site.

A method is a small class with the attributes of `Intervention`. Its ``edit`` receives the tensor at its site
and a `SiteContext`, and returns the new tensor; everything else (finding the site, caches, padding, decoding,
removal of hooks) is done for it. For example, attention heads that are switched off::

    @dataclass(frozen=True)
    class HeadMask:
        layers: tuple[int, ...]
        heads: tuple[int, ...]
        site = "head_output"
        queries, phase = "all", "both"

        def edit(self, x, context):  # [B, H, Q, D]
            x = x.clone()
            x[:, list(self.heads)] = 0.0
            return x
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from mata_interp.errors import InterventionError, unknown_name

from .selection import PHASES, QUERIES

if TYPE_CHECKING:
    from mata_interp.attention import AttentionCall

__all__ = [
    "ATTENTION_SITES",
    "MODULE_SITES",
    "SITES",
    "Intervention",
    "InterventionLike",
    "SiteContext",
    "in_order",
]

ATTENTION_SITES = ("scores", "weights", "head_output")
"""Sites inside the call of the attention function, in the order in which a forward pass reaches them."""

MODULE_SITES = ("keys", "values", "residual")
"""Sites at the output of a module: the key projection, the value projection, a decoder layer."""

SITES = (*ATTENTION_SITES, *MODULE_SITES, "logits")
"""All sites. ``x`` of ``edit`` is, in float32:

``scores``: [B, H, Q, L], before the softmax; -inf where a key is hidden.
``weights``: [B, H, Q, L], after the softmax.
``head_output``: [B, H, Q, Dv], the heads' outputs before the output projection.
``keys``, ``values``: [B, Hkv, Q, D], as the projection makes them, before rotary positions and the cache.
``residual``: [B, Q, d], the output of a decoder layer.
``logits``: [B, Q, V]; ``context.negative`` has the logits of the negative prompt for the same tokens.
"""


@dataclass(frozen=True, eq=False)
class SiteContext:
    """Where the tensor that a method edits comes from.

    Attributes:
        layer: index of the decoder layer; -1 for logits.
        positions: int [1, Q], absolute positions of the queries (tokens) at hand; the first token of the
            answer is at ``width``.
        width: P, the number of tokens of the prompt.
        edited: bool [B, Q], the queries that the method's ``queries`` and ``phase`` select. The result of
            ``edit`` is used there only.
        tokens: group -> bool [B, Q], the group of each token at hand.
        keys: group -> bool [B, L], the group of each key; empty outside of attention.
        key_positions: int [1, L], absolute positions of the keys; empty outside of attention.
        weights: float32 [B, H, Q, L], the attention weights after all edits of scores and weights; for the
            site ``head_output``.
        call: the attention call, for its values and its mask; None outside of attention.
        negative: float32 [B, Q, V], for the site ``logits``.
    """

    layer: int
    positions: Tensor
    width: int
    edited: Tensor
    tokens: Mapping[str, Tensor]
    keys: Mapping[str, Tensor] = field(default_factory=dict)
    key_positions: Tensor = field(default_factory=lambda: torch.zeros(1, 0, dtype=torch.long))
    weights: Tensor | None = None
    call: AttentionCall | None = None
    negative: Tensor | None = None

    def mix(self, weights: Tensor) -> Tensor:
        """Values summed by weights [B, H, Q, L]: float32 [B, H, Q, Dv]."""
        if self.call is None:
            raise InterventionError("Values can be mixed at the sites of attention only.")
        return self.call.mix(weights)


@runtime_checkable
class Intervention(Protocol):
    """A method that changes one site of the model; any class with these attributes is one.

    At the site ``"logits"`` a method has one thing more, ``negative_prompt(lalm, prompt)``, which returns the
    prompt of the extra pass, in rows that answer the same items.

    Attributes:
        site: one of `SITES`.
        layers: decoder layers; empty for logits, and elsewhere for an intervention that does nothing.
        queries: ``"last"``, the last token of the prompt; ``"text"``, all text after the first audio token;
            ``"all"``, every token of the prompt.
        phase: ``"prefill"`` (the prompt), ``"decode"`` (tokens of the answer), ``"both"``, or a part of it:
            ``"reasoning"`` (queries that predict a token of a thought) or ``"answer"`` (the others).

    Examples:
        >>> import mata_interp as mi
        >>> class HeadMask:
        ...     site, layers, queries, phase = "head_output", (4,), "all", "both"
        ...     def edit(self, x, context):  # [B, H, Q, Dv]
        ...         x = x.clone()
        ...         x[:, 0] = 0.0
        ...         return x
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> prompt = lalm.prompt(items[0])
        >>> bool((lalm.logits(prompt, HeadMask()) - lalm.logits(prompt)).abs().max() > 1e-3)
        True
    """

    @property
    def site(self) -> str: ...

    @property
    def layers(self) -> tuple[int, ...]: ...

    @property
    def queries(self) -> str: ...

    @property
    def phase(self) -> str: ...

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The tensor at the site as it should be, in the shape of ``x``; ``x`` itself must stay as it is."""
        ...


InterventionLike: TypeAlias = "Intervention | Sequence[Intervention] | None"
"""What every ``intervention`` argument takes: None, one, or several in order."""


def in_order(intervention: InterventionLike | Any) -> tuple[Any, ...]:
    """The parts of an intervention that edit anything, in the order in which they are performed.

    Raises:
        InterventionError: a part is no intervention, or its site, queries or phase does not exist.
    """
    if intervention is None:
        return ()
    parts: tuple[Any, ...] = (intervention,)
    if isinstance(intervention, Sequence) and not isinstance(intervention, str):
        parts = tuple(intervention)
    for part in parts:
        if not isinstance(part, Intervention):
            raise InterventionError(
                f"{part!r} is not an intervention: pass None, an AttentionEdit such as mi.Mata(...) or a "
                "sequence of them."
            )
        if part.site not in SITES:
            raise InterventionError(unknown_name("site", part.site, SITES))
        if part.queries not in (*QUERIES, "all"):
            raise InterventionError(unknown_name("queries", part.queries, (*QUERIES, "all")))
        if part.phase not in PHASES:
            raise InterventionError(unknown_name("phase", part.phase, PHASES))
    return tuple(part for part in parts if part.layers or part.site == "logits")
