"""Interventions bound to one batch: what to add at each attention call, and the dose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.attention import AttentionCall, Change, Edit, RowMask, SharedMasks
from mata_interp.errors import InterventionError
from mata_interp.precision import full_precision
from mata_interp.ranges import brief

from .attention_edit import AttentionEdit
from .protocol import ATTENTION_SITES, Intervention, SiteContext
from .rules import find_rule
from .selection import (
    first_query,
    groups_named,
    refuse_blind_queries,
    select_columns,
    select_heads,
    select_queries,
    select_rows,
    select_scores,
    select_tokens,
)

__all__ = ["DOSE", "Editing", "accumulator", "dose_values", "mean_dose", "refuse_part"]

DOSE = ("mass_before", "mass_after", "kl", "boost", "negative")
"""What is recorded of every edited item; see :class:`mata_interp.attention.Dose`."""

SUMS = "sums of the dose"  # name of the sums of DOSE beside those of what methods count
PENDING = {"cpu": 2**20}  # scores whose dose may wait, which takes 9 bytes for each: as much as a cache holds
PENDING_ELSEWHERE = 2**23  # an accelerator has more memory, and each operation takes longer to launch
KEPT = 4  # masks of scores for each part: layers with and without a sliding window take turns
AHEAD = 64  # tokens of an answer that a mask of columns is made for
LEAST = 1e-30  # a weight that is taken for 0
BLOCK = 128  # queries at once where methods need whole rows of weights: never a T x T matrix

Watch = Callable[[int, Tensor, Tensor, Tensor], None]


class Editing:
    """Interventions at the sites of attention, bound to a batch; called at every attention call.

    Edits of scores, then those of weights, then those of head outputs are performed, each kind in the order
    of the parts. The edited queries are those at position P - 1 (the last prompt token; phase ``"prefill"``)
    and later ones (tokens of the answer; ``"decode"``), whether they come one by one, many at once or with
    the prompt; with other ``queries``, more of the prompt.

    Args:
        parts: interventions in order; one whose layers or heads the model lacks is refused.
        groups: group -> bool [B, P] of a left-padded prompt's tokens; ``generated`` grows beyond P by itself.
        heads: number of query heads of each layer that has attention.
        more: ``more(part, positions)`` returns further fields of the part's `SiteContext`.
        rows: bool [B], the rows that are edited at all; None: all.

    Attributes:
        layers: the layers edited, ascending.
        first: position of the first token that is edited; P if that is one of the answer.
        shares: whether all prompt tokens but the last are as without the edits, so that one prefill serves
            many interventions.
        counted: bool [B, Q], which queries of the next calls enter the dose (padding must not); None: all.
        keep: ``keep(change, rows)`` is called with every change of the scores and the queries of the call
            that it belongs to, in place of adding it to the dose; None: it is added.
        keep_sums: the same for methods that are no AttentionEdit: ``keep_sums(name, sums, row)`` is called
            with sums over heads [n, B, R] for R queries of the call from ``row`` on. With the name `SUMS`,
            they are those of DOSE and the number of heads; with that of a count of the method, the count and
            the number of heads.
        follows_thoughts: whether some part needs to know which tokens are reasoning.
        thought_open: bool [B, 1 + N], whether a thought is open after the prompt and after each of the N
            generated tokens so far; None: never.
        watch: called with the layer, the positions [R] of a block of queries, their attention weights after
            all edits of scores and weights, float32 [B, H, R, L], and which of them are edited, bool [B, R].

    Raises:
        InterventionError: a layer, head or group does not exist, a prompt has no token in the group, or a
            part acts on a site outside of attention.
    """

    def __init__(
        self,
        parts: Sequence[Intervention],
        groups: Mapping[str, Tensor],
        heads: Mapping[int, int],
        more: Callable[[Intervention, Tensor], Mapping[str, Any]] | None = None,
        rows: Tensor | None = None,
    ) -> None:
        for part in parts:
            refuse_part(part, heads)
        self._parts = sorted(parts, key=lambda part: ATTENTION_SITES.index(part.site))
        self._tokens = {
            part.keys: select_tokens(part.keys, groups, rows)
            for part in parts
            if isinstance(part, AttentionEdit)
        }
        self._groups, self._more, self._edited_rows = groups, more, rows
        self.layers = tuple(sorted({layer for part in parts for layer in part.layers}))
        self.counted: Tensor | None = None
        self.watch: Watch | None = None
        self.keep: Callable[[Change, slice], None] | None = None
        self.keep_sums: Callable[[str, Tensor, int], None] | None = None
        self.follows_thoughts = any(map(_follows_thoughts, parts))
        self.thought_open: Tensor | None = None
        self._size, self._width = groups["generated"].shape
        self._chosen = {part.queries: select_queries(part.queries, groups) for part in parts}
        self._first = [first_query(part.queries, part.phase, groups) for part in self._parts]
        self.first: int = min(self._first, default=self._width)
        self.shares = self.first >= self._width - 1
        self._row_masks = SharedMasks()
        self._columns_on: dict[tuple[str, torch.device], Tensor] = {}
        self._coefficients_on: dict[tuple, Tensor] = {}
        # which scores a part touches, by all that this depends on; with the tensors that are part of it
        self._touched: dict[tuple, tuple[RowMask, Tensor | None, Tensor]] = {}
        # changes whose dose is not yet computed, each with which of its rows count
        self._pending: list[tuple[Change, Tensor | None]] = []
        self._pending_scores = 0
        # on the model's device until they are asked for: reading them in every layer would make it wait
        self._sums: list[Tensor] = []  # [6, B] each: of DOSE, and of how many rows and heads they are sums
        self._counts: dict[str, list[Tensor]] = {}  # [2, B] each: of what methods count, and of how many rows

    def __call__(self, layer: int, call: AttentionCall, total: int) -> tuple[slice, Tensor] | None:
        """What to add to this call's output.

        Args:
            layer: index in the decoder.
            call: its queries stand at the absolute positions total - Q, ..., total - 1.
            total: tokens so far, these included.

        Returns:
            The rows among the Q queries and a float32 [B, R, H, Dv] to add to them; None for no change.
        """
        span = self._span(layer, call, total)
        if span is None:
            return None
        parts = [part for part in self._parts if layer in part.layers]
        offset = total - call.query.shape[2]
        rows = slice(span[0] - offset, span[1] - offset)
        if self.watch is not None or not all(isinstance(part, AttentionEdit) for part in parts):
            return rows, self._apply_methods(parts, layer, call, span, total)
        row_mask = self._row_masks.of(call, rows)
        edits = self._edits(layer, call, span, total, row_mask)
        delta, change = call.delta(edits, rows, row_mask)
        if any(getattr(edit.rule, "hides_keys", False) for edit in edits):
            refuse_blind_queries(change.edited, change.touched, layer)
        if not self.shares:  # rows of padding see nothing: their change is not 0 but NaN
            delta = torch.where(change.touched.any(-1).transpose(1, 2)[..., None], delta, 0.0)
        self._keep(change, rows)
        return rows, delta

    @staticmethod
    def check_layers(part: Intervention, heads: Mapping[int, int]) -> None:
        """Refuse a method whose layers have no attention.

        Raises:
            InterventionError: naming the first such layer.
        """
        for layer in part.layers:
            if layer not in heads:
                raise InterventionError(
                    f"No attention in layer {layer}: the model has it in layers {brief(heads)}."
                )

    def edits(self, layer: int, call: AttentionCall, total: int) -> list[Edit]:
        """The attention edits of this call, in order: rule, mask bool [B, 1|H, R, L] and strength of each."""
        span = self._span(layer, call, total)
        if span is None:
            return []
        offset = total - call.query.shape[2]
        row_mask = self._row_masks.of(call, slice(span[0] - offset, span[1] - offset))
        return self._edits(layer, call, span, total, row_mask)

    def _edits(
        self, layer: int, call: AttentionCall, span: tuple[int, int], total: int, row_mask: RowMask
    ) -> list[Edit]:
        parts = [p for p in self._parts if layer in p.layers and isinstance(p, AttentionEdit)]
        edits = []
        for part in parts:
            mask = self._mask(part, layer, call, span, total, row_mask)
            pair = self._pair(part, layer, call, span, total) if len(parts) == 1 else None
            edits.append(Edit(find_rule(part.rule), mask, part.alpha, True, pair))
        return edits

    def _pair(
        self, part: AttentionEdit, layer: int, call: AttentionCall, span: tuple[int, int], total: int
    ) -> Callable[[Tensor], Tensor] | None:
        """That of an `Edit`, for tokens of the answer; None where the rule itself acts."""
        pair = find_rule(part.rule).pair
        by_rule = not self._is_answer(part, span) or part.heads_of(layer) is not None
        if pair is None or by_rule or self._edited_rows is not None:
            return None
        key = (part.keys, pair, part.alpha, call.key.device)
        made = self._coefficients_on.get(key)
        if made is None or made.shape[-1] < total:  # for many tokens ahead
            self._columns(part.keys, total, call.key.device)
            columns = self._columns_on[part.keys, call.key.device]
            made = self._coefficients_on[key] = pair.coefficients(columns[:, None, None], part.alpha)
        coefficients = made[..., total - call.length : total]  # (2, B, 1, 1, L)
        return lambda scores: pair.apply(scores, coefficients)

    def _is_answer(self, part: AttentionEdit, span: tuple[int, int]) -> bool:
        """Whether all queries are tokens of an answer, which a part edits whatever they are."""
        return span[0] >= self._width and part.phase != "prefill" and not _follows_thoughts(part)

    @full_precision()  # rows of the last calls may be waiting to be summed
    def dose(self) -> dict[str, np.ndarray]:
        """Each of DOSE, float64 [B]: its mean over edited layers, heads and queries; NaN if none.

        Of edits of scores and weights. Where a method that is no AttentionEdit acts on a layer, the means are
        over all heads; the masses are those of audio, or of the method's ``keys``; weights that do not sum to
        1 are divided by their sum for the divergence; and ``boost`` and ``negative``, which belong to edits
        of chosen scores, are NaN. What methods count is there under its name, as a fraction. Methods that
        edit head outputs alone have no dose, {}.
        """
        if not any(part.site in ("scores", "weights") for part in self._parts):
            return {}
        self._record()
        if not self._sums:
            return {name: np.full(self._size, np.nan) for name in DOSE}
        together = torch.stack([part.to(self._sums[0].device) for part in self._sums])
        dose = mean_dose(together.cpu().double().sum(0))
        for name, parts in self._counts.items():
            some, every = torch.stack([part.cpu() for part in parts]).sum(0).double()
            dose[name] = (some / every).numpy()
        return dose

    def _span(self, layer: int, call: AttentionCall, total: int) -> tuple[int, int] | None:
        """The first position edited in this call and the one after the last; None where there is none."""
        parts = [(part, first) for part, first in zip(self._parts, self._first, strict=True)]
        parts = [(part, first) for part, first in parts if layer in part.layers]
        first = max(min(first for _, first in parts), total - call.query.shape[2])
        last = min(self._width if all(part.phase == "prefill" for part, _ in parts) else total, total)
        return None if first >= last else (first, last)

    def _mask(
        self,
        part: AttentionEdit,
        layer: int,
        call: AttentionCall,
        span: tuple[int, int],
        total: int,
        row_mask: RowMask,
    ) -> Tensor:
        """Which visible scores a part may touch at the positions of ``span``: bool [B, 1|H, R, L]."""
        heads, count, device = part.heads_of(layer), call.query.shape[1], call.key.device
        # most layers of a pass are alike: the mask is computed once for all of them
        settings = (part.keys, part.queries, part.phase, heads, count if heads else None)
        thought = self.thought_open if _follows_thoughts(part) else None
        alike = (*settings, span, total, call.length, device, id(row_mask), id(thought))
        if alike in self._touched:
            return self._touched[alike][-1]
        if self._is_answer(part, span):
            # every token of the answer is edited, and none of them is text of the prompt
            mask = self._columns(part.keys, total, device)[:, None, None, total - call.length :]
        else:
            positions = torch.arange(*span, device=device)
            # a sliding cache has the newest keys only
            columns = torch.arange(total - call.length, total, device=device)
            tokens, chosen = self._tokens[part.keys], self._chosen[part.queries]
            mask = select_scores(
                tokens, chosen, part.keys, part.phase, columns[None], positions[None], thought
            )
            mask = mask[:, None]
        if heads is not None:
            mask = mask & select_heads(heads, count, device)[:, None, None]
        if row_mask.visible is not None:
            mask = mask & row_mask.visible
        if self._edited_rows is not None:
            mask = mask & self._edited_rows.to(device)[:, None, None, None]
        if len(self._touched) > KEPT * len(self._parts):
            self._touched.clear()
        # the row mask and the thoughts too, so that no others take their identity
        self._touched[alike] = row_mask, thought, mask
        return mask

    def _columns(self, keys: str, total: int, device: torch.device) -> Tensor:
        """Which of the first ``total`` tokens are in a group, bool [B, total]; made for many tokens ahead."""
        columns = self._columns_on.get((keys, device))
        if columns is None or columns.shape[1] < total:
            tokens = self._tokens[keys].to(device)
            columns = pad(tokens, (0, total + AHEAD - self._width), value=keys == "generated")
            self._columns_on[keys, device] = columns
        return columns[:, :total]

    def _apply_methods(
        self,
        parts: Sequence[Intervention],
        layer: int,
        call: AttentionCall,
        span: tuple[int, int],
        total: int,
    ) -> Tensor:
        """What methods of any kind add to the output at the positions of ``span``: [B, R, H, Dv]."""
        blocks = []
        for begin in range(*span, BLOCK):
            block = begin, min(begin + BLOCK, span[1])
            blocks.append(self._apply_to_block(parts, layer, call, block, total))
        return torch.cat(blocks, 1)

    def _apply_to_block(
        self,
        parts: Sequence[Intervention],
        layer: int,
        call: AttentionCall,
        span: tuple[int, int],
        total: int,
    ) -> Tensor:
        offset = total - call.query.shape[2]
        rows = slice(span[0] - offset, span[1] - offset)
        positions, scores = torch.arange(*span, device=call.key.device), call.scores(rows)
        edited_anywhere = torch.zeros(len(scores), len(positions), dtype=torch.bool, device=scores.device)
        by_site: dict[str, list[tuple[Intervention, SiteContext]]] = {site: [] for site in ATTENTION_SITES}
        for part in parts:
            context = self._context(part, layer, call, positions, total)
            edited_anywhere |= context.edited
            by_site[part.site].append((part, context))

        edited_scores = scores
        for part, context in by_site["scores"]:
            changed = part.edit(edited_scores, context)
            # a hidden key stays hidden, and one that an earlier part knocked out as well
            keep = ~context.edited[:, None, :, None] | (edited_scores == -torch.inf)
            edited_scores = torch.where(keep, edited_scores, changed)
        plain = scores.softmax(-1)
        weights = edited_scores.softmax(-1) if by_site["scores"] else plain
        for part, context in by_site["weights"]:
            changed = part.edit(weights, context)
            weights = torch.where(context.edited[:, None, :, None], changed, weights)
        if self.watch is not None:
            self.watch(layer, positions, weights, edited_anywhere)
        if by_site["scores"] or by_site["weights"]:
            measured = next(each for site in ("scores", "weights") for each in by_site[site])
            self._keep_dose(plain, weights, edited_anywhere, *measured, rows)
        for _, context in (*by_site["scores"], *by_site["weights"]):
            self._keep_counts(context, rows)
        change = call.mix(weights - plain)
        if by_site["head_output"]:
            output = edited_output = call.mix(weights)
            for part, context in by_site["head_output"]:
                changed = part.edit(edited_output, replace(context, weights=weights))
                edited_output = torch.where(context.edited[:, None, :, None], changed, edited_output)
            change = change + (edited_output - output)
        # rows of padding see nothing: their change is not 0 but NaN
        return torch.where(edited_anywhere[:, :, None, None], change.transpose(1, 2), 0.0)

    def _context(
        self, part: Intervention, layer: int, call: AttentionCall, positions: Tensor, total: int
    ) -> SiteContext:
        columns = torch.arange(total - call.length, total, device=positions.device)
        opened = self.thought_open
        edited = select_rows(self._chosen[part.queries], part.phase, positions[None], opened)
        if self._edited_rows is not None:
            edited = edited & self._edited_rows[:, None].to(edited.device)
        groups = dict(self._groups)
        if self.follows_thoughts:
            none = torch.zeros_like(groups["generated"])
            groups = {"reasoning": none, "answer": none, **groups}
        return SiteContext(
            layer=layer,
            positions=positions[None],
            width=self._width,
            edited=edited,
            tokens={n: select_columns(mask, n, positions[None], opened) for n, mask in groups.items()},
            keys={n: select_columns(mask, n, columns[None], opened) for n, mask in groups.items()},
            key_positions=columns[None],
            call=call,
            **(self._more(part, positions) if self._more else {}),
        )

    def _keep_dose(
        self,
        plain: Tensor,
        weights: Tensor,
        edited: Tensor,
        part: Intervention,
        context: SiteContext,
        rows: slice,
    ) -> None:
        """Add the dose of rows of weights [B, H, R, L] to the sums: KL and masses, without boost.

        Args:
            plain: the weights before.
            weights: those after.
            edited: bool [B, R].
            part: the method whose group of keys is measured.
            context: of this method.
            rows: which of the call's queries they are.
        """
        if isinstance(part, AttentionEdit):
            names = groups_named(part.keys, context.keys)
            group = torch.stack([context.keys[name] for name in names]).any(0)[:, None, None]
        else:
            name = getattr(part, "keys", "audio")
            group = context.columns(name if isinstance(name, str) else "audio")
        on = self._in_dose(edited, rows)
        share = weights / weights.sum(-1, keepdim=True).clamp(min=LEAST)
        divergence = torch.special.xlogy(share, share / plain.clamp(min=LEAST)).sum(-1)
        masses = [(x * group).sum(-1) for x in (plain, weights)]
        unknown = torch.full_like(divergence, torch.nan)
        values = torch.stack([*masses, divergence, unknown, unknown, torch.ones_like(divergence)])
        values = torch.where(on[:, None], values, 0.0).sum(2, dtype=accumulator(on.device))
        if self.keep_sums is not None:
            self.keep_sums(SUMS, values, rows.start)
        else:
            self._sums.append(values.sum(2))

    def _keep_counts(self, context: SiteContext, rows: slice) -> None:
        """Add what a method counted in rows to its sums."""
        on = self._in_dose(context.edited, rows)[:, None]  # (B, 1, R)
        for name, counted in context.counts.items():
            both = torch.stack([counted & on, on.expand_as(counted)]).sum(2)
            if self.keep_sums is not None:
                self.keep_sums(name, both, rows.start)
            else:
                self._counts.setdefault(name, []).append(both.sum(2))

    def _in_dose(self, edited: Tensor, rows: slice) -> Tensor:
        """Which of these rows of a call, bool [B, R], enter the dose."""
        return edited if self.counted is None else edited & self.counted.to(edited.device)[:, rows]

    def _keep(self, change: Change, rows: slice) -> None:
        """Put a change aside: the dose of many layers and decoded tokens is computed at once."""
        if self.keep is not None:
            self.keep(change, rows)
            return
        self._pending.append((change, None if self.counted is None else self.counted[:, rows]))
        self._pending_scores += change.scores.numel()
        if self._pending_scores > PENDING.get(change.scores.device.type, PENDING_ELSEWHERE):
            self._record()

    def _record(self) -> None:
        """Add the dose of all that is pending to the sums."""
        alike: dict[tuple, list[tuple[Change, Tensor | None]]] = {}
        for change, counted in self._pending:
            key = (change.scores.shape[2], change.scores.device, counted is None)
            alike.setdefault(key, []).append((change, counted))
        self._pending.clear()
        self._pending_scores = 0
        for some in alike.values():
            self._sums.append(_summed_dose([change for change, _ in some], [counted for _, counted in some]))


def _summed_dose(changes: Sequence[Change], counted: Sequence[Tensor | None]) -> Tensor:
    """Sums over heads and rows of the dose of changes of as many rows each, and how many there are: [6, B].

    Args:
        changes: the changes.
        counted: which of their rows count, bool [B, R] each; None: all.
    """
    # those of a length stand together, as `joined` puts them
    order = sorted(range(len(changes)), key=lambda i: changes[i].scores.shape[3])
    rows = [
        mask[:, None].expand(-1, changes[i].scores.shape[1], -1)
        for i in order
        if (mask := counted[i]) is not None
    ]
    values = dose_values(Change.joined([changes[i] for i in order]), torch.cat(rows, 1) if rows else None)
    return values.sum((2, 3), dtype=accumulator(values.device))


def dose_values(change: Change, counted: Tensor | None = None) -> Tensor:
    """Each of `DOSE` in every row, and 1 as its count: float32 [6, B, H, R], 0 where a row does not count.

    Args:
        change: rows of scores before and after edits.
        counted: which rows count among those that are edited, bool [B, 1|H, R]; None: all of them.
    """
    dose = change.dose()
    on = dose.touched if counted is None else dose.touched & counted.to(dose.touched.device)
    values = torch.stack([*(getattr(dose, name) for name in DOSE), torch.ones_like(dose.kl)])
    return torch.where(on, values, 0.0)


def mean_dose(sums: Tensor) -> dict[str, np.ndarray]:
    """Sums of `dose_values` [6, ...] as means: each of `DOSE`, float64 [...]; NaN where nothing counts."""
    *of_rows, counts = sums.cpu().double()
    return {name: (values / counts).numpy() for name, values in zip(DOSE, of_rows, strict=True)}


def accumulator(device: torch.device) -> torch.dtype:
    """In which doses are summed: float64, which not every device has."""
    return torch.float64 if device.type == "cpu" else torch.float32


def _follows_thoughts(part: Intervention) -> bool:
    """Whether a part needs to know which tokens are reasoning."""
    return bool({part.phase, getattr(part, "keys", "")} & {"reasoning", "answer"})


def refuse_part(part: Intervention, heads: Mapping[int, int]) -> None:
    """Refuse a part that cannot act on the attention of this model."""
    if part.site not in ATTENTION_SITES:
        raise InterventionError(
            f"{type(part).__name__} acts on the site {part.site!r}, not on attention "
            f"({', '.join(ATTENTION_SITES)}): use lalm.logits, lalm.score or lalm.generate."
        )
    if isinstance(part, AttentionEdit):
        part.bind(heads)
    else:
        Editing.check_layers(part, heads)
