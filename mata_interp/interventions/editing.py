"""Interventions bound to one batch of prompts: what to add at each attention call, and its dose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.attention import AttentionCall, Change, Edit
from mata_interp.errors import InterventionError

from .mata import Mata
from .rules import RULES

__all__ = ["DOSE", "TEXT", "Editing", "queries_named", "tokens_named"]

DOSE = ("mass_before", "mass_after", "kl", "boost", "negative")
"""What is recorded of every edited item; see :class:`mata_interp.attention.Dose`."""

PENDING = 2**20  # scores whose dose may wait: 12 MB with what they were before, and which were touched

TEXT = ("question", "options", "caption", "template")
"""The groups that ``keys="text"`` stands for."""


class Editing:
    """Call it at every attention call of the layers in ``layers``; it says what to add to which rows.

    Edited are the queries at absolute position P - 1 (the last prompt token; phase ``"prefill"``) and later
    ones (tokens of the answer; ``"decode"``), whether they come one by one, many at once or with the prompt;
    of a part with ``queries="text"``, in prefill, all text that can see the sound.

    Args:
        parts: interventions in order; one whose layers or heads the model lacks is refused.
        groups: bool [B, P] masks of a left-padded prompt's tokens; ``generated`` grows beyond P by itself.
        heads: number of query heads of each layer that has attention.

    Attributes:
        layers: the layers edited, ascending.
        shares: whether the prompt's tokens but the last are as without the edits, so that one reading of them
            serves many.
        counted: bool [B, Q], which queries of the next calls enter the dose (padding must not); None: all.

    Raises:
        InterventionError: a layer, head or group does not exist, or a prompt has no token in the group.
    """

    def __init__(self, parts: Sequence[Mata], groups: Mapping[str, Tensor], heads: Mapping[int, int]) -> None:
        self._parts = [(part.bind(heads), tokens_named(part.keys, groups)) for part in parts]
        self.layers = tuple(sorted({layer for part in parts for layer in part.layers}))
        self.counted: Tensor | None = None
        self._rows, self._width = groups["generated"].shape
        self._asking = {part.queries: queries_named(part.queries, groups) for part in parts}
        begins = {name: int(some.any(0).nonzero()[0]) for name, some in self._asking.items()}
        self._begins = [self._width if part.phase == "decode" else begins[part.queries] for part in parts]
        self.shares = min(self._begins, default=self._width) >= self._width - 1
        self._found: dict[tuple, Tensor] = {}  # keys of a pass, by all that they depend on
        # changes whose dose is not yet taken, each with which of its rows count
        self._pending: list[tuple[Change, Tensor | None]] = []
        self._kept = 0  # how many scores are pending
        # on the model's device until they are asked for: reading them in every layer would make it wait
        self._sums: Tensor | None = None  # float64 [5, B]
        self._counts: Tensor | int = 0

    def __call__(self, layer: int, call: AttentionCall, total: int) -> tuple[slice, Tensor] | None:
        """What to add to this call's output.

        Args:
            layer: index in the decoder.
            call: its queries stand at the absolute positions total - Q, ..., total - 1.
            total: tokens so far, these included.

        Returns:
            The rows among the Q queries and a float32 [B, R, H, Dv] to add to them; None for no change.
        """
        queries = call.query.shape[2]
        parts = [(part, tokens) for part, tokens in self._parts if layer in part.layers]
        first = min(b for (part, _), b in zip(self._parts, self._begins, strict=True) if layer in part.layers)
        last = self._width if all(part.phase == "prefill" for part, _ in parts) else total
        first, last = max(first, total - queries), min(last, total)
        if first >= last:
            return None
        edits = [
            Edit(RULES[part.rule], self._keys(part, tokens, layer, call, (first, last), total), part.alpha)
            for part, tokens in parts
        ]
        rows = slice(first - (total - queries), last - (total - queries))
        delta, change = call.delta(edits, rows)
        if any(part.rule == "knockout" for part, _ in parts):
            blind = change.edited.amax(-1) == -torch.inf
            if (blind & change.touched.any(-1)).any():
                raise InterventionError(f"A knockout in layer {layer} leaves a query nothing to see.")
        if not self.shares:  # rows of padding see nothing: their change is not 0 but NaN
            delta = torch.where(change.touched.any(-1).transpose(1, 2)[..., None], delta, 0.0)
        self._keep(change, rows)
        return rows, delta

    def dose(self) -> dict[str, np.ndarray]:
        """Each of DOSE, float64 [B]: its mean over edited layers, heads and queries; NaN if none."""
        self._record()
        if self._sums is None:
            return {name: np.full(self._rows, np.nan) for name in DOSE}
        return dict(zip(DOSE, (self._sums / self._counts).cpu().numpy(), strict=True))

    def _keys(
        self, part: Mata, tokens: Tensor, layer: int, call: AttentionCall, span: tuple[int, int], total: int
    ) -> Tensor:
        """Which scores a part may touch at the positions of ``span``: bool [B, 1|H, 1|R, L]."""
        # most layers of a pass are alike, and what is looked up once need not be computed in every layer
        alike = (part.keys, part.queries, part.phase, span, total, call.length, call.key.device)
        if alike not in self._found:
            if len(self._found) > len(self._parts):
                self._found.clear()
            positions = torch.arange(*span, device=call.key.device)
            self._found[alike] = self._in_every_head(part, tokens, call, positions, total)
        keys = self._found[alike]
        if (heads := part.heads_of(layer)) is not None:
            chosen = torch.zeros(call.query.shape[1], dtype=torch.bool, device=call.key.device)
            chosen[list(heads)] = True
            keys = keys & chosen[:, None, None]
        return keys

    def _in_every_head(
        self, part: Mata, tokens: Tensor, call: AttentionCall, positions: Tensor, total: int
    ) -> Tensor:
        """Which scores a part may touch in the heads that it edits: bool [B, 1, 1|R, L]."""
        tokens = pad(tokens, (0, total - self._width), value=part.keys == "generated")
        keys = tokens[:, -call.length :]  # a sliding cache has the newest only
        keys = keys.to(call.key.device)[:, None, None]
        if part.keys == "text":
            column = torch.arange(total - call.length, total, device=call.key.device)
            keys = keys & (column != positions[:, None])
        return keys & self._edited(part, positions).to(keys.device)[:, None, :, None]

    def _edited(self, part: Mata, positions: Tensor) -> Tensor:
        """Which of the queries at these positions a part edits: bool [B, R]."""
        asking = self._asking[part.queries].to(positions.device)
        answer = positions >= self._width
        asking = asking[:, positions.clamp(max=self._width - 1)]
        return torch.where(answer, part.phase != "prefill", asking & (part.phase != "decode"))

    def _keep(self, change: Change, rows: slice) -> None:
        """Put a change aside: the dose of many layers and decoded tokens is taken at once."""
        self._pending.append((change, None if self.counted is None else self.counted[:, rows]))
        self._kept += change.scores.numel()
        if self._kept > PENDING:
            self._record()

    def _record(self) -> None:
        """Take the dose of all that is pending."""
        alike: dict[tuple, list[tuple[Change, Tensor | None]]] = {}
        for change, counted in self._pending:
            place = None if counted is None else (counted.data_ptr(), counted.shape)
            alike.setdefault((change.scores.shape[2], change.scores.device, place), []).append(
                (change, counted)
            )
        self._pending.clear()
        self._kept = 0
        for some in alike.values():
            counted = some[0][1]
            dose = Change.joined([change for change, _ in some]).dose()
            on = dose.touched if counted is None else dose.touched & counted.to(dose.touched.device)[:, None]
            values = torch.where(on, torch.stack([getattr(dose, name) for name in DOSE]), 0.0)
            sums = values.sum((2, 3), dtype=torch.float64)
            self._sums = sums if self._sums is None else self._sums + sums.to(self._sums.device)
            self._counts = self._counts + on.sum((1, 2)).to(self._sums.device)


def queries_named(queries: str, groups: Mapping[str, Tensor]) -> Tensor:
    """The tokens of a prompt that ``queries`` names: bool [B, P], the last of each row among them."""
    asking = torch.zeros_like(next(iter(groups.values())))
    if queries == "text":  # what stands before the audio sees none
        audio = groups["audio"]
        after = (audio.cumsum(1) > 0) | ~audio.any(1, keepdim=True)
        asking = after & tokens_named("text", groups)
    asking[:, -1] = True
    return asking


def tokens_named(keys: str, groups: Mapping[str, Tensor]) -> Tensor:
    """The tokens that ``keys`` names: bool [B, P]."""
    if keys != "text" and keys not in groups:
        raise InterventionError(f"No group {keys!r}: keys is 'text' or one of {', '.join(groups)}.")
    named = TEXT if keys == "text" else (keys,)
    tokens = torch.stack([groups[name] for name in named]).any(0)
    if keys != "generated" and not (present := tokens.any(1)).all():
        row = int((~present).nonzero()[0])
        raise InterventionError(f"Row {row} of the prompt has no {keys} tokens: there is nothing to edit.")
    return tokens
