"""Dose-targeted MATA: in every row, the strength that brings the attention mass of audio to a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mata_interp.errors import InterventionError
from mata_interp.interventions.attention_edit import indices
from mata_interp.interventions.protocol import SiteContext
from mata_interp.interventions.selection import select_heads

from .method import Method
from .negatives import negative_prompt
from .registry import register

__all__ = ["DoseTargetedMata", "DoseTargetedSham", "divergence", "log_odds", "strength_of_divergence"]

STEPS = 60  # of bisection, each of which adds a binary digit
CERTAIN = 40.0  # log-odds of a share that is 1 in float32 and in float64 but for its last digits


def log_odds(scores: Tensor, span: Tensor) -> Tensor:
    """log(s / (1 - s)) of the mass s of a span of keys in each row: [B, H, Q, 1].

    Infinite where s is 0 or 1, NaN in a row that sees nothing. No difference is taken of numbers near 1.

    Args:
        scores: [B, H, Q, L], -inf where hidden.
        span: bool, broadcastable to the scores.
    """
    inside = scores.masked_fill(~span, -torch.inf).logsumexp(-1, keepdim=True)
    return inside - scores.masked_fill(span, -torch.inf).logsumexp(-1, keepdim=True)


def divergence(odds: Tensor, strength: Tensor) -> Tensor:
    """KL of a row in which ``strength`` was added to the scores of a span from the row before, in nats.

    With s the mass of the span and y that after the edit, both rows have the same distribution inside and
    outside of the span, so that this is y log(y / s) + (1 - y) log((1 - y) / (1 - s)).

    Args:
        odds: log(s / (1 - s)).
        strength: added to the scores of the span.
    """
    return torch.sigmoid(odds + strength) * strength - softplus(odds + strength) + softplus(odds)


def strength_of_divergence(odds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The positive strength with which an edit of a span has a given divergence, by bisection.

    Adding to the scores of a span moves the row by at most log(1 / t), where t is its mass.

    Args:
        odds: log(t / (1 - t)) of the span.
        target: KL, in nats, of the shape of ``odds``.

    Returns:
        The strengths, and whether there is one (bool); where not, the strength is 0.
    """
    dtype = torch.float64 if odds.device.type == "cpu" else torch.float32
    known = odds.isfinite() & target.isfinite()
    o, kl = (torch.where(known, x, 0.0).to(dtype) for x in (odds, target))
    low, high = torch.zeros_like(o), (CERTAIN - o).clamp(min=0.0)
    solved = known & (kl < divergence(o, high))
    for _ in range(STEPS):
        middle = (low + high) / 2
        above = divergence(o, middle) > kl
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(solved, (low + high) / 2, 0.0).to(odds.dtype), solved


@dataclass(frozen=True)
class TargetShare(Method):
    """What the method and its sham have in common: which rows are edited, and at what dose.

    Attributes:
        target_share: y, the mass of audio over the whole row, attention sink included, that every edited row
            gets; between 0 and 1.
        below: rows are edited in the heads whose mass of audio in this row is below this; 1: in all heads.
            With ``below`` equal to the target, attention to audio is only raised; 0 edits nothing.
        heads: the heads of each layer, one tuple per layer, such as those with a positive direct attribution
            (`from_profile`); (): all heads.
        item_layers: edit each item in only so many of ``layers``: those in which its audio moves the last
            token most (see `measure`); None: in all of them.
    """

    target_share: float = 0.5
    below: float = 1.0
    heads: tuple[tuple[int, ...], ...] = ()
    item_layers: int | None = None

    def __post_init__(self) -> None:
        unsorted_layers = tuple(self.layers)
        super().__post_init__()
        if not 0 < self.target_share < 1:
            raise InterventionError(f"target_share is {self.target_share!r}: it must lie between 0 and 1.")
        if self.heads and (
            len(self.heads) != len(self.layers) or unsorted_layers != indices(unsorted_layers, "layers")
        ):
            raise InterventionError("heads has one tuple of heads for each layer, and layers ascend.")
        if self.item_layers is not None and not 0 < self.item_layers <= max(1, len(self.layers)):
            raise InterventionError(
                f"item_layers is {self.item_layers!r}: it must lie between 1 and the number of layers."
            )

    @classmethod
    def from_profile(cls, profile: Any, target_share: float, **settings: Any) -> Any:
        """In the heads that write audio into the answer with a positive direct attribution.

        Args:
            profile: from `mata_interp.fusion_layers`, with the criterion of direct attribution.
            target_share, settings: those of the class, layers and heads aside.

        Raises:
            InterventionError: the profile has no such head.
        """
        by_layer: dict[int, list[int]] = {}
        for layer, head in profile.audio_heads[["layer", "head"]].itertuples(index=False):
            by_layer.setdefault(int(layer), []).append(int(head))
        if not by_layer:
            raise InterventionError("This profile has no head with a positive direct attribution of audio.")
        layers = sorted(by_layer)
        heads = tuple(tuple(sorted(by_layer[layer])) for layer in layers)
        return cls(tuple(layers), target_share, heads=heads, **settings)

    def measure(self, lalm: Any, prompt: Any) -> Mapping[str, Tensor]:
        """Which layers each item is edited in: bool [B, n]; nothing where it is all of them.

        How far the audio moves the last token is |h(audio) - h(no audio)| / |h(audio)| after each layer; the
        layers with the largest growth of this are the item's. No answer is needed for it.
        """
        if self.item_layers is None or not self.layers:
            return {}
        every = list(range(max(self.layers) + 1))
        with_audio = lalm.hidden_states(prompt, every, last=True)[:, :, 0]
        without = negative_prompt(lalm, prompt, "omitted")
        moved = (with_audio - lalm.hidden_states(without, every, last=True)[:, :, 0]).norm(dim=-1)
        growth = (moved / with_audio.norm(dim=-1)).diff(dim=1, prepend=torch.zeros_like(moved[:, :1]))
        growth = growth[:, list(self.layers)]
        chosen = torch.zeros_like(growth, dtype=torch.bool)
        return {"layers": chosen.scatter(1, growth.topk(self.item_layers, dim=1).indices, value=True)}

    def rows_to_edit(self, x: Tensor, odds: Tensor, context: SiteContext) -> Tensor:
        """The rows and heads that are to be edited: bool [B, H, Q, 1]."""
        low = torch.sigmoid(odds) < self.below
        to_edit = context.edited[:, None, :, None] & (low | (self.below >= 1))
        at = self.layers.index(context.layer)
        if self.heads:
            to_edit = to_edit & select_heads(self.heads[at], x.shape[1], x.device)[:, None, None]
        if "layers" in context.measured:
            to_edit = to_edit & context.measured["layers"].to(x.device)[:, at, None, None, None]
        return to_edit.expand(*x.shape[:3], 1)

    def strengths(self, x: Tensor, context: SiteContext) -> tuple[Tensor, Tensor, Tensor]:
        """Log-odds of the share of audio, the strength that brings it to the target, and the rows to edit."""
        odds = log_odds(x, context.columns("audio"))
        strength = torch.logit(torch.tensor(self.target_share, dtype=torch.float64)).to(x) - odds
        return odds, strength, self.rows_to_edit(x, odds, context)


