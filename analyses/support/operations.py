"""What a generated token costs, counted in operations: a number that no other process can disturb.

On an accelerator a token of a small batch costs little but the launch of each operation, and on a CPU much of
its time is spent between them. Views, which compute nothing, are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import mata_interp as mi

__all__ = ["Operations", "token_operations"]

SHORT, LONG = 8, 24  # tokens of two answers, whose difference is that of tokens alone
VIEWS = {"aten._unsafe_view.default", "aten.detach.default"}


class Operations(TorchDispatchMode):
    """Inside, counts the operations that compute something, by name.

    Example:
        >>> import torch
        >>> with Operations() as operations:
        ...     x = (torch.ones(2) + 1).view(1, 2)
        >>> operations.total
        2
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Number of operations."""
        return sum(self.names.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if not func.is_view and str(func) not in VIEWS:
            self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


def token_operations(
    lalm: mi.LALM, prompt: mi.Prompt, edits: dict[str, mi.AttentionEdit]
) -> list[dict[str, Any]]:
    """Operations of a token: transformers' ``generate`` alone, then `LALM.generate` and with ``mi.attach``.

    Args:
        lalm: the model; no answer may end early.
        prompt: of one or several rows.
        edits: name -> edit in force, for both ways.

    Returns:
        Rows with ``name``, ``operations`` of a token and ``ratio`` to transformers' own.
    """

    def by_transformers(tokens: int) -> None:
        lalm.model.generate(**prompt.inputs, max_new_tokens=tokens, do_sample=False)

    def by_lalm(edit: mi.AttentionEdit | None) -> Callable[[int], object]:
        return lambda tokens: lalm.generate(prompt, edit, max_new_tokens=tokens)

    def attached(edit: mi.AttentionEdit) -> Callable[[int], object]:
        def generate(tokens: int) -> None:
            with mi.attach(lalm.model, edit):
                by_transformers(tokens)

        return generate

    ways: dict[str, Callable[[int], object]] = {"transformers": by_transformers, "generate": by_lalm(None)}
    ways |= {f"generate, {name}": by_lalm(edit) for name, edit in edits.items()}
    ways |= {f"attached, {name}": attached(edit) for name, edit in edits.items()}
    counts = {name: _of_a_token(generate) for name, generate in ways.items()}
    plain = counts["transformers"]
    return [{"name": name, "operations": n, "ratio": n / plain} for name, n in counts.items()]


def _of_a_token(generate: Callable[[int], object]) -> float:
    totals = []
    for tokens in (SHORT, LONG):
        with Operations() as operations:
            generate(tokens)
        totals.append(operations.total)
    return (totals[1] - totals[0]) / (LONG - SHORT)
