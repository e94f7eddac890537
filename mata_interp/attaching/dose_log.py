"""The dose of a generation that code outside this package runs, counting only tokens of its answers.

A pass may read tokens that are rejected later (assisted generation), and beams are reordered and dropped. So
the dose of each token is kept apart, in a tree of the tokens that were read: a node is a token with
the tokens before it on the path from the prompt, and an answer is a path down from its prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from mata_interp.attention import Change
from mata_interp.interventions import DOSE
from mata_interp.interventions.editing import PENDING, PENDING_ELSEWHERE, SUMS

__all__ = ["DoseLog"]

Sums: TypeAlias = dict[str, np.ndarray]  # name -> [k], as in `_Pass`


@dataclass
class _Pass:
    """One pass of the decoder, or a reordering of rows between passes.

    Attributes:
        before: tokens in the cache when it began.
        tokens: ids that it read, [R, Q]; on the model's device until they are asked for.
        order: int [R]; where set, the rows were reordered, and nothing was read.
        doses: name, first position, and sums over heads [k, R, n] of n queries from there on: with the name
            `SUMS`, those of DOSE and the number of heads; else a method's count and the number of heads.
    """

    before: int = 0
    tokens: Tensor | None = None
    order: Tensor | None = None
    doses: list[tuple[str, int, Tensor]] = field(default_factory=list)


class DoseLog:
    """What was read in each pass of the decoder over a batch of prompts, and the dose of it.

    Args:
        width: P, tokens of a prompt.
        per_prompt: rows of the model for each prompt: beams, or several answers.
    """

    def __init__(self, width: int, per_prompt: int = 1) -> None:
        self._width, self._per_prompt = width, per_prompt
        self._passes: list[_Pass] = []
        self._pending: list[tuple[_Pass, int, Change]] = []  # with the position of the change's first row
        self._pending_scores = 0

    def begin(self, before: int, tokens: Tensor) -> None:
        """A pass over these ids [R, Q] begins; ``before`` tokens are in the cache."""
        self._passes.append(_Pass(before, tokens))

    def reorder(self, order: Tensor) -> None:
        """The next pass continues from the rows at these indices, int [R]."""
        self._passes.append(_Pass(order=order))

    def keep(self, change: Change, rows: slice) -> None:
        """Record the change of one layer's scores, for some queries of the current pass."""
        at = self._passes[-1]
        self._pending.append((at, at.before + rows.start, change.detach()))
        self._pending_scores += change.scores.numel()
        if self._pending_scores > PENDING.get(change.scores.device.type, PENDING_ELSEWHERE):
            self._compute()

    def keep_sums(self, name: str, sums: Tensor, row: int) -> None:
        """Record sums over one layer's heads [k, R, n], for queries of the current pass from ``row`` on."""
        at = self._passes[-1]
        at.doses.append((name, at.before + row, sums.detach()))

    def sums(self, answers: Sequence[Sequence[int]] | None = None) -> dict[str, np.ndarray]:
        """Sums over layers, heads and queries: name -> float64 [S, k].

        `SUMS` -> those of each of DOSE and their number, [S, 6]; the name of a method's count -> the count
        and its number, [S, 2].

        Args:
            answers: of S answers, equally many for each prompt, the tokens without the last: what the model
                read to write them. None: all tokens that each of the R rows read and did not reject.
        """
        self._compute()
        tree = _Tree(self._width, self._per_prompt)
        for one in self._passes:
            tree.add(one)
        return tree.sums_of_rows() if answers is None else tree.sums_of(answers)

    @torch.no_grad()
    def _compute(self) -> None:
        """The dose of all that is pending."""
        alike: dict[tuple, list[tuple[_Pass, int, Change]]] = {}
        for entry in self._pending:
            scores = entry[2].scores
            key = (scores.shape[0], scores.shape[1], scores.shape[2], scores.device)
            alike.setdefault(key, []).append(entry)
        self._pending, self._pending_scores = [], 0
        for some in alike.values():
            some.sort(key=lambda entry: entry[2].scores.shape[3])  # as `Change.joined` puts them
            dose = Change.joined([change for _, _, change in some]).dose()
            values = torch.stack([*(getattr(dose, name) for name in DOSE), torch.ones_like(dose.kl)])
            # not every device has float64
            exact = torch.float64 if values.device.type == "cpu" else torch.float32
            values = torch.where(dose.touched, values, 0.0).unflatten(2, (len(some), -1))
            for (at, position, _), sums in zip(some, values.sum(3, dtype=exact).unbind(2), strict=True):
                at.doses.append((SUMS, position, sums))


