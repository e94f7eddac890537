"""Re-runs of the text after the audio, on the keys and values of everything before it.

Attention calls, gradients and patched states cost a part of a forward pass here, because text is a small part
of a prompt with audio, and states outside the text need no gradient. A baseline is active in every re-run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.compat import is_cut
from mata_interp.errors import ModelError
from mata_interp.lalm.calls.attention_calls import Replace, attention_calls
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.discovery.hooks import hidden_states_in, replace_hidden_states, temporary_hooks
from mata_interp.lalm.discovery.quantised import quantised_layers

from .baseline_edit import BaselineEdit
from .context_inputs import ContextInputs

__all__ = ["SuffixRunner", "SuffixTrace"]

Patch = Callable[[int, Tensor], Tensor]
"""``patch(layer, states[R, S, d]) -> states``, applied before each layer."""


@dataclass(frozen=True, eq=False)
class SuffixTrace:
    """What one re-run of a suffix of S tokens recorded. The last token decides the answer.

    Attributes:
        calls: attention call of each layer, with S queries. A baseline is part of its mask.
        gradients: d margin / d output of the attention call of each layer: float32 [H, S, Dv]; see
            :meth:`require_gradients`.
        attention_outputs: output of each layer's attention module for the deciding token, [d]. It is
            differentiable with respect to ``offsets``.
        offsets: zeros that were added to the output of each layer's attention call, [1, S, H, Dv].
        states: hidden states before the first layer and after each: [layers + 1, S, d].
        module_inputs: inputs of each layer's child modules for the deciding token, [d] each.
        norm: the decoder's last norm, None if it has none.
        norm_input: input of that norm for the deciding token, [d].
        norm_output: its output, [d].
        margin: logit(right) - logit(wrong).
        without_backward: the first layer that cuts the gradient, as some quantised layers do; "" if none.
    """

    calls: dict[int, AttentionCall]
    gradients: dict[int, Tensor]
    attention_outputs: dict[int, Tensor]
    offsets: dict[int, Tensor]
    states: list[Tensor]
    module_inputs: dict[int, list[Tensor]]
    norm: Any
    norm_input: Tensor | None
    norm_output: Tensor | None
    margin: float
    without_backward: str = ""

    def require_gradients(self) -> None:
        """Raise a ModelError where the model's layers have no backward pass, and so no gradients."""
        if self.without_backward:
            raise ModelError(
                f"{self.without_backward} has no backward pass, as some quantised layers: no gradient."
            )


