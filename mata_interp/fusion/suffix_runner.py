"""The text behind the sound, run again on the keys and values of what stands before it.

Whatever is asked of it (attention calls, gradients, patched states) costs a part of a forward, because text
is a small part of a prompt with sound; and states outside the text need no gradient. A baseline, if the case
has one, is in force in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.lalm.calls.attention_calls import Replace, attention_calls
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.discovery.hooks import (
    hidden_states_in,
    replace_hidden_states,
    temporary_hooks,
)

from .baseline_edit import BaselineEdit

if TYPE_CHECKING:
    from .item_context import ItemContext

__all__ = ["SuffixRunner", "SuffixTrace"]

Patch = Callable[[int, Tensor], Tensor]
"""``patch(layer, states[R, S, d]) -> states``: before each layer."""


@dataclass(frozen=True, eq=False)
class SuffixTrace:
    """What a run of the ending left behind; S tokens, the last of which decides.

    Attributes:
        calls: of each attention layer, its call, with S queries; a baseline is a part of its mask.
        gradients: of each attention layer, d margin / d output of the call: float32 [H, S, Dv].
        outputs: of each attention layer, what its module gave for the deciding token [d], with its gradient's
            way back to ``changes``.
        changes: of each layer, the zeros [1, S, H, Dv] that were added to the call's output.
        states: before the first layer and behind each: [layers + 1, S, d].
        inputs: of each layer, what its parts were given for the deciding token.
        last: what the decoder's last norm was given and gave for the deciding token, [d] each; None if it
            has no such norm.
        norm: that norm.
        margin: logit(right) - logit(wrong).
    """

    calls: dict[int, AttentionCall]
    gradients: dict[int, Tensor]
    outputs: dict[int, Tensor]
    changes: dict[int, Tensor]
    states: list[Tensor]
    inputs: dict[int, list[Tensor]]
    last: tuple[Tensor, Tensor] | None
    norm: Any
    margin: float


class SuffixRunner:
    """Runs of the end of a prompt, from the token ``begin`` on, and of the forced tokens behind it."""

    def __init__(self, case: ItemContext, begin: int) -> None:
        self._case, self._begin = case, begin
        tokens = case.prompt.inputs["input_ids"]
        forced = tokens.new_tensor([case.decision.forced])
        self.tokens = torch.cat([tokens[:, begin:], forced.long().reshape(1, -1)], 1)  # (1, S)
        self.total = tokens.shape[1] + forced.shape[1]
        self._acting = BaselineEdit(case, self.tokens, forced.shape[1])

    def past(self) -> Any:
        """The cache of what stands before."""
        return self._case.reading.before(self._case.reading.length - self._begin)

    @torch.no_grad()
    def margins(self, rows: int, past: Any, patch: Patch | None = None) -> Tensor:
        """logit(right) - logit(wrong) of ``rows`` variants: float64 [R].

        Args:
            past: a cache of as many rows.
            patch: changes what enters each layer.
        """
        structure = self._case.lalm.structure
        hooks = [] if patch is None else [(b, _patching(patch, i)) for i, b in enumerate(structure.blocks)]
        with ExitStack() as stack:
            stack.enter_context(exclusive(structure.decoder))
            stack.enter_context(temporary_hooks(hooks))
            if not self._case.baseline:  # the model's own attention, whatever kernel that is
                return self._margin(self._run(rows, past)).double()
            run = stack.enter_context(_replacing(structure, _Formula(self._acting)))
            return self._margin(run(lambda: self._run(rows, past))).double()

    def watch(self) -> SuffixTrace:
        """Run it once as it is, and back from the margin to every attention call."""
        lalm = self._case.lalm
        states: list[Tensor] = []
        outputs: dict[int, Tensor] = {}
        inputs: dict[int, list[Tensor]] = {layer: [] for layer in range(lalm.num_layers)}
        ends: list[tuple[Any, Tensor, Tensor]] = []
        attention = _Kept(self._acting)

        def entering(args: tuple, kwargs: dict) -> None:
            states.append(_last(hidden_states_in(args, kwargs)).detach())

        def leaving(args: tuple, kwargs: dict, out: Any) -> None:
            states.append(_last(out).detach())

        def given(layer: int) -> Any:
            def hook(args: tuple, kwargs: dict) -> None:
                if args and isinstance(args[0], Tensor) and args[0].dim() == 3:
                    inputs[layer].append(args[0][0, -1].detach())

            return hook

        def attended(layer: int) -> Any:
            return lambda args, kwargs, out: outputs.update({layer: _last(out)[-1]})

        def ended(part: Any) -> Any:
            def hook(args: tuple, kwargs: dict, out: Any) -> None:
                if args and isinstance(out, Tensor) and out.dim() == 3 and args[0].shape == out.shape:
                    ends.append((part, args[0][0, -1].detach(), out[0, -1].detach()))

            return hook

        structure, blocks = lalm.structure, lalm.structure.blocks
        before: list[Any] = [(blocks[0], entering)]
        before += [(p, given(i)) for i, block in enumerate(blocks) for p in block.children()]
        after: list[Any] = [(block, leaving) for block in blocks]
        after += [(module, attended(layer)) for layer, module in structure.attention.items()]
        after += [(part, ended(part)) for part in structure.decoder.children()]
        with (
            exclusive(structure.decoder),
            temporary_hooks(before, after),
            torch.enable_grad(),
            _frozen(lalm.model),
        ):
            with _replacing(structure, attention) as run:
                margin = run(lambda: self._margin(self._run(1, self.past()))[0])
            found = torch.autograd.grad(margin, list(attention.changes.values()), retain_graph=True)
        norm, *last = ends[-1] if ends else (None,)
        return SuffixTrace(
            attention.calls,
            {layer: g[0].transpose(0, 1) for layer, g in zip(attention.changes, found, strict=True)},
            outputs,
            attention.changes,
            states,
            inputs,
            (last[0], last[1]) if last else None,
            norm,
            float(margin.detach()),
        )

    def _run(self, rows: int, past: Any) -> Tensor:
        """Logits of the deciding token, [R, V]."""
        mask = self._case.prompt.inputs.get("attention_mask")
        ones = torch.ones(rows, self.total, dtype=torch.long if mask is None else mask.dtype)
        return self._case.lalm.model(
            input_ids=self.tokens.expand(rows, -1),
            attention_mask=ones.to(self.tokens.device),
            past_key_values=past,
            use_cache=True,
            **self._positions(rows, past),
        ).logits[:, -1]

    def _positions(self, rows: int, past: Any) -> dict[str, Tensor]:
        """``position_ids``, where the decoder does not count its positions itself."""
        positions = getattr(past, "prompt_positions", None)  # [B, T], or [3, B, T] for three axes
        if positions is None:
            return {}
        ahead = torch.arange(1, 1 + len(self._case.decision.forced), device=positions.device)
        whole = torch.cat([positions[..., self._begin :], positions[..., -1:] + ahead], -1)
        return {"position_ids": whole.expand(*whole.shape[:-2], rows, -1)}

    def _margin(self, logits: Tensor) -> Tensor:
        decision = self._case.decision
        return logits[:, decision.right].float() - logits[:, decision.wrong].float()


def _patching(patch: Patch, layer: int) -> Any:
    """A hook that changes what enters a layer."""

    def hook(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return replace_hidden_states(args, kwargs, patch(layer, hidden_states_in(args, kwargs)))

    return hook


def _replacing(structure: Any, on_call: Any) -> Any:
    """An interception that replaces the attention of every layer."""
    return attention_calls(structure, structure.attention, on_call, "direct", replaces=True)


class _Formula:
    """Attention by the formula, the baseline in force: S queries are a thin slice, with every term in it."""

    def __init__(self, acting: BaselineEdit) -> None:
        self._acting = acting

    def __call__(self, layer: int, call: AttentionCall, total: int) -> Replace:
        out = call.mix(self._acting.scores(layer, call).softmax(-1)).transpose(1, 2)  # (R, S, H, Dv)
        return Replace(self._gone_on(layer, call, out).to(call.query.dtype).contiguous())

    def _gone_on(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor:
        return out


class _Kept(_Formula):
    """The same; its calls are kept, and zeros that take gradients added to its output."""

    def __init__(self, acting: BaselineEdit) -> None:
        super().__init__(acting)
        self.calls: dict[int, AttentionCall] = {}
        self.changes: dict[int, Tensor] = {}

    def _gone_on(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor:
        query, key, value = (x.detach() for x in (call.query, call.key, call.value))
        self.calls[layer] = self._acting.call(layer, replace(call, query=query, key=key, value=value))
        self.changes[layer] = torch.zeros_like(out, requires_grad=True)
        return out + self.changes[layer]


def _last(state: Any) -> Tensor:
    """[S, d] of what a layer is given or gives; of several streams of states, the first."""
    state = state[0] if isinstance(state, tuple) else state
    return state.reshape(-1, *state.shape[-2:])[0]


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No gradients of weights: they would cost memory and are of no use."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
