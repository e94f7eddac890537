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

from .selection import PHASES, QUERIES, TEXT

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
        positions: int [1, Q], absolute positions of the current queries (tokens); the first token of the
            answer is at ``width``.
        width: P, the number of tokens of the prompt.
        edited: bool [B, Q], the queries that the method's ``queries`` and ``phase`` select. The result of
            ``edit`` is used there only.
        tokens: group -> bool [B, Q], the group of each current token.
        keys: group -> bool [B, L], the group of each key; empty outside of attention.
        key_positions: int [1, L], absolute positions of the keys; empty outside of attention.
        weights: float32 [B, H, Q, L], the attention weights after all edits of scores and weights; for the
            site ``head_output``.
        call: the attention call, for its values and its mask; None outside of attention.
        negative: float32 [B, Q, V], for the site ``logits``.
        early: float32 [n, B, Q, V], for the site ``logits``: the logits that the final norm and the output
            head make of the outputs of the layers in the method's ``early_layers``.
        confidence: float32 [B, Q], for methods with ``needs_confidence``: the largest probability when the
            token before each query was followed; NaN for tokens of the prompt.
        measured: what the method's ``measure`` returned for this prompt.
        counts: what a method counts inside attention, set by its ``edit``: name -> bool [B, H, Q]. The dose
            has the fraction of edited rows and heads, such as ``left_alone``.
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
    early: Tensor | None = None
    confidence: Tensor | None = None
    measured: Mapping[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def columns(self, keys: str) -> Tensor:
        """Which keys a name stands for: bool [B, 1, 1, L].

        Args:
            keys: a group of tokens, ``"text"`` (all groups of text) or ``"prompt"`` (all but the answer).

        Raises:
            InterventionError: there is no such group.
        """
        return self._union(keys, self.keys)[:, None, None]

    def rows(self, keys: str) -> Tensor:
        """Which of the current tokens a name stands for: bool [B, Q]; ``keys`` is that of `columns`."""
        return self._union(keys, self.tokens)

    @staticmethod
    def _union(name: str, groups: Mapping[str, Tensor]) -> Tensor:
        if name in groups:
            return groups[name]
        if name not in ("text", "prompt"):
            raise InterventionError(unknown_name("group", name, ["text", "prompt", *groups]))
        names = TEXT if name == "text" else [group for group in groups if group != "generated"]
        return torch.stack([groups[group] for group in names]).any(0)

    def mix(self, weights: Tensor) -> Tensor:
        """Values summed by weights [B, H, Q, L]: float32 [B, H, Q, Dv]."""
        if self.call is None:
            raise InterventionError("Values can be mixed at the sites of attention only.")
        return self.call.mix(weights)


@runtime_checkable
class Intervention(Protocol):
    """A method that changes one site of the model; any class with these attributes is one.

    A method may have more, each of which is asked for only where the class has it:

    ``measure(lalm, prompt)`` runs before anything is edited and returns name -> tensor [B, ...], one row for
    each prompt, which ``edit`` finds in ``context.measured``: hidden states, or how sure the model is.

    ``needs_confidence = True``: ``context.confidence`` is set, and options are read token by token.

    At the site ``"logits"``, ``negative_prompt(lalm, prompt)`` returns the prompt of an extra pass, in rows
    that answer the same items; ``negative_parts`` are interventions in attention that are in force in that
    pass (no others are); ``early_layers`` are the layers of ``context.early``.

    A class with ``parts`` is not a method itself but stands for several, in order.

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


_ATTRIBUTES = ("site", "layers", "queries", "phase", "edit")

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
    parts = tuple(inner for part in parts for inner in _parts_of(part))
    for part in parts:
        if not all(hasattr(part, name) for name in _ATTRIBUTES):  # isinstance takes longer
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


def _parts_of(part: Any) -> tuple[Any, ...]:
    """The parts of a method that stands for several, itself for any other."""
    inner = getattr(part, "parts", None)
    return (part,) if inner is None else tuple(deep for each in inner for deep in _parts_of(each))
