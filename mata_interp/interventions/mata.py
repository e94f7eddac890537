"""MATA as data: which rule, how strong, on which keys, in which layers, heads and phase."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mata_interp.errors import InterventionError
from mata_interp.ranges import brief

from .rules import RULES

__all__ = ["PHASES", "QUERIES", "Intervention", "Mata", "in_order"]

PHASES = ("both", "prefill", "decode")
QUERIES = ("last", "text")


@runtime_checkable
class Chosen(Protocol):
    """Layers that were chosen by looking at some clips: a FusionProfile."""

    @property
    def window(self) -> tuple[int, ...]: ...

    @property
    def chosen_on(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, init=False)
class Mata:
    """Change the attention scores that the token about to speak gives to some keys (MATA: to the audio).

    The edited queries are the last prompt token (phase ``"prefill"``), every token of the answer
    (``"decode"``) or both; prefill and decode together is what PAI, MATA's ancestor, does in its code, and
    which of them MATA does is not stated. See :mod:`mata_interp.interventions.rules` for what is and is not
    known of the rule.

    ``queries="text"`` edits, in prefill, all text that can see the sound, not its last token alone: as VAF
    does with images (ustc-hyin/ClearSight, image scores * 1.15 and system scores * 0.95 in layers 9-14).

    Immutable and hashable; equal settings written differently compare equal.

    Attributes:
        alpha: strength; finite. The papers use 0.1. Negative means less attention; 0 changes nothing.
        layers: decoder layers, from 0. None of them: nothing is edited. A FusionProfile stands for its
            window, and the clips it was made on are counted among ``chosen_on``.
        rule: one of RULES.
        heads: ``"all"``, query heads for every layer, or ``{layer: heads}`` naming exactly ``layers``.
        phase: ``"both"``, ``"prefill"`` or ``"decode"``.
        keys: ``"audio"``, ``"text"`` (question, options, caption and template, without the sink and the
            query's own token) or one other group of a prompt's tokens.
        queries: of the prompt, ``"last"``: the token about to speak; or ``"text"``: every token of question,
            options, caption and template after the first audio token (of a prompt without audio: all), that
            one among them. The answer's tokens are in either, as ``phase`` says.
        chosen_on: the clips (clusters of items) on which these settings were chosen, if any: who measures on
            them again must know. No part of what the edit is: left out when two are compared.

    Raises:
        InterventionError: a value makes no sense; a layer or head the model lacks is found by :meth:`bind`.
    """

    alpha: float
    layers: tuple[int, ...]
    rule: str
    heads: Any  # "all", a tuple of heads, or a tuple of (layer, heads)
    phase: str
    keys: str
    queries: str
    chosen_on: tuple[str, ...] = field(compare=False, repr=False)

    def __init__(
        self,
        alpha: float,
        layers: Iterable[int] | Chosen,
        rule: str = "abs",
        heads: str | Iterable[int] | Mapping[int, Iterable[int]] = "all",
        phase: str = "both",
        keys: str = "audio",
        queries: str = "last",
        chosen_on: Iterable[str] = (),
    ) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, Real) or not math.isfinite(alpha):
            raise InterventionError(f"alpha is {alpha!r}: it must be a finite number (negative is allowed).")
        if rule not in RULES:
            raise InterventionError(f"No rule {rule!r}: choose one of {', '.join(RULES)}.")
        if phase not in PHASES:
            raise InterventionError(f"No phase {phase!r}: choose one of {', '.join(PHASES)}.")
        if queries not in QUERIES:
            raise InterventionError(f"No queries {queries!r}: choose one of {', '.join(QUERIES)}.")
        if not isinstance(keys, str) or not keys:
            raise InterventionError(
                f"keys is {keys!r}: it names a group of tokens, such as 'audio' or 'text'."
            )
        if isinstance(layers, Chosen):
            layers, chosen_on = _window(layers), (*chosen_on, *layers.chosen_on)
        chosen = _indices(layers, "layers")
        for name, value in {
            "alpha": float(alpha),
            "layers": chosen,
            "rule": rule,
            "heads": _heads(heads, chosen),
            "phase": phase,
            "keys": keys,
            "queries": queries,
            "chosen_on": tuple(sorted(set(chosen_on))),
        }.items():
            object.__setattr__(self, name, value)

    def heads_of(self, layer: int) -> tuple[int, ...] | None:
        """The heads edited in ``layer``; None for all of them."""
        if self.heads == "all":
            return None
        return dict(self.heads)[layer] if _by_layer(self.heads) else self.heads

    def bind(self, heads: Mapping[int, int]) -> Mata:
        """Check that the model has these layers and heads.

        Args:
            heads: number of query heads of each decoder layer that has attention: ``lalm.anatomy.heads``.

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
        """Plain data, fit for JSON; :meth:`from_dict` reads it back."""
        data = asdict(self) | {"layers": list(self.layers), "chosen_on": list(self.chosen_on)}
        if _by_layer(self.heads):
            data["heads"] = {str(layer): list(heads) for layer, heads in self.heads}
        elif self.heads != "all":
            data["heads"] = list(self.heads)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Mata:
        """From what :meth:`to_dict` gave, also after a journey through JSON."""
        heads = data.get("heads", "all")
        if isinstance(heads, Mapping):
            heads = {int(layer): chosen for layer, chosen in heads.items()}
        return cls(**{**data, "heads": heads})


Intervention: TypeAlias = "Mata | Sequence[Mata] | None"
"""What every ``intervention`` argument takes: none, one, or several, done one after the other."""


def in_order(intervention: Intervention) -> tuple[Mata, ...]:
    """The parts of an intervention that edit anything, in the order in which they are done."""
    if intervention is None:
        return ()
    parts = (intervention,) if isinstance(intervention, Mata) else tuple(intervention)
    for part in parts:
        if not isinstance(part, Mata):
            raise InterventionError(f"{part!r} is not an intervention: give None, a Mata or a tuple of them.")
    return tuple(part for part in parts if part.layers)


def _window(profile: Chosen) -> tuple[int, ...]:
    if not profile.window:
        raise InterventionError(f"This profile recommends no layers. {profile} Name layers yourself.")
    return profile.window


def _indices(values: Any, name: str) -> tuple[int, ...]:
    """Sorted, without repeats; integers of numpy become plain ones."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InterventionError(f"{name} is {values!r}: give a list of whole numbers from 0.")
    chosen = list(values)
    if any(isinstance(v, bool) or not hasattr(v, "__index__") or v < 0 for v in chosen):
        raise InterventionError(f"{name} is {chosen!r}: give whole numbers from 0.")
    return tuple(sorted({int(v) for v in chosen}))


def _heads(heads: Any, layers: tuple[int, ...]) -> Any:
    """``"all"``, a tuple of heads, or a tuple of (layer, heads), sorted; what it gives, it also takes."""
    if isinstance(heads, str) and heads == "all":
        return heads
    if not isinstance(heads, Mapping) and not _by_layer(heads):
        return _named(_indices(heads, "heads"))
    pairs: Any = heads.items() if isinstance(heads, Mapping) else heads
    by_layer = {layer: _named(_indices(chosen, f"heads of layer {layer}")) for layer, chosen in pairs}
    if set(by_layer) != set(layers):
        raise InterventionError(f"heads names layers {sorted(by_layer)}, but layers are {list(layers)}.")
    return tuple(sorted(by_layer.items())) or "all"


def _named(heads: tuple[int, ...]) -> tuple[int, ...]:
    if not heads:
        raise InterventionError("heads names no head: leave the layer out instead, or say 'all'.")
    return heads


def _by_layer(heads: Any) -> bool:
    """Whether these are normalised heads of the form ((layer, heads), ...)."""
    return isinstance(heads, tuple) and any(isinstance(head, tuple) for head in heads)