class SuffixRunner:
    """Runs the end of a prompt again, with the forced tokens after it.

    Args:
        inputs: the prompt, its prefill, the decision and the baseline.
        first_token: position of the first token that is run again.
    """

    def __init__(self, inputs: ContextInputs, first_token: int) -> None:
        self._inputs, self._first_token = inputs, first_token
        tokens = inputs.prompt.inputs["input_ids"]
        forced = tokens.new_tensor([inputs.decision.forced])
        self.tokens = torch.cat([tokens[:, first_token:], forced.long().reshape(1, -1)], 1)  # (1, S)
        self.total = tokens.shape[1] + forced.shape[1]
        self._baseline_edit = BaselineEdit(inputs, self.tokens, forced.shape[1])

    def past_key_values(self) -> Any:
        """A copy of the cache of all tokens before the suffix."""
        prefill = self._inputs.prefill
        return prefill.before(prefill.length - self._first_token)

    @torch.no_grad()
    def margins(self, rows: int, past_key_values: Any, patch: Patch | None = None) -> Tensor:
        """logit(right) - logit(wrong) of ``rows`` variants: float64 [R], on the CPU.

        Args:
            rows: number of variants.
            past_key_values: a cache of as many rows.
            patch: changes the states that enter each layer.
        """
        structure = self._inputs.lalm.structure
        with ExitStack() as stack:
            stack.enter_context(exclusive(structure.decoder))
            if patch is not None:
                stack.enter_context(_patched_states(structure.blocks, patch))
            if not self._inputs.baseline:  # the model's own attention kernel runs
                return self._margin(self._run(rows, past_key_values)).cpu().double()
            run = stack.enter_context(_replaced(structure, _ExplicitAttention(self._baseline_edit)))
            return self._margin(run(lambda: self._run(rows, past_key_values))).cpu().double()

    def trace(self) -> SuffixTrace:
        """Run the suffix once, and record it with the gradient of the margin at every attention call."""
        lalm = self._inputs.lalm
        attention = _RecordingAttention(self._baseline_edit)
        recording = _replaced(lalm.structure, attention)
        cut: list[str] = []
        with exclusive(lalm.structure.decoder), _Recorder(lalm.structure) as recorder:
            with torch.enable_grad(), _frozen(lalm.model), recording as run, _noted_cuts(lalm.model, cut):
                margin = run(lambda: self._margin(self._run(1, self.past_key_values()))[0])
            gradients = _gradients(margin, list(attention.offsets.values()), cut)
        norm, norm_input, norm_output = recorder.norms[-1] if recorder.norms else (None, None, None)
        return SuffixTrace(
            calls=attention.calls,
            gradients={
                layer: gradient[0].transpose(0, 1)
                for layer, gradient in zip(attention.offsets, gradients, strict=False)
            },
            attention_outputs=recorder.attention_outputs,
            offsets=attention.offsets,
            states=recorder.states,
            module_inputs=recorder.module_inputs,
            norm=norm,
            norm_input=norm_input,
            norm_output=norm_output,
            margin=float(margin.detach()),
            without_backward=cut[0] if cut else "",
        )

    def _run(self, rows: int, past_key_values: Any) -> Tensor:
        """Logits of the deciding token, [R, V]."""
        mask = self._inputs.prompt.inputs.get("attention_mask")
        ones = torch.ones(rows, self.total, dtype=torch.long if mask is None else mask.dtype)
        return self._inputs.lalm.model(
            input_ids=self.tokens.expand(rows, -1),
            attention_mask=ones.to(self.tokens.device),
            past_key_values=past_key_values,
            use_cache=True,
            **self._positions(rows, past_key_values),
        ).logits[:, -1]

    def _positions(self, rows: int, past_key_values: Any) -> dict[str, Tensor]:
        """``position_ids``, where the decoder does not count its positions itself."""
        positions = getattr(past_key_values, "prompt_positions", None)  # [B, T], or [3, B, T] for three axes
        if positions is None:
            return {}
        ahead = torch.arange(1, 1 + len(self._inputs.decision.forced), device=positions.device)
        whole = torch.cat([positions[..., self._first_token :], positions[..., -1:] + ahead], -1)
        return {"position_ids": whole.expand(*whole.shape[:-2], rows, -1)}

    def _margin(self, logits: Tensor) -> Tensor:
        decision = self._inputs.decision
        return logits[:, decision.right].float() - logits[:, decision.wrong].float()


@contextmanager
def _noted_cuts(model: Any, cut: list[str]) -> Iterator[None]:
    """Inside, the names of quantised layers whose output does not depend on their input for autograd go to
    ``cut``: a gradient that went around them would be wrong."""

    def note(name: str) -> Callable[[tuple, dict, Any], None]:
        def hook(args: tuple, kwargs: dict, output: Any) -> None:
            differentiable = any(isinstance(x, Tensor) and x.requires_grad for x in (*args, *kwargs.values()))
            if differentiable and isinstance(output, Tensor) and is_cut(output):
                cut.append(name)

        return hook

    with temporary_hooks((), [(module, note(name)) for name, module in quantised_layers(model).items()]):
        yield


def _gradients(margin: Tensor, outputs: list[Tensor], cut: list[str]) -> Sequence[Tensor]:
    """d margin / d outputs; none where the graph is cut, whose place is then noted in ``cut``."""
    if cut:
        return ()
    try:
        return torch.autograd.grad(margin, outputs, retain_graph=True)
    except (RuntimeError, NotImplementedError) as error:  # a kernel without a derivative
        if isinstance(error, torch.OutOfMemoryError):
            raise
        cut.append(f"a layer of the model ({str(error).strip().splitlines()[0].rstrip('.')})")
        return ()


def _replaced(structure: Any, on_call: Any) -> Any:
    """An interception that replaces the attention of every layer."""
    return attention_calls(structure, structure.attention, on_call, "direct", replaces=True)


