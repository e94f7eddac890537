"""Interventions bound to a model and one batch of prompts, in force while a forward or a generation runs.

Sites inside attention go through the attention call (`Editing`); keys, values and the residual stream through
hooks on modules; logits through an extra pass with a prompt of its own. All hooks are removed when the run
ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mata_interp.errors import InterventionError
from mata_interp.interventions import AttentionEdit, Editing, Intervention, SiteContext, in_order
from mata_interp.interventions.catalogue import MissingMethod
from mata_interp.interventions.protocol import ATTENTION_SITES, MODULE_SITES
from mata_interp.interventions.selection import first_query, select_columns, select_queries, select_rows
from mata_interp.interventions.spans import with_spans

from .discovery.hooks import decoder_input, hidden_states_out
from .discovery.output_head import output_head
from .discovery.structure import ModelStructure
from .prompting.prompts import Prompt
from .rows.caches import branch_cache, position_ids_after, set_prompt_positions

if TYPE_CHECKING:
    from .model import LALM

__all__ = ["BoundInterventions", "check_sites"]

# Names of the projections in attention modules; families that join them into one are refused.
_PROJECTIONS = {"keys": ("k_proj", "key_proj", "wk"), "values": ("v_proj", "value_proj", "wv")}


class BoundInterventions:
    """Interventions of any sites on a batch.

    Parts at one site are performed in their order; parts at different sites where the forward pass reaches
    them. In the extra pass for logits, no other part is in force (as PAI and its successors have it).

    Args:
        lalm: the model.
        prompt: on the model's device.
        parts: from `in_order`, at least one.
        rows: bool [B], the rows that are edited at all; None: all.

    Attributes:
        attention: the parts inside attention, or None.
        first: position of the first token that is edited; P or less.
        shares: whether all prompt tokens but the last are as without the interventions, so that one prefill
            serves many of them.
        token_by_token: whether a part depends on the logits of the token before, so that an option's tokens
            must be read one by one.
        paused: whether hooks leave the model alone: in the extra pass, and in passes of other prompts.
        acted: whether any part was called with something to edit.

    Raises:
        InterventionError: the model lacks a layer, head or projection that a part needs, or several parts act
            on logits.
    """

    def __init__(
        self, lalm: LALM, prompt: Prompt, parts: Sequence[Intervention], rows: Tensor | None = None
    ) -> None:
        structure = lalm.structure
        self._model, self._structure, self._rows = lalm.model, structure, rows
        groups = with_spans(prompt.groups, parts, prompt.audio_seconds)
        self._prompt = prompt = replace(prompt, groups=groups)
        self._measured = {
            id(part): measure(lalm, prompt) for part in parts if (measure := getattr(part, "measure", None))
        }
        self.token_by_token = any(getattr(part, "needs_confidence", False) for part in parts)
        self._confidence: dict[int, Tensor] = {}  # by position: the largest probability there, [B]
        inside = [part for part in parts if part.site in ATTENTION_SITES]
        self.attention = Editing(inside, groups, structure.heads, self._more, rows) if inside else None
        self._at_modules = [part for part in parts if part.site in MODULE_SITES]
        first = [first_query(part.queries, part.phase, prompt.groups) for part in self._at_modules]
        of_attention = prompt.width if self.attention is None else self.attention.first
        self.first: int = min(prompt.width, of_attention, *first)
        self.shares = self.first >= prompt.width - 1
        self._hooks = [
            (*_module_of(structure, part.site, layer), part, layer)
            for part in self._at_modules
            for layer in part.layers
        ]
        at_logits = [part for part in parts if part.site == "logits"]
        if len(at_logits) > 1:
            names = ", ".join(type(part).__name__ for part in at_logits)
            raise InterventionError(f"Several interventions act on logits ({names}): pass one of them.")
        self._outside = [*self._at_modules, *at_logits]
        self._thought_open: Tensor | None = None
        self._at_logits = _LogitsEdit(lalm, prompt, at_logits[0], self._more, rows) if at_logits else None
        self.paused = self.acted = False

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose attention calls are edited, in the extra pass as well."""
        at_attention = () if self.attention is None else self.attention.layers
        extra = None if self._at_logits is None else self._at_logits.inner
        return at_attention if extra is None else tuple(sorted({*at_attention, *extra.layers}))

    @property
    def counted(self) -> Tensor | None:
        """bool [B, Q], which queries of the next calls enter the dose; None: all."""
        return None if self.attention is None else self.attention.counted

    @counted.setter
    def counted(self, counted: Tensor | None) -> None:
        if self.attention is not None:
            self.attention.counted = counted

    @property
    def follows_thoughts(self) -> bool:
        """Whether some part needs to know which tokens are reasoning."""
        inside = self.attention is not None and self.attention.follows_thoughts
        return inside or any(part.phase in ("reasoning", "answer") for part in self._outside)

    @property
    def thought_open(self) -> Tensor | None:
        """bool [B, 1 + N], whether a thought is open after the prompt and each new token; None: never."""
        return self._thought_open

    @thought_open.setter
    def thought_open(self, opened: Tensor | None) -> None:
        self._thought_open = opened
        if self.attention is not None:
            self.attention.thought_open = opened

    def __call__(self, layer: int, call: Any, total: int) -> tuple[slice, Tensor] | None:
        """What to add to an attention call's output; see `Editing`."""
        if self.paused:
            inner = None if self._at_logits is None else self._at_logits.inner
            return inner(layer, call, total) if inner is not None and layer in inner.layers else None
        if self.attention is None or layer not in self.attention.layers:
            return None
        change = self.attention(layer, call, total)
        self.acted |= change is not None
        return change

    def dose(self) -> dict[str, np.ndarray]:
        """The dose of the attention edits: name -> float64 [B]; {} where there are none."""
        return {} if self.attention is None else self.attention.dose()

    def reorder(self, rows: Tensor) -> None:
        """Beam search continues from the rows at these indices, int [B], in this order."""
        self._confidence = {p: values[rows.to(values.device)] for p, values in self._confidence.items()}
        if self._at_logits is not None:
            self._at_logits.reorder(rows)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, all parts but those in attention are in force, which `edited_calls` performs."""
        passes: list[
            tuple[int, int]
        ] = []  # of the current pass: tokens in its cache, and tokens that it reads

        def begin(_: Any, args: tuple, kwargs: dict) -> None:
            states, before = decoder_input(args, kwargs)
            passes[:] = [(before, states.shape[1])]

        with ExitStack() as stack:
            if self._hooks:
                handle = self._structure.decoder.register_forward_pre_hook(begin, with_kwargs=True)
                stack.callback(handle.remove)
            for module, heads, part, layer in self._hooks:
                handle = module.register_forward_hook(self._module_hook(part, layer, heads, passes))
                stack.callback(handle.remove)
            if self._at_logits is not None or self.token_by_token:
                handle = self._model.register_forward_hook(self._logits_hook, with_kwargs=True)
                stack.callback(handle.remove)
            if self._at_logits is not None:
                stack.enter_context(self._at_logits.early.recorded())
                stack.callback(self._at_logits.forget)
            yield

    def _module_hook(
        self, part: Intervention, layer: int, heads: int | None, passes: list[tuple[int, int]]
    ) -> Any:
        """A hook that edits a module's output.

        Args:
            heads: number of key heads that the output holds, side by side; None for the residual stream.
        """

        def hook(_: Any, __: Any, output: Any) -> Any:
            if self.paused:
                return None
            states = output[0] if isinstance(output, tuple) else output
            before, count = passes[0]
            _refuse_shape(states, count, part, layer)
            positions = torch.arange(before, before + count, device=states.device)
            more = self._more(part, positions)
            context = _context(part, layer, self._prompt, positions, more, self._thought_open, self._rows)
            if not context.edited.any():
                return None
            self.acted = True
            x = states.float()
            rows = context.edited[:, :, None]
            if heads is not None:
                x = x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, Hkv, Q, D)
                rows = context.edited[:, None, :, None]
            edited = torch.where(rows, part.edit(x, context), x).to(states.dtype)
            if heads is not None:
                edited = edited.transpose(1, 2).flatten(2)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return hook

    def _logits_hook(self, _: Any, args: tuple, kwargs: dict, output: Any) -> Any:
        """A hook on the model that edits its logits, and records how sure it is where a part needs that."""
        if self.paused:
            return None
        end = _tokens_so_far(args, kwargs)
        if self._at_logits is not None:
            self.paused = self.acted = True
            try:
                output["logits"] = self._at_logits.edit(args, kwargs, output.logits, end, self._thought_open)
            finally:
                self.paused = False
        if self.token_by_token and end >= self._prompt.width:
            self._confidence[end - 1] = output.logits[:, -1].float().softmax(-1).amax(-1)
        return output

    def _more(self, part: Intervention, positions: Tensor) -> dict[str, Any]:
        """Further fields of a part's context."""
        more: dict[str, Any] = {"measured": self._measured.get(id(part), {})}
        if getattr(part, "needs_confidence", False):
            unknown = torch.full((self._prompt.size,), torch.nan, device=positions.device)
            before = [self._confidence.get(p - 1, unknown).to(positions.device) for p in positions.tolist()]
            more["confidence"] = torch.stack(before, 1)
        return more


