"""Prompts run once, then any number of variants of what follows: rows over a shared past.

An edit of the last prompt token's attention leaves the keys and values of all tokens before it unchanged, and
an edit of all text after the audio leaves those of the audio and of what comes before it. So the prompts run
once, and each variant of what is edited, with the answer tokens after it, is one more set of query rows that
see this past and themselves, without a copy of the past. The rows run through the decoder's own layers,
whatever those do besides attention. Only the attention call is replaced, and before each layer the rows may
branch.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mata_interp.errors import ModelError

from ..calls.attention_calls import attention_calls, patched_attribute
from ..calls.locks import exclusive
from ..discovery.entry import Entry, enter
from ..discovery.hooks import (
    find_hidden_states,
    hidden_states_in,
    hidden_states_out,
    replace_hidden_states,
    temporary_hooks,
)
from ..discovery.output_head import last_position_only
from ..discovery.structure import ModelStructure
from ..prompting.prompts import Prompt
from .caches import branch_cache, has_state_layers, set_prompt_positions
from .row_attention import EditScores, RowAttention, SuffixTokens

__all__ = ["Patches", "PrefillCache"]


class Patches(Protocol):
    """What changes the outputs of heads and layers in rows."""

    def head_outputs(self, layer: int, outputs: Tensor) -> Tensor:
        """Of heads, [B, H, N, S, Dv]."""
        ...

    def states(self, layer: int, states: Tensor) -> Tensor:
        """Of a layer, [B, N * S, d]."""
        ...


class PrefillCache:
    """B prompts, run once.

    Args:
        model: a transformers model.
        structure: of that model.
        prompt: B left-padded prompts on the model's device.
        last_token_only: leave out what the last layer does after its attention for all tokens but the last,
            which nobody needs and which is most of a layer. Whether a model allows it shows only in `rows`:
            their first row then equals the plain forward.

    Attributes:
        logits: [B, V] of the plain forward at the last prompt token.
        length: T, the number of tokens.
        size: d, the size of the hidden states.

    Raises:
        ModelError: rows cannot run on this model: its decoder is called in a way that is not understood, or
            its layers keep something else than keys and values.
    """

    def __init__(
        self, model: Any, structure: ModelStructure, prompt: Prompt, last_token_only: bool = False
    ) -> None:
        decoder: Any = structure.decoder
        self._model, self._structure, self._decoder, self._prompt = model, structure, decoder, prompt
        if prompt.groups["audio"][:, -1].any():
            raise ModelError("The last token of a prompt is audio: rows begin with a token of text.")
        if "linear" in structure.kinds or has_state_layers(DynamicCache(config=decoder.config)):
            raise ModelError(
                f"{type(decoder).__name__} has layers that keep a state instead of keys and values, which "
                "rows would mix."
            )
        cache = DynamicCache()  # without a config every layer keeps all keys, and can step back by one
        calls: list[dict[str, Any]] = []
        outputs: list[Any] = []
        states: list[Tensor] = []
        self._plain: list[Tensor] = []  # output of each layer for the last token
        self._unedited: list[Tensor] = []  # the same for the first of the rows that ran last
        self._answer_entry: tuple[Tensor, Entry] | None = None  # the answer tokens of the last call, entered
        before: list[Any] = [
            (decoder, lambda args, kwargs: calls.append(kwargs | ({"positional": args} if args else {}))),
            (structure.blocks[0], lambda args, kwargs: states.append(hidden_states_in(args, kwargs))),
        ]
        after: list[Any] = [
            (decoder, lambda args, kwargs, output: outputs.append(output)),
            *self._recording(self._plain, -1),
        ]
        with (
            exclusive(decoder),
            temporary_hooks(before, after),
            last_position_only(model),
            _last_token_only(structure if last_token_only else None),
        ):
            out = model(**prompt.inputs, past_key_values=cache, use_cache=True)
        if len(calls) != 1 or "positional" in calls[0]:
            raise ModelError(f"{type(decoder).__name__} is called in a way that rows cannot follow.")
        self.logits: Tensor = out.logits[:, -1]
        self._entry, self._output, self._cache = Entry(calls[0], states[0]), outputs[0], cache
        _, self.length, self.size = self._entry.embeds.shape[-3:]
        tokens = prompt.inputs["input_ids"]
        if tokens.shape[1] != self.length:
            raise ModelError(f"{type(decoder).__name__} sees {self.length} tokens for {tokens.shape[1]}.")
        mask = prompt.inputs.get("attention_mask")
        self._attention_mask = torch.ones_like(tokens) if mask is None else mask

    def before(self, count: int) -> Any:
        """The cache of all tokens but the last ``count``, without a copy; this object stays unchanged."""
        cache = set_prompt_positions(branch_cache(self._cache), self._entry.call.get("position_ids"))
        for layer in cache.layers:
            layer.crop(-count)
        return cache

    def first_divergent_layer(self, bound: float) -> tuple[int, int] | None:
        """The first layer whose output for an unedited row differs from the plain forward's, and the prompt.

        For the rows that ran last, the first of which is not edited. None if no layer differs by more than
        ``bound``, relative to the size of the plain forward's states.
        """
        for layer, (plain, row) in enumerate(zip(self._plain, self._unedited, strict=True)):
            off = (plain.float() - row.float()).abs().amax(-1) / plain.float().abs().amax(-1).clamp(min=1)
            off = off.reshape(-1, off.shape[-1]).amax(0)  # (B,): some models carry several streams of states
            if not off.max() <= bound:
                return layer, int(off.nan_to_num(torch.inf).argmax())
        return None

    def rows(
        self,
        slots: SuffixTokens,
        parents: Mapping[int, Tensor],
        edit: EditScores,
        attention_of: Callable[..., RowAttention] | None = None,
        patches: Patches | None = None,
    ) -> Tensor:
        """The decoder's output for N variants of S slots: [B, N, S, d].

        Args:
            slots: the tokens, the same for every variant.
            parents: layer -> [N'] the rows (variants so far) that its N' rows continue, on any device; no
                entry: the same rows as before. Before the first layer there is one.
            edit: called at each layer with the scores of all rows.
            attention_of: makes the attention of the rows, from the arguments of `RowAttention`; None: that.
            patches: change what heads and layers return; None: nothing does.
        """
        width, prompt_slots = slots.tokens.shape[1], slots.prompt_slots
        if not 0 < prompt_slots < self.length:
            raise ModelError(
                f"Rows of {prompt_slots} prompt tokens share nothing with a prompt of {self.length}."
            )
        structure, ones = self._structure, self._attention_mask.new_ones
        mask = torch.cat([self._attention_mask, ones(len(self._attention_mask), width - prompt_slots)], 1)
        with exclusive(structure.decoder):
            call = self._decoder_call(slots)  # runs the model, so before any hook is set
            cache = self.before(prompt_slots)
            attention = (attention_of or RowAttention)(cache, structure.attention, slots, edit)
            if patches is not None:
                attention.edit_outputs = patches.head_outputs
            branching = _Branching(parents, width, attention)
            self._unedited.clear()
            hooks = temporary_hooks(
                [(block, branching.before(layer)) for layer, block in enumerate(structure.blocks)],
                [*self._patching(patches), *self._recording(self._unedited, prompt_slots - 1)],
            )
            replacing = attention_calls(
                structure, structure.attention, attention, "direct", replaces=True, suffix_rows=True
            )
            with hooks, patched_attribute(cache, "update", attention.update), replacing as run:
                out = run(
                    lambda: self._decoder(**call, attention_mask=mask, past_key_values=cache, use_cache=True)
                )
        hidden = out.last_hidden_state
        return hidden.reshape(len(hidden), -1, width, hidden.shape[-1])

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [B, R, V] of the decoder's output [B, R, d], by what the model does after its decoder."""
        output = copy.copy(self._output)
        output["last_hidden_state"] = hidden
        tokens = self._prompt.inputs["input_ids"][:, -1:]
        original, thread = self._decoder.forward, threading.get_ident()

        def forward(*args: Any, **kwargs: Any) -> Any:
            return output if threading.get_ident() == thread else original(*args, **kwargs)

        with exclusive(self._decoder), patched_attribute(self._decoder, "forward", forward):
            return self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits

    def _recording(self, states: list[Tensor], place: int) -> list[tuple[nn.Module, Callable[..., None]]]:
        """Hooks that append each layer's output for the token at ``place``."""

        def record(args: tuple, kwargs: dict, output: Any) -> None:
            states.append(hidden_states_out(output)[..., place, :])

        return [(block, record) for block in self._structure.blocks]

    def _patching(self, patches: Patches | None) -> list[tuple[nn.Module, Callable[..., Any]]]:
        """Hooks that patch each layer's output."""

        def patch(layer: int) -> Callable[..., Any]:
            def after(args: tuple, kwargs: dict, output: Any) -> Any:
                states = patches.states(layer, hidden_states_out(output)) if patches else output
                return (states, *output[1:]) if isinstance(output, tuple) else states

            return after

        blocks = () if patches is None else self._structure.blocks
        return [(block, patch(layer)) for layer, block in enumerate(blocks)]

    def _decoder_call(self, slots: SuffixTokens) -> dict[str, Any]:
        """What the decoder was called with, for the slots instead of the prompt."""
        prompt_slots, answers = slots.prompt_slots, slots.tokens[:, slots.prompt_slots :]
        # the inputs from which a decoder embeds its tokens itself are not needed: the embeddings are passed
        call = {
            n: x
            for n, x in self._entry.call.items()
            if n in ("position_ids",) or n not in self._prompt.inputs
        }
        for name in ("attention_mask", "past_key_values", "use_cache", "cache_position", "input_ids"):
            call.pop(name, None)
        embeds, position = self._entry.embeds, call.pop("position_ids", None)
        extra = self._entry.per_token(("inputs_embeds", "position_ids", *self._prompt.inputs))
        extra = {name: value[:, -prompt_slots:] for name, value in extra.items()} | {
            "inputs_embeds": embeds[:, -prompt_slots:]
        }
        if answers.shape[1]:
            beyond = self._enter_answers(answers)
            for name, value in extra.items():
                more = beyond.embeds if name == "inputs_embeds" else beyond.call.get(name)
                if not isinstance(more, Tensor) or more.shape[1] != answers.shape[1]:
                    raise ModelError(f"The decoder takes {name} for each token, which answers have not.")
                extra[name] = torch.cat([value, more.to(value.dtype)], 1)
        if position is None:
            call["position_ids"] = self.length - 1 + slots.depth
        else:
            behind = position[..., -1:] + slots.depth[:, prompt_slots:]
            before = position[..., -prompt_slots:].expand(*behind.shape[:-1], -1)
            call["position_ids"] = torch.cat([before, behind], -1)
        return call | extra

    def _enter_answers(self, tokens: Tensor) -> Entry:
        """How the decoder is called for tokens of an answer [B, S], their positions aside."""
        if self._answer_entry is None or not torch.equal(self._answer_entry[0], tokens):
            inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            self._answer_entry = tokens, enter(self._model, self._structure, inputs)
        return self._answer_entry[1]


class _Branching:
    """Hooks before the layers: hidden states [..., N * S, d] branch, and so does what belongs to tokens."""

    def __init__(self, parents: Mapping[int, Tensor], width: int, attention: RowAttention) -> None:
        self._parents, self._width, self._attention = parents, width, attention
        self._count = 1  # rows so far

    def before(self, layer: int) -> Callable[[tuple, dict], tuple[tuple, dict]]:
        """The hook before one layer."""
        parents = self._parents.get(layer)

        def hook(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            hidden = hidden_states_in(args, kwargs)
            states = hidden if parents is None else self._branched(hidden, parents)
            more = tuple(_tiled(value, self._width, self._count) for value in args[1:])
            keywords = {
                name: value
                if name in ("attention_mask", "past_key_values") or value is hidden
                else _tiled(value, self._width, self._count)
                for name, value in kwargs.items()
            }
            return replace_hidden_states((*args[:1], *more), keywords, states)

        return hook

    def _branched(self, hidden: Tensor, parents: Tensor) -> Tensor:
        shape = hidden.shape
        hidden = hidden.reshape(*shape[:-2], self._count, self._width, shape[-1])
        hidden = hidden.index_select(-3, parents.to(hidden.device)).reshape(*shape[:-2], -1, shape[-1])
        self._count = len(parents)
        self._attention.branch(parents)
        return hidden


def _tiled(value: Any, width: int, count: int) -> Any:
    """What belongs to S slots ([.., S, D] or, of whole numbers, [.., S]) for N variants of them."""
    if isinstance(value, tuple):
        return tuple(_tiled(part, width, count) for part in value)
    if not isinstance(value, Tensor) or value.dim() < 2 or width == 1:
        return value  # one slot broadcasts by itself
    axis = -2 if value.is_floating_point() else -1
    if value.shape[axis] != width:
        return value
    repeats = [1] * value.dim()
    repeats[axis] = count
    return value.repeat(repeats)


@contextmanager
def _last_token_only(structure: ModelStructure | None) -> Iterator[None]:
    """Inside, what the last layer does after its attention is done for the last token alone; None: for all.

    Its outputs, [.., 1, d], are then added to states of all tokens, of which the last is right.
    """
    block: Any = structure.blocks[-1] if structure else None
    module = structure.attention.get(len(structure.blocks) - 1) if structure else None
    if block is None or module is None:
        yield
        return
    attended: list[bool] = []  # not empty once the attention has run

    def cut(args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        states = find_hidden_states(args, kwargs)
        if not attended or states is None or states.dim() < 3:
            return None
        return replace_hidden_states(args, kwargs, states[..., -1:, :])

    parts = [part for part in block.children() if part is not module]
    with temporary_hooks(
        [(part, cut) for part in parts], [(module, lambda args, kwargs, output: attended.append(True))]
    ):
        yield
