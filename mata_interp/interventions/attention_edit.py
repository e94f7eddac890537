"""Edits of attention scores as data: which rule and strength, and where."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from mata_interp.defaults import ALPHAS as DEFAULT_ALPHAS
from mata_interp.errors import InterventionError, unknown_name
from mata_interp.ranges import brief

from .protocol import SiteContext
from .rules import MissingRuleError, find_rule
from .selection import PHASES, QUERIES, cross, groups_named, refuse_blind_queries, select_heads
from .shareable import Shareable

__all__ = [
    "DEFAULT_ALPHAS",
    "AttentionEdit",
    "Heads",
    "Knockout",
    "Mata",
    "indices",
    "require_attention_edits",
]


"""Strengths that sweeps and studies try: the published 0.1 and stronger ones, since a small model may need
more to be moved at all."""

Heads: TypeAlias = "str | Iterable[int] | Mapping[int, Iterable[int]]"


@runtime_checkable
class LayerChoice(Protocol):
    """Layers that were chosen by looking at some clips: a FusionProfile."""

    @property
    def window(self) -> tuple[int, ...]: ...

    @property
    def chosen_on(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, init=False, repr=False)
class AttentionEdit(Shareable):
    """Change the attention scores that some queries give to some keys, before the softmax.

    `Mata` and `Knockout` make the two usual ones. The edited queries are the last prompt token (phase
    ``"prefill"``), every token of the answer (``"decode"``) or both; prefill and decode together is what PAI,
    MATA's ancestor, does in its code, and which of them MATA does is not stated. See
    :mod:`mata_interp.interventions.rules` for what is known of MATA's rule.

    ``queries="text"`` edits, in prefill, all text that can attend to the audio, as VAF does with images
    (ustc-hyin/ClearSight: image scores * 1.15 and system scores * 0.95 in layers 9-14).

    Immutable and hashable; equal settings written differently compare equal.

    Attributes:
        alpha: strength, a finite number. The papers use 0.1. Negative means less attention; 0 changes
            nothing.
        layers: decoder layers, from 0. None of them: nothing is edited. A FusionProfile stands for its
            window, and the clips it was made on are added to ``chosen_on``.
        rule: one of RULES.
        heads: ``"all"``, query heads for every layer, or ``{layer: heads}`` naming exactly ``layers``.
        phase: ``"both"``, ``"prefill"`` or ``"decode"``; or, where answers are generated, a part of both:
            ``"reasoning"``, the queries that predict a token of a thought, or ``"answer"``, the others.
        keys: ``"audio"``, ``"text"`` (question, options, caption and template, without the sink and the
            query's own token) or one other group of a prompt's tokens: ``"audio_2"`` is the second clip,
            ``"reasoning"`` the generated tokens of a thought and ``"answer"`` those after it.
        queries: of the prompt, ``"last"`` (its last token, which predicts the answer) or ``"text"`` (every
            token of question, options, caption and template after the first audio token, and the last token;
            without audio, all of them). Tokens of the answer are edited either way, as ``phase`` says.
        chosen_on: the clips (clusters of items) on which these settings were chosen, if any; a test on the
            same clips would be circular. Ignored in comparisons.

    Raises:
        InterventionError: a value makes no sense; :meth:`bind` finds layers and heads that a model lacks.

    Example:
        >>> import mata_interp as mi
        >>> mi.AttentionEdit(0.5, layers=range(3, 6), rule="add", keys="text")
        AttentionEdit(0.5, layers=(3, 4, 5), rule='add', keys='text')
    """

    alpha: float
    layers: tuple[int, ...]
    rule: str
    heads: Any  # "all", a tuple of heads, or a tuple of (layer, heads)
    phase: str
    keys: str
    queries: str
    chosen_on: tuple[str, ...] = field(compare=False)

    site = "scores"

    def __init__(
        self,
        alpha: float,
        layers: Iterable[int] | LayerChoice,
        rule: str = "abs",
        heads: Heads = "all",
        phase: str = "both",
        keys: str = "audio",
        queries: str = "last",
        chosen_on: Iterable[str] = (),
    ) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, Real) or not math.isfinite(alpha):
            raise InterventionError(f"alpha is {alpha!r}: it must be a finite number (negative is allowed).")
        find_rule(rule)
        if phase not in PHASES:
            raise InterventionError(unknown_name("phase", phase, PHASES))
        if queries not in QUERIES:
            raise InterventionError(unknown_name("queries", queries, QUERIES))
        if not isinstance(keys, str) or not keys:
            raise InterventionError(
                f"keys is {keys!r}: it names a group of tokens, such as 'audio' or 'text'."
            )
        if isinstance(layers, LayerChoice):
            chosen_on = (*chosen_on, *layers.chosen_on)
            layers = _window(layers)
        chosen = indices(layers, "layers")
        values = {
            "alpha": float(alpha),
            "layers": chosen,
            "rule": rule,
            "heads": _normalise_heads(heads, chosen),
            "phase": phase,
            "keys": keys,
            "queries": queries,
            "chosen_on": tuple(sorted(set(chosen_on))),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        arguments = [f"{self.alpha!r}, layers={self.layers!r}, rule={self.rule!r}"]
        defaults = {"heads": "all", "phase": "both", "keys": "audio", "queries": "last"}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                arguments.append(f"{name}={getattr(self, name)!r}")
        if self.chosen_on:
            arguments.append(f"chosen_on=<{len(self.chosen_on)} clips>")
        return f"AttentionEdit({', '.join(arguments)})"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule; see `Intervention`."""
        names = groups_named(self.keys, context.keys)
        columns = torch.stack([context.keys[name] for name in names]).any(0)
        touched = cross(columns, context.edited, self.keys, context.key_positions, context.positions)
        heads = select_heads(self.heads_of(context.layer), x.shape[1], x.device)
        touched = touched[:, None] & heads[:, None, None] & (x > -math.inf)
        edited = find_rule(self.rule)(x, touched, self.alpha)
        if find_rule(self.rule).hides_keys:
            refuse_blind_queries(edited, touched, context.layer)
        return edited

    def heads_of(self, layer: int) -> tuple[int, ...] | None:
        """The heads edited in ``layer``; None for all of them."""
        if self.heads == "all":
            return None
        return dict(self.heads)[layer] if _is_by_layer(self.heads) else self.heads

    def bind(self, heads: Mapping[int, int]) -> AttentionEdit:
        """Check that the model has these layers and heads.

        Args:
            heads: number of query heads of each decoder layer that has attention: ``lalm.structure.heads``.

        Returns:
            self.

        Raises:
            InterventionError: naming the first that is missing and what there is.
        """
        for layer in self.layers:
            if layer not in heads:
                raise InterventionError(
                    f"No attention in layer {layer}: the model has it in layers {brief(heads)}."
                )
            for head in self.heads_of(layer) or ():
                if head >= heads[layer]:
                    raise InterventionError(
                        f"No head {head} in layer {layer}: its heads are 0-{heads[layer] - 1}."
                    )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; :meth:`from_dict` reads it back.

        With a rule that is not of this package, ``rule_source_sha256`` is the hash of the rule's source.
        """
        data = asdict(self) | {"layers": list(self.layers), "chosen_on": list(self.chosen_on)}
        if _is_by_layer(self.heads):
            data["heads"] = {str(layer): list(heads) for layer, heads in self.heads}
        elif self.heads != "all":
            data["heads"] = list(self.heads)
        source = find_rule(self.rule).source_sha256
        return data if source is None else data | {"rule_source_sha256": source}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttentionEdit:
        """Rebuild from :meth:`to_dict`, also after a round trip through JSON.

        Raises:
            MissingRuleError: the rule is not registered, or was written with another source.
            InterventionError: a value makes no sense.
        """
        values = dict(data)
        heads, source = values.pop("heads", "all"), values.pop("rule_source_sha256", None)
        if isinstance(heads, Mapping):
            heads = {int(layer): chosen for layer, chosen in heads.items()}
        edit = cls(**values, heads=heads)
        if source is not None and source != find_rule(edit.rule).source_sha256:
            raise MissingRuleError(
                f"The rule {edit.rule!r} was recorded with another source than that of the rule registered "
                "here: register the rule as it was."
            )
        return edit


def Mata(
    alpha: float,
    layers: Iterable[int] | LayerChoice,
    rule: str = "abs",
    heads: Heads = "all",
    phase: str = "both",
    keys: str = "audio",
    queries: str = "last",
    chosen_on: Iterable[str] = (),
) -> AttentionEdit:
    """MATA (arXiv 2509.18816): raise the attention scores from the predicting token to the audio.

    Args:
        alpha: strength; the papers use 0.1.
        layers: decoder layers, from 0, or a FusionProfile; the papers use intermediate layers, picked by
            hand (see `published_layers`).
        rule: ``"abs"``, ``"mul"`` or ``"add"`` (or any of RULES); which one is the paper's is not settled.
        heads, phase, keys, queries, chosen_on: those of `AttentionEdit`.

    Raises:
        InterventionError: a value makes no sense.

    Example:
        >>> import mata_interp as mi
        >>> mi.Mata(0.1, layers=[3, 4])
        AttentionEdit(0.1, layers=(3, 4), rule='abs')
    """
    return AttentionEdit(alpha, layers, rule, heads, phase, keys, queries, chosen_on)


def Knockout(
    layers: Iterable[int] | LayerChoice,
    heads: Heads = "all",
    keys: str = "audio",
    queries: str = "last",
    phase: str = "both",
    chosen_on: Iterable[str] = (),
) -> AttentionEdit:
    """Attention knockout (Geva et al. 2023, arXiv 2304.14767): hide some keys from some queries.

    Args:
        layers: decoder layers, from 0, or a FusionProfile.
        heads, keys, queries, phase, chosen_on: those of `AttentionEdit`.

    Raises:
        InterventionError: a value makes no sense.

    Example:
        >>> import mata_interp as mi
        >>> mi.Knockout([3], heads=[0, 1], queries="text")
        AttentionEdit(1.0, layers=(3,), rule='knockout', heads=(0, 1), queries='text')
    """
    return AttentionEdit(1.0, layers, "knockout", heads, phase, keys, queries, chosen_on)


def require_attention_edits(parts: Sequence[Any], where: str) -> tuple[AttentionEdit, ...]:
    """The parts, if all of them are attention edits.

    Args:
        parts: from `in_order`.
        where: what takes attention edits only, as the subject of a sentence.

    Raises:
        InterventionError: one of them acts on another site.
    """
    for part in parts:
        if not isinstance(part, AttentionEdit):
            raise InterventionError(
                f"{where} takes attention edits only, not {type(part).__name__} (site {part.site!r}): use "
                "lalm.logits, lalm.score or lalm.generate."
            )
    return tuple(parts)


def _window(profile: LayerChoice) -> tuple[int, ...]:
    if not profile.window:
        raise InterventionError(f"This profile recommends no layers. {profile} Name layers yourself.")
    return profile.window


def indices(values: Any, name: str) -> tuple[int, ...]:
    """Sorted, without repeats; integers of numpy become plain ones."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InterventionError(f"{name} is {values!r}: give a list of whole numbers from 0.")
    chosen = list(values)
    if any(isinstance(v, bool) or not hasattr(v, "__index__") or v < 0 for v in chosen):
        raise InterventionError(f"{name} is {chosen!r}: give whole numbers from 0.")
    return tuple(sorted({int(v) for v in chosen}))


def _normalise_heads(heads: Any, layers: tuple[int, ...]) -> Any:
    """``"all"``, a tuple of heads, or a tuple of (layer, heads), sorted; it accepts what it returns."""
    if isinstance(heads, str) and heads == "all":
        return heads
    if not isinstance(heads, Mapping) and not _is_by_layer(heads):
        return _require_heads(indices(heads, "heads"))
    pairs: Any = heads.items() if isinstance(heads, Mapping) else heads
    by_layer = {layer: _require_heads(indices(chosen, f"heads of layer {layer}")) for layer, chosen in pairs}
    if set(by_layer) != set(layers):
        raise InterventionError(f"heads names layers {sorted(by_layer)}, but layers are {list(layers)}.")
    return tuple(sorted(by_layer.items())) or "all"


def _require_heads(heads: tuple[int, ...]) -> tuple[int, ...]:
    if not heads:
        raise InterventionError("heads names no head: leave the layer out instead, or say 'all'.")
    return heads


def _is_by_layer(heads: Any) -> bool:
    """Whether these are normalised heads of the form ((layer, heads), ...)."""
    return isinstance(heads, tuple) and any(isinstance(head, tuple) for head in heads)