def text_columns(context: SiteContext) -> Tensor:
    """Keys of text without each query's own token: bool [B, 1, Q, L]."""
    own_column = context.key_positions[:, None, None, :] == context.positions[:, None, :, None]
    return context.columns("text") & ~own_column


@register
@dataclass(frozen=True)
class DoseTargetedMata(TargetShare):
    """MATA with rule ``add`` and, in each row, the strength that brings the audio mass to a target exactly.

    The strength is solved for each item, layer, head and query in the row as it is, with all earlier edits in
    force: a = logit(y) - logit(s). SpotLight's log(y / s) is an approximation of it. Rows without any or with
    nothing but audio (s 0 or 1) are left alone; they are counted in the dose as ``left_alone``, a fraction.

    Equal targets are not equal doses: see `DoseTargetedSham`, whose rows are the same ones with ``matched``.

    Attributes:
        matched: leave alone the rows in which the sham on text has no solution, so that both edit the same.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> scores = lalm.score(items[:2], None, mi.DoseTargetedMata([4, 5], 0.5))
        >>> scores.dose["mass_after"].round(4).tolist()
        [0.5, 0.5]
    """

    matched: bool = False
    formula = "A + logit(y) - logit(s) on audio, s its mass in the row"
    source = "this package"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        odds, strength, to_edit = self.strengths(x, context)
        solved = odds.isfinite()
        if self.matched:
            text = log_odds(x, text_columns(context))
            solved = solved & strength_of_divergence(text, divergence(odds, strength))[1]
        context.counts["left_alone"] = (to_edit & ~solved)[..., 0]
        return (x + strength).where(context.columns("audio") & to_edit & solved, x)


@register
@dataclass(frozen=True)
class DoseTargetedSham(TargetShare):
    """The sham of `DoseTargetedMata`: in the same rows, text is raised by an edit of the same divergence.

    With s and t the masses of audio and text in a row, the strength on text solves KL(y_t, t) = KL(y, s) with
    y_t > t, KL of two-valued distributions. Text that holds most of the row cannot be moved as far: such rows
    are left alone and counted as ``left_alone``. Masses are measured in the sham's own rows, which differ
    from those of MATA after the first edited layer.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> dose = lalm.score(items[:2], None, mi.DoseTargetedSham([4], 0.3)).dose
        >>> bool((dose["mass_after"] >= dose["mass_before"]).all())
        True
    """

    formula = "A + a on text, a > 0 with KL(y_t, t) = KL(y, s)"
    source = "this package"
    keys = "text"  # of the masses in the dose

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        odds, strength, to_edit = self.strengths(x, context)
        columns = text_columns(context)
        raised, solved = strength_of_divergence(log_odds(x, columns), divergence(odds, strength))
        solved = solved & odds.isfinite()
        context.counts["left_alone"] = (to_edit & ~solved)[..., 0]
        return (x + raised).where(columns & to_edit & solved, x)