class _EarlyLogits:
    """Logits of early layers: the final norm and the output head on the outputs of these layers."""

    def __init__(self, model: Any, structure: ModelStructure, layers: Sequence[int]) -> None:
        for layer in layers:
            if not 0 <= layer < structure.num_layers:
                raise InterventionError(
                    f"No layer {layer}: the model has layers 0-{structure.num_layers - 1}."
                )
        self._model, self._structure, self._layers = model, structure, tuple(layers)
        self._states: dict[int, Tensor] = {}
        self._norm: Any = None  # the part of the decoder that is called last, after its layers

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Inside, the outputs of the layers are kept."""
        with ExitStack() as stack:
            if self._layers:
                blocks = self._structure.blocks
                for part in self._structure.decoder.children():
                    if part is not blocks:
                        stack.callback(part.register_forward_hook(self._keep_norm).remove)
                for layer in self._layers:
                    stack.callback(blocks[layer].register_forward_hook(self._keep(layer)).remove)
            yield
            self._states.clear()

    def logits(self, count: int) -> Tensor | None:
        """float32 [n, B, Q, V] of the last ``count`` tokens that were read; None without layers."""
        if not self._layers:
            return None
        head, states = output_head(self._model), dict(self._states)
        if head is None:
            raise InterventionError("The output head of this model is not known: it has no early logits.")
        norm = self._norm or (lambda x: x)
        return torch.stack([head(norm(states[layer][:, -count:])).float() for layer in self._layers])

    def _keep(self, layer: int) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            self._states[layer] = hidden_states_out(output)

        return hook

    def _keep_norm(self, module: Any, args: tuple, output: Any) -> None:
        if args and isinstance(output, Tensor) and output.shape == getattr(args[0], "shape", None):
            self._norm = module


class _LogitsEdit:
    """A part at the logits, with its pass over a negative prompt, kept in step with the model's own.

    Every call of the model that reads the last prompt token begins the negative prompt anew; a call with
    tokens after the prompt continues it: from the prompt's end (a new option or answer) or from where the
    last call ended (the next token of it).

    Attributes:
        inner: the interventions in force in the extra pass, or None.
        early: the logits of early layers.
    """

    def __init__(self, lalm: LALM, prompt: Prompt, part: Any, more: Any, rows: Tensor | None) -> None:
        early, makes_negative = getattr(part, "early_layers", ()), getattr(part, "negative_prompt", None)
        if not early and makes_negative is None:
            raise InterventionError(
                f"{type(part).__name__} acts on logits and has no negative_prompt method."
            )
        self._model, self._structure, self._part = lalm.model, lalm.structure, part
        self._prompt, self._more, self._rows = prompt, more, rows
        self.early = _EarlyLogits(lalm.model, lalm.structure, early)
        self._negative: Prompt | None = None
        if makes_negative is not None:
            negative = makes_negative(lalm, prompt)
            self._negative = lalm.prepare(negative, generating=prompt.thought is not None)
        if self._negative is not None and self._negative.size != prompt.size:
            raise InterventionError(f"{self._negative.size} negative prompts for {prompt.size} prompts.")
        inside = in_order(getattr(part, "negative_parts", ()))
        if inside and self._negative is None:
            raise InterventionError(f"{type(part).__name__} has negative_parts, but no negative_prompt.")
        self.inner = BoundInterventions(lalm, self._negative, inside) if inside and self._negative else None
        if self.inner is not None and any(part.site not in ATTENTION_SITES for part in inside):
            raise InterventionError(f"The negative_parts of {type(part).__name__} must act on attention.")
        self.forget()

    def forget(self) -> None:
        """Release all caches."""
        self._at_end: Any = None  # the cache of the negative prompt
        self._running: Any = None  # a branch of it
        self._length = 0  # tokens after the prompt that the branch holds
        self._last: Tensor | None = None  # the last logits of the negative prompt, [B, 1, V]

    def reorder(self, rows: Tensor) -> None:
        """That of `BoundInterventions`."""
        if self._running is not None:
            self._running.reorder_cache(rows)

    def edit(
        self,
        args: tuple,
        kwargs: Mapping[str, Any],
        logits: Tensor,
        end: int,
        thought_open: Tensor | None = None,
    ) -> Tensor:
        """The edited logits, in the shape and dtype of ``logits`` [B, Q', V], of the last Q' tokens.

        Args:
            end: tokens that the model has read, those of this call included.
            thought_open: that of `BoundInterventions`.
        """
        tokens, width, count = _tokens(args, kwargs), self._prompt.width, logits.shape[1]
        if end < width:
            return logits
        more = tokens[:, max(0, tokens.shape[1] - (end - width)) :] if end > width else tokens[:, :0]
        positions = torch.arange(end - count, end, device=logits.device)
        fields = self._more(self._part, positions) | {"early": self.early.logits(count)}
        if self._negative is not None:
            negative = self._negative_logits(tokens, more, end, kwargs.get("attention_mask"))
            missing = max(0, count - negative.shape[1])  # before the prompt's last token, none are asked for
            negative = torch.nn.functional.pad(negative, (0, 0, missing, 0))
            fields["negative"] = negative[:, -count:].float()
        context = _context(self._part, -1, self._prompt, positions, fields, thought_open, self._rows)
        context.edited[:, : max(0, count - 1 - more.shape[1])] = False
        x = logits.float()
        edited = self._part.edit(x, context)
        return torch.where(context.edited[:, :, None], edited, x).to(logits.dtype)

    def _negative_logits(self, tokens: Tensor, more: Tensor, end: int, mask: Tensor | None) -> Tensor:
        """Logits of the negative prompt's last token, where this call read it, and of ``more``."""
        width = self._prompt.width
        negative = self._begin() if end - tokens.shape[1] < width else None
        if more.shape[1]:
            behind = self._go_on(more, end - width - more.shape[1], None if mask is None else mask[:, width:])
            negative = behind if negative is None else torch.cat([negative, behind], 1)
        assert negative is not None
        return negative

    def _begin(self) -> Tensor:
        """Read the negative prompt: its last logits, [B, 1, V]."""
        assert self._negative is not None
        if self._last is None:
            positions: list[Any] = []
            handle = self._structure.decoder.register_forward_pre_hook(
                lambda _, args, kwargs: positions.append(kwargs.get("position_ids")), with_kwargs=True
            )
            try:
                output = self._model(**self._negative.inputs, use_cache=True)
            finally:
                handle.remove()
            self._at_end = set_prompt_positions(output.past_key_values, positions[0])
            self._last = output.logits[:, -1:]
        self._running = None
        assert self._last is not None
        return self._last

    def _go_on(self, tokens: Tensor, begin: int, mask: Tensor | None) -> Tensor:
        """Logits [B, Q, V] of tokens that begin ``begin`` tokens after the negative prompt."""
        if self._at_end is None:
            self._begin()
        if begin == 0:
            self._running, self._length = branch_cache(self._at_end), 0
        if self._running is None or begin != self._length:
            raise InterventionError(
                "Logits can be edited only in a run that reads answers token by token: leave out assisted "
                "generation."
            )
        assert self._negative is not None
        negative_mask = self._negative.inputs.get("attention_mask")
        if negative_mask is None:
            negative_mask = torch.ones_like(self._negative.inputs["input_ids"])
        behind = (
            negative_mask.new_ones(len(tokens), begin + tokens.shape[1])
            if mask is None
            else mask.to(negative_mask)
        )
        output = self._model(
            input_ids=tokens,
            attention_mask=torch.cat([negative_mask, behind], 1),
            past_key_values=self._running,
            use_cache=True,
            **position_ids_after(self._at_end, 1 + begin, tokens.shape[1]),
        )
        self._running, self._length = output.past_key_values, begin + tokens.shape[1]
        return output.logits


def _tokens(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """The token ids that the model is called with."""
    tokens = kwargs.get("input_ids", args[0] if args else None)
    if tokens is None:
        raise InterventionError("Logits can be edited only where the model is called with input_ids.")
    return tokens


def _tokens_so_far(args: tuple, kwargs: Mapping[str, Any]) -> int:
    """Tokens that the model has read when a call of it has ended: its cache holds the new ones, too."""
    tokens, cache = _tokens(args, kwargs), kwargs.get("past_key_values")
    return tokens.shape[1] if cache is None else int(cache.get_seq_length())


def _context(
    part: Intervention,
    layer: int,
    prompt: Prompt,
    positions: Tensor,
    more: Mapping[str, Any],
    thought_open: Tensor | None = None,
    rows: Tensor | None = None,
) -> SiteContext:
    edited = select_rows(
        select_queries(part.queries, prompt.groups), part.phase, positions[None], thought_open
    )
    return SiteContext(
        layer=layer,
        positions=positions[None],
        width=prompt.width,
        edited=edited if rows is None else edited & rows[:, None].to(edited.device),
        tokens={
            name: select_columns(mask, name, positions[None], thought_open)
            for name, mask in prompt.groups.items()
        },
        **more,
    )


def _module_of(structure: ModelStructure, site: str, layer: int) -> tuple[nn.Module, int | None]:
    """The module whose output is the site, and the number of key heads in it (None: no heads)."""
    if site == "residual":
        if not 0 <= layer < structure.num_layers:
            raise InterventionError(f"No layer {layer}: the model has layers 0-{structure.num_layers - 1}.")
        return structure.blocks[layer], None
    if layer not in structure.attention:
        raise InterventionError(
            f"No attention in layer {layer}: the model has it in {sorted(structure.heads)}."
        )
    attention = structure.attention[layer]
    for name in _PROJECTIONS[site]:
        module = getattr(attention, name, None)
        if isinstance(module, nn.Module):
            return module, structure.key_heads[layer]
    raise InterventionError(
        f"{type(attention).__name__}, the attention of layer {layer}, has no separate projection for "
        f"{site} (looked for {', '.join(_PROJECTIONS[site])}): {site} cannot be edited in this model."
    )


def _refuse_shape(states: Any, count: int, part: Intervention, layer: int) -> None:
    if not isinstance(states, Tensor) or states.dim() != 3 or states.shape[1] != count:
        shape = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        raise InterventionError(
            f"{part.site} of layer {layer} come as {shape}, not as [B, {count}, d]: {type(part).__name__} "
            "cannot edit them in this model."
        )


def check_sites(structure: ModelStructure, parts: Sequence[Any]) -> None:
    """Refuse interventions whose layers, heads or projections the model lacks, before anything is computed.

    Args:
        structure: of the model.
        parts: from `in_order`.

    Raises:
        InterventionError: naming the first that is missing, or a method that cannot be made here.
    """
    for part in parts:
        if isinstance(part, MissingMethod):
            raise part.error()
        if isinstance(part, AttentionEdit):
            part.bind(structure.heads)
        elif part.site in ATTENTION_SITES:
            Editing.check_layers(part, structure.heads)
        elif part.site in MODULE_SITES:
            for layer in part.layers:
                _module_of(structure, part.site, layer)
        inner = in_order(getattr(part, "negative_parts", ()))
        check_sites(structure, inner)
