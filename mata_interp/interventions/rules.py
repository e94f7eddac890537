"""Rules: how the scores of chosen keys change before the softmax.

MATA (arXiv 2509.18816; Interspeech 2026 #1212) raises the scores from the last token to the audio keys. Which
rule its authors used is not settled: no official code is known and digests of the paper disagree, so none of
the rules here is "the paper's". For scores above zero ``mul`` and ``abs`` agree; below zero ``mul`` lowers
attention.

To add a rule, write one function and register it; the command line, the checks, the maps and the pages take
the names from the registry::

    def halve(scores, keys, alpha):
        return replace_scores(keys, scores * 0.5**alpha, scores)

    register_rule("halve", halve, formula="scores * 0.5 ** alpha")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mata_interp.errors import InterventionError, unknown_name

from .source_code import is_of_this_package, source_sha256

__all__ = ["RULES", "MissingRuleError", "PairRule", "Rule", "find_rule", "register_rule", "replace_scores"]

RuleFunction = Callable[[Tensor, Tensor, Any], Tensor]


class MissingRuleError(InterventionError):
    """A rule that is not registered here, or whose source is not the one that a record names."""


class PairRule(NamedTuple):
    """A rule in a form that computes the scores before and after it at once, for decoded tokens.

    The scores with index 0 are those before, bit for bit as those after at all other keys.

    Attributes:
        coefficients: ``coefficients(keys, alpha)`` -> float32 [2, *keys.shape], made once for many tokens.
        apply: ``apply(scores, coefficients)`` -> [2, B, H, R, L], for scores without a mask.
    """

    coefficients: Callable[[Tensor, float], Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """One way to change scores; call it as ``rule(scores, keys, alpha)``.

    Attributes:
        name: as users write it.
        function: ``function(scores, keys, alpha) -> scores``. ``scores`` is float32 [B, H, Q, L] with every
            head present; ``keys`` is a bool mask [B, L], or any mask that broadcasts to the scores;
            ``alpha`` is a number, or a tensor of numbers that broadcasts to the scores. Scores outside
            ``keys`` must come back bit for bit, and ``alpha`` 0 must change nothing. Hidden keys (-inf) are
            never among ``keys``.
        formula: of the new score, for tables and help.
        label: the effect on attention, as a figure's title says it: "Attention to audio <label>".
        hides_keys: whether the new score may be -inf. A query may then be left with no key to attend to,
            which the callers check.
        has_strength: whether the size of ``alpha`` matters (any non-zero ``alpha`` is the same if not).
        pair: the same rule as a `PairRule`; None: decoded tokens are edited by ``function``, too.
    """

    name: str
    function: RuleFunction
    formula: str
    label: str = "edited"
    hides_keys: bool = False
    has_strength: bool = True
    pair: PairRule | None = None

    def __call__(self, scores: Tensor, keys: Tensor, alpha: Any) -> Tensor:
        """New scores, in the shape of ``scores``."""
        return self.function(scores, keys, alpha)

    @property
    def source_sha256(self) -> str | None:
        """SHA-256 of the source of a user's rule, for the identity of results; None for a rule that ships."""
        return None if is_of_this_package(self.function) else source_sha256(self.function)


_rules: dict[str, Rule] = {}

RULES: Mapping[str, Rule] = MappingProxyType(_rules)
"""The rules by name, read-only; `register_rule` adds to them."""