class _Tree:
    """Tokens read, from each prompt on, with their dose."""

    def __init__(self, width: int, per_prompt: int) -> None:
        self._width, self._per_prompt = width, per_prompt
        self._children: list[dict[int, int]] = []  # token -> node
        self._dose: list[Sums] = []
        self._roots: list[int] = []  # the node of each prompt
        self._lines: list[
            list[int]
        ] = []  # of each row, its nodes: the prompt's node, then one for each token

    def add(self, one: _Pass) -> None:
        """Add a pass or a reordering."""
        if one.order is not None:
            self._lines = [list(self._lines[row]) for row in one.order.tolist()]
            return
        assert one.tokens is not None
        tokens = one.tokens.tolist()
        if not self._lines:
            roots = [self._node() for _ in range(len(tokens) // self._per_prompt)]
            self._lines = [[roots[row // self._per_prompt]] for row in range(len(tokens))]
            self._roots = roots
        behind = max(0, one.before - self._width)  # tokens of the answer that stay as they are
        for line, read in zip(self._lines, tokens, strict=True):
            del line[1 + behind :]
            if one.before == 0:
                self._dose[line[0]].clear()
            for token in read[max(0, self._width - one.before) :]:
                line.append(self._children[line[-1]].setdefault(token, len(self._dose)))
                if line[-1] == len(self._dose):
                    self._node()
                self._dose[line[-1]].clear()
        for name, position, sums in one.doses:
            self._add_dose(name, position, sums.double().cpu().numpy())

    def _add_dose(self, name: str, position: int, sums: np.ndarray) -> None:
        """Sums [k, R, n] of queries from a position on; rows on the same path count once."""
        for column in range(sums.shape[2]):
            place = max(0, position + column - self._width + 1)
            nodes: set[int] = set()
            for row, line in enumerate(self._lines):
                if line[place] not in nodes:
                    _add(self._dose[line[place]], {name: sums[:, row, column]})
                    nodes.add(line[place])

    def _node(self) -> int:
        self._children.append({})
        self._dose.append({})
        return len(self._dose) - 1

    def sums_of_rows(self) -> dict[str, np.ndarray]:
        return _stacked([_total(self._dose[node] for node in line) for line in self._lines])

    def sums_of(self, answers: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        per_prompt = max(1, len(answers) // max(1, len(self._roots)))
        return _stacked([_total(self._down(self._roots[n // per_prompt], a)) for n, a in enumerate(answers)])

    def _down(self, node: int, answer: Sequence[int]) -> Iterator[Sums]:
        """The dose of the prompt, the node that an answer begins from, and of each of its tokens."""
        yield self._dose[node]
        for token in answer:
            if token not in self._children[node]:
                break
            node = self._children[node][token]
            yield self._dose[node]


def _add(total: Sums, more: Sums) -> None:
    for name, sums in more.items():
        total[name] = total[name] + sums if name in total else sums


def _total(doses: Iterable[Sums]) -> Sums:
    total: Sums = {SUMS: np.zeros(len(DOSE) + 1)}
    for dose in doses:
        _add(total, dose)
    return total


def _stacked(rows: Sequence[Sums]) -> dict[str, np.ndarray]:
    """Name -> [S, k], zeros in rows that have no such sums."""
    widths = {SUMS: len(DOSE) + 1} | {name: len(sums) for row in rows for name, sums in row.items()}
    return {
        name: np.array([row.get(name, np.zeros(width)) for row in rows]).reshape(len(rows), width)
        for name, width in widths.items()
    }
