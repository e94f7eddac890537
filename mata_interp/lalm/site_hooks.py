"""Interventions bound to a model and one batch of prompts, in force while a forward or a generation runs.

Sites inside attention go through the attention call (`Editing`); keys, values and the residual stream through
hooks on modules; logits through an extra pass with a prompt of its own. All hooks are removed when the run
ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mata_interp.errors import InterventionError
from mata_interp.interventions import Editing, Intervention, SiteContext
from mata_interp.interventions.protocol import ATTENTION_SITES, MODULE_SITES
from mata_interp.interventions.selection import first_query, select_columns, select_queries, select_rows

from .discovery.hooks import decoder_input
from .discovery.structure import ModelStructure
from .prompting.prompts import Prompt
from .rows.caches import branch_cache, position_ids_after, set_prompt_positions

if TYPE_CHECKING:
    from .model import LALM

__all__ = ["BoundInterventions"]

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

    Attributes:
        attention: the parts inside attention, or None.
        shares: whether all prompt tokens but the last are as without the interventions, so that one prefill
            serves many of them.

    Raises:
        InterventionError: the model lacks a layer, head or projection that a part needs, or several parts act
            on logits.
    """

    def __init__(self, lalm: LALM, prompt: Prompt, parts: Sequence[Intervention]) -> None:
        structure = lalm.structure
        self._model, self._structure, self._prompt = lalm.model, structure, prompt
        inside = [part for part in parts if part.site in ATTENTION_SITES]
        self.attention = Editing(inside, prompt.groups, structure.heads) if inside else None
        self._at_modules = [part for part in parts if part.site in MODULE_SITES]
        first = [first_query(part.queries, part.phase, prompt.groups) for part in self._at_modules]
        self.shares = min(first, default=prompt.width) >= prompt.width - 1
        self.shares = self.shares and (self.attention is None or self.attention.shares)
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
        self._extra_pass = _ExtraPass(lalm, prompt, at_logits[0]) if at_logits else None
        self._paused = False  # true in the extra pass

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose attention calls are edited."""
        return () if self.attention is None else self.attention.layers

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
        if self._paused or self.attention is None:
            return None
        return self.attention(layer, call, total)

    def dose(self) -> dict[str, np.ndarray]:
        """The dose of the attention edits: name -> float64 [B]; {} where there are none."""
        return {} if self.attention is None else self.attention.dose()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, all parts but those in attention are in force, which `edited_calls` performs."""
        passes: list[tuple[int, int]] = []  # of the pass at hand: tokens in its cache, and tokens it is given

        def begin(_: Any, args: tuple, kwargs: dict) -> None:
            given, before = decoder_input(args, kwargs)
            passes[:] = [(before, given.shape[1])]

        with ExitStack() as stack:
            if self._hooks:
                handle = self._structure.decoder.register_forward_pre_hook(begin, with_kwargs=True)
                stack.callback(handle.remove)
            for module, heads, part, layer in self._hooks:
                handle = module.register_forward_hook(self._module_hook(part, layer, heads, passes))
                stack.callback(handle.remove)
            if self._extra_pass is not None:
                handle = self._model.register_forward_hook(self._logits_hook, with_kwargs=True)
                stack.callback(handle.remove)
                stack.callback(self._extra_pass.forget)
            yield

    def _module_hook(
        self, part: Intervention, layer: int, heads: int | None, passes: list[tuple[int, int]]
    ) -> Any:
        """A hook that edits a module's output.

        Args:
            heads: number of key heads that the output holds, side by side; None for the residual stream.
        """

        def hook(_: Any, __: Any, output: Any) -> Any:
            if self._paused:
                return None
            states = output[0] if isinstance(output, tuple) else output
            before, count = passes[0]
            _refuse_shape(states, count, part, layer)
            positions = torch.arange(before, before + count, device=states.device)
            context = _context(part, layer, self._prompt, positions, self._thought_open)
            if not context.edited.any():
                return None
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
        """A hook on the model that edits its logits."""
        if self._paused or self._extra_pass is None:
            return None
        self._paused = True
        try:
            output["logits"] = self._extra_pass.edit(args, kwargs, output.logits, self._thought_open)
        finally:
            self._paused = False
        return output