def register_rule(
    name: str,
    function: RuleFunction,
    *,
    formula: str,
    label: str = "edited",
    hides_keys: bool = False,
    has_strength: bool = True,
    pair: PairRule | None = None,
) -> Rule:
    """Add a rule to `RULES` under ``name``; a rule of that name is replaced.

    What an AttentionEdit with a rule of yours writes (``to_dict``, run folders, sweeps, traces, shared files)
    has the SHA-256 of the rule's source: a run folder is not continued with another source, and a shared
    intervention does not load under it.

    Args:
        name: a word that can stand in a command line.
        function, formula, label, hides_keys, has_strength, pair: those of `Rule`.

    Raises:
        InterventionError: the name is not a plain word.

    Example:
        >>> import mata_interp as mi
        >>> from mata_interp.interventions.rules import replace_scores
        >>> def square(scores, keys, alpha):
        ...     return replace_scores(keys, scores + alpha * scores**2, scores)
        >>> mi.register_rule("square", square, formula="scores + alpha * scores ** 2").has_strength
        True
        >>> mi.Mata(0.1, [3], rule="square").rule
        'square'
    """
    if not name.isidentifier():
        raise InterventionError(f"A rule cannot be named {name!r}: use one word of letters and digits.")
    rule = Rule(name, function, formula, label, hides_keys, has_strength, pair)
    _rules[name] = rule
    return rule


def find_rule(name: str) -> Rule:
    """The rule of this name.

    Raises:
        MissingRuleError: there is none; the text lists the rules and suggests the nearest name.
    """
    if not isinstance(name, str) or name not in RULES:
        raise MissingRuleError(unknown_name("rule", name, RULES))
    return RULES[name]


def replace_scores(keys: Tensor, changed: Tensor, scores: Tensor) -> Tensor:
    """``changed`` at ``keys`` ([B, L] or broadcastable to the scores), ``scores`` elsewhere."""
    # selected, never blended: a blend would turn the -inf of hidden keys into NaN
    return torch.where(keys[:, None, None] if keys.dim() == 2 else keys, changed, scores)


def _abs(scores: Tensor, keys: Tensor, alpha: Any) -> Tensor:
    """The rule of PAI, MATA's ancestor, as in its code (LALBJ/PAI)."""
    if isinstance(alpha, Tensor):
        return replace_scores(keys, scores + alpha * scores.abs(), scores)
    return replace_scores(keys, torch.add(scores, scores.abs(), alpha=alpha), scores)  # one operation less


def _mul(scores: Tensor, keys: Tensor, alpha: Any) -> Tensor:
    """Two digests of the MATA paper and an unofficial port read its rule this way."""
    return replace_scores(keys, scores * (1 + alpha), scores)


def _add(scores: Tensor, keys: Tensor, alpha: Any) -> Tensor:
    """Multiplies the odds of every chosen key by exp(alpha); one digest of the MATA paper reads it so."""
    return replace_scores(keys, scores + alpha, scores)


def _knockout(scores: Tensor, keys: Tensor, alpha: Any) -> Tensor:
    """No attention to the keys at all (Geva et al. 2023, arXiv 2304.14767)."""
    hidden = torch.full_like(scores, -torch.inf)
    switched_on = torch.as_tensor(alpha != 0, device=scores.device)
    return replace_scores(keys, torch.where(switched_on, hidden, scores), scores)


def _pair_of(neutral: float, apply: Callable[[Tensor, Tensor], Tensor]) -> PairRule:
    """A rule whose coefficient is ``neutral`` where nothing changes, and ``neutral + alpha`` at the keys."""

    def coefficients(keys: Tensor, alpha: float) -> Tensor:
        at_keys = keys.float() * alpha + neutral
        return torch.stack([torch.full_like(at_keys, neutral), at_keys])

    return PairRule(coefficients, apply)


_PAIR_OF_ABS = _pair_of(0.0, lambda scores, at_keys: torch.addcmul(scores, scores.abs(), at_keys))

register_rule("abs", _abs, formula="scores + alpha * |scores|", pair=_PAIR_OF_ABS)
register_rule("mul", _mul, formula="scores * (1 + alpha)", pair=_pair_of(1.0, torch.mul))
register_rule("add", _add, formula="scores + alpha", pair=_pair_of(0.0, torch.add))
register_rule("knockout", _knockout, formula="-inf", label="knocked out", hides_keys=True, has_strength=False)