class _ExplicitAttention:
    """Attention written out, with the baseline in its scores. S queries are few, so every term fits."""

    def __init__(self, baseline_edit: BaselineEdit) -> None:
        self._baseline_edit = baseline_edit

    def __call__(self, layer: int, call: AttentionCall, total: int) -> Replace:
        weights = self._baseline_edit.edited_scores(layer, call).softmax(-1)
        out = call.mix(weights).transpose(1, 2)  # (R, S, H, Dv)
        return Replace(self._output(layer, call, out).to(call.query.dtype).contiguous())

    def _output(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor:
        return out


class _RecordingAttention(_ExplicitAttention):
    """The same. It also keeps its calls, and adds zeros to its outputs that receive gradients."""

    def __init__(self, baseline_edit: BaselineEdit) -> None:
        super().__init__(baseline_edit)
        self.calls: dict[int, AttentionCall] = {}
        self.offsets: dict[int, Tensor] = {}

    def _output(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor:
        query, key, value = (x.detach() for x in (call.query, call.key, call.value))
        detached = replace(call, query=query, key=key, value=value)
        self.calls[layer] = self._baseline_edit.edited_call(layer, detached)
        self.offsets[layer] = torch.zeros_like(out, requires_grad=True)
        return out + self.offsets[layer]


class _Recorder:
    """A context manager whose hooks record what passes through the decoder's modules in one forward pass."""

    def __init__(self, structure: Any) -> None:
        self._structure = structure
        self._handles: list[Any] = []
        self.states: list[Tensor] = []
        self.attention_outputs: dict[int, Tensor] = {}
        self.module_inputs: dict[int, list[Tensor]] = {i: [] for i in range(len(structure.blocks))}
        # modules of the decoder that keep the shape of their input, the last of which is the last norm
        self.norms: list[tuple[Any, Tensor, Tensor]] = []

    def __enter__(self) -> _Recorder:
        blocks, handles = self._structure.blocks, self._handles
        handles.append(blocks[0].register_forward_pre_hook(self._first_input, with_kwargs=True))
        for layer, block in enumerate(blocks):
            handles.append(block.register_forward_hook(self._block_output))
            for part in block.children():
                handles.append(part.register_forward_pre_hook(self._module_input(layer)))
        for layer, module in self._structure.attention.items():
            handles.append(module.register_forward_hook(self._attention_output(layer)))
        for part in self._structure.decoder.children():
            handles.append(part.register_forward_hook(self._norm))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _first_input(self, _: Any, args: tuple, kwargs: dict) -> None:
        self.states.append(_rows_of(hidden_states_in(args, kwargs)).detach())

    def _block_output(self, _: Any, args: tuple, out: Any) -> None:
        self.states.append(_rows_of(out).detach())

    def _module_input(self, layer: int) -> Callable[..., None]:
        def hook(_: Any, args: tuple) -> None:
            if args and isinstance(args[0], Tensor) and args[0].dim() == 3:
                self.module_inputs[layer].append(args[0][0, -1].detach())

        return hook

    def _attention_output(self, layer: int) -> Callable[..., None]:
        def hook(_: Any, args: tuple, out: Any) -> None:
            self.attention_outputs[layer] = _rows_of(out)[-1]

        return hook

    def _norm(self, part: Any, args: tuple, out: Any) -> None:
        if args and isinstance(out, Tensor) and out.dim() == 3 and args[0].shape == out.shape:
            self.norms.append((part, args[0][0, -1].detach(), out[0, -1].detach()))


@contextmanager
def _patched_states(blocks: Any, patch: Patch) -> Iterator[None]:
    """Inside, ``patch`` changes the states that enter each layer."""

    def patch_layer(layer: int) -> Callable[..., tuple[tuple, dict]]:
        def hook(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return replace_hidden_states(args, kwargs, patch(layer, hidden_states_in(args, kwargs)))

        return hook

    with temporary_hooks([(block, patch_layer(layer)) for layer, block in enumerate(blocks)]):
        yield


def _rows_of(state: Any) -> Tensor:
    """[S, d] of a layer's input or output. Of several parallel streams of states, the first."""
    state = state[0] if isinstance(state, tuple) else state
    return state.reshape(-1, *state.shape[-2:])[0]


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Inside, weights get no gradients, which would cost memory and are not needed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            with torch.inference_mode(parameter.is_inference()):  # offloaded weights were loaded in that mode
                parameter.requires_grad_(True)