class _ExtraPass:
    """The pass with the negative prompt, kept in step with the model's own.

    Every call of the model that reads the last prompt token begins the negative prompt anew; a call with
    tokens behind the prompt goes on from it: from the prompt's end (a new option or answer) or from where the
    last call ended (the next token of it).
    """

    def __init__(self, lalm: LALM, prompt: Prompt, part: Any) -> None:
        if not callable(getattr(part, "negative_prompt", None)):
            raise InterventionError(
                f"{type(part).__name__} acts on logits and has no negative_prompt method."
            )
        negative = lalm.prepare(part.negative_prompt(lalm, prompt), generating=prompt.thought is not None)
        if negative.size != prompt.size:
            raise InterventionError(f"{negative.size} negative prompts for {prompt.size} prompts.")
        self._model, self._structure, self._part = lalm.model, lalm.structure, part
        self._prompt, self._negative = prompt, negative
        self.forget()

    def forget(self) -> None:
        """Let go of all caches."""
        self._at_end: Any = None  # the cache of the negative prompt
        self._running: Any = None  # a branch of it
        self._length = 0  # tokens behind the prompt that the branch holds
        self._last: Tensor | None = None  # the last logits of the negative prompt, [B, 1, V]

    def edit(
        self, args: tuple, kwargs: Mapping[str, Any], logits: Tensor, thought_open: Tensor | None = None
    ) -> Tensor:
        """The edited logits, in the shape and dtype of ``logits`` [B, Q', V], of the last Q' tokens."""
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            raise InterventionError("Logits can be edited only where the model is called with input_ids.")
        cache = kwargs.get("past_key_values")
        # the model has run, so that its cache holds the new tokens, too
        end = tokens.shape[1] if cache is None else int(cache.get_seq_length())
        width = self._prompt.width
        if end < width:
            return logits
        more = tokens[:, max(0, tokens.shape[1] - (end - width)) :] if end > width else tokens[:, :0]
        reads_prompt_end = end - tokens.shape[1] < width
        negative = self._begin() if reads_prompt_end else None
        if more.shape[1]:
            mask = kwargs.get("attention_mask")
            behind = self._go_on(more, end - width - more.shape[1], None if mask is None else mask[:, width:])
            negative = behind if negative is None else torch.cat([negative, behind], 1)
        assert negative is not None
        count = logits.shape[1]
        positions = torch.arange(end - count, end, device=logits.device)
        context = _context(self._part, -1, self._prompt, positions, thought_open)
        # before the prompt's last token, no logits are asked for
        if negative.shape[1] < count:
            negative = torch.nn.functional.pad(negative, (0, 0, count - negative.shape[1], 0))
            context.edited[:, : count - 1 - more.shape[1]] = False
        x = logits.float()
        context = SiteContext(**{**vars(context), "negative": negative[:, -count:].float()})
        edited = self._part.edit(x, context)
        return torch.where(context.edited[:, :, None], edited, x).to(logits.dtype)

    def _begin(self) -> Tensor:
        """Read the negative prompt: its last logits, [B, 1, V]."""
        if self._last is None:
            seen: list[Any] = []
            handle = self._structure.decoder.register_forward_pre_hook(
                lambda _, args, kwargs: seen.append(kwargs.get("position_ids")), with_kwargs=True
            )
            try:
                output = self._model(**self._negative.inputs, use_cache=True)
            finally:
                handle.remove()
            self._at_end = set_prompt_positions(output.past_key_values, seen[0])
            self._last = output.logits[:, -1:]
        self._running = None
        assert self._last is not None
        return self._last

    def _go_on(self, tokens: Tensor, begin: int, mask: Tensor | None) -> Tensor:
        """Logits [B, Q, V] of tokens that stand ``begin`` tokens behind the negative prompt."""
        if self._at_end is None:
            self._begin()
        if begin == 0:
            self._running, self._length = branch_cache(self._at_end), 0
        if self._running is None or begin != self._length:
            raise InterventionError("Logits cannot be edited in a run that does not go on token by token.")
        own = self._negative.inputs.get("attention_mask")
        if own is None:
            own = torch.ones_like(self._negative.inputs["input_ids"])
        behind = own.new_ones(len(tokens), begin + tokens.shape[1]) if mask is None else mask.to(own)
        output = self._model(
            input_ids=tokens,
            attention_mask=torch.cat([own, behind], 1),
            past_key_values=self._running,
            use_cache=True,
            **position_ids_after(self._at_end, 1 + begin, tokens.shape[1]),
        )
        self._running, self._length = output.past_key_values, begin + tokens.shape[1]
        return output.logits


def _context(
    part: Intervention, layer: int, prompt: Prompt, positions: Tensor, thought_open: Tensor | None
) -> SiteContext:
    chosen = select_queries(part.queries, prompt.groups)
    return SiteContext(
        layer=layer,
        positions=positions[None],
        width=prompt.width,
        edited=select_rows(chosen, part.phase, positions[None], thought_open),
        tokens={
            name: select_columns(mask, name, positions[None], thought_open)
            for name, mask in prompt.groups.items()
        },
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
