"""The dose of a generation that others run, of the tokens that became part of its answers and no others.

A pass may read tokens that are rejected later (assisted generation), and beams are reordered and dropped. So
the dose of each token is kept apart, in a tree of the tokens that were read: a node is a token behind the
tokens on the way to it, and an answer is a way down from its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mata_interp.attention import Change
from mata_interp.interventions import DOSE
from mata_interp.interventions.editing import PENDING, PENDING_ELSEWHERE

__all__ = ["DoseLog"]


@dataclass
class _Pass:
    """One pass of the decoder, or a reordering of rows between passes.

    Attributes:
        before: tokens in the cache when it began.
        tokens: ids that it read, [R, Q]; on the model's device until they are asked for.
        order: int [R]; where set, the rows were reordered, and nothing was read.
        doses: (first position, sums [6, R, n] of DOSE and how many heads they are sums of), of the edits.
    """

    before: int = 0
    tokens: Tensor | None = None
    order: Tensor | None = None
    doses: list[tuple[int, Tensor]] = field(default_factory=list)


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
        """A pass over these ids [R, Q] begins, behind ``before`` tokens."""
        self._passes.append(_Pass(before, tokens))

    def reorder(self, order: Tensor) -> None:
        """The next pass goes on from the rows at these indices, int [R]."""
        self._passes.append(_Pass(order=order))

    def keep(self, change: Change, rows: slice) -> None:
        """A change of the scores of some queries of the pass at hand; it is that of one layer."""
        at = self._passes[-1]
        change = Change(*(tensor.detach() for tensor in change))
        self._pending.append((at, at.before + rows.start, change))
        self._pending_scores += change.scores.numel()
        if self._pending_scores > PENDING.get(change.scores.device.type, PENDING_ELSEWHERE):
            self._compute()

    def sums(self, answers: Sequence[Sequence[int]] | None = None) -> np.ndarray:
        """Sums over layers, heads and queries of each of DOSE, and their number: float64 [S, 6].

        Args:
            answers: of S answers, equally many for each prompt, the tokens without the last: what the model
                read to write them. None: for each of the R rows, all that it read and did not go back on.
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
                at.doses.append((position, sums))


class _Tree:
    """Tokens read, from each prompt on, with their dose."""

    def __init__(self, width: int, per_prompt: int) -> None:
        self._width, self._per_prompt = width, per_prompt
        self._children: list[dict[int, int]] = []  # token -> node
        self._dose: list[np.ndarray] = []
        self._roots: list[int] = []  # the node of each prompt
        self._lines: list[list[int]] = []  # of each row, its nodes: the prompt's, then one for each token

    def add(self, one: _Pass) -> None:
        """Take in a pass, or a reordering."""
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
                self._dose[line[0]][:] = 0.0
            for token in read[max(0, self._width - one.before) :]:
                line.append(self._children[line[-1]].setdefault(token, len(self._dose)))
                if line[-1] == len(self._dose):
                    self._node()
                self._dose[line[-1]][:] = 0.0
        for position, sums in one.doses:
            self._add_dose(position, sums.double().cpu().numpy())

    def _add_dose(self, position: int, sums: np.ndarray) -> None:
        """Sums [6, R, n] of queries from a position on; rows on the same way count once."""
        for column in range(sums.shape[2]):
            place = max(0, position + column - self._width + 1)
            nodes: set[int] = set()
            for row, line in enumerate(self._lines):
                if line[place] not in nodes:
                    self._dose[line[place]] += sums[:, row, column]
                    nodes.add(line[place])

    def _node(self) -> int:
        self._children.append({})
        self._dose.append(np.zeros(len(DOSE) + 1))
        return len(self._dose) - 1

    def sums_of_rows(self) -> np.ndarray:
        return np.array([sum(self._dose[node] for node in line) for line in self._lines])

    def sums_of(self, answers: Sequence[Sequence[int]]) -> np.ndarray:
        per_prompt = max(1, len(answers) // max(1, len(self._roots)))
        return np.array([self._down(self._roots[n // per_prompt], a) for n, a in enumerate(answers)])

    def _down(self, node: int, answer: Sequence[int]) -> np.ndarray:
        """The dose of an answer's tokens and of the prompt, the node that they begin from."""
        total = self._dose[node].copy()
        for token in answer:
            if token not in self._children[node]:
                break
            node = self._children[node][token]
            total += self._dose[node]
        return total
