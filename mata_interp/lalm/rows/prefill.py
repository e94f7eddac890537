"""Prompts read once, then any number of variants of what comes after: rows over a shared past.

An edit of the last prompt token's attention leaves the keys and values of all tokens before it as they are,
and an edit of all text behind the sound those of the sound and what stands before it. So the prompts are read
once, and every variant of what is edited, with the answer tokens after it, is one more set of query rows that
see this past and themselves: no copy of the past, no second reading. The rows run through the decoder's own
layers, whatever these do besides attention; only the attention call is ours, and before each layer the rows
may branch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from mata_interp.errors import ModelError

from ..discovery.entry import Entry, enter
from ..discovery.structure import ModelStructure
from ..prompting.prompts import Prompt
from ..scoring import last_position_only
from .caches import branch, knows_positions, remembers
from .row_attention import EditScores, RowAttention, SuffixTokens, attending

__all__ = ["PrefillCache"]


class PrefillCache:
    """B prompts, read once.

    Args:
        model: a transformers model.
        anatomy: where its decoder and attention are.
        prompt: B left-padded prompts on the model's device.
        thrifty: do without what the last layer does behind its attention, but for the last token: nobody asks
            for the rest, and it is most of a layer. Only `rows` of a reading can tell whether the model
            allows it, by a first row that is the plain forward.

    Attributes:
        logits: [B, V] of the plain forward at the last prompt token.
        length: T, the number of tokens.
        size: d, of the hidden states.

    Raises:
        ModelError: the rows cannot run on this model: its decoder is called in a way that is not understood,
            or its layers keep another memory than keys and values.
    """

    def __init__(
        self, model: Any, structure: ModelStructure, prompt: Prompt, last_token_only: bool = False
    ) -> None:
        decoder: Any = structure.decoder
        self._model, self._structure, self._decoder, self._prompt = model, structure, decoder, prompt
        self._layers: dict[Any, int] = {module: layer for layer, module in structure.attention.items()}
        if prompt.groups["audio"][:, -1].any():
            raise ModelError("The last token of a prompt is audio: rows begin with a token of text.")
        if "linear" in structure.kinds or remembers(DynamicCache(config=decoder.config)):
            raise ModelError(
                f"{type(decoder).__name__} has layers whose memory is no keys and values: rows mix it."
            )
        cache = DynamicCache()  # without a config every layer keeps all keys, and can step back by one
        calls: list[dict[str, Any]] = []
        outs: list[Any] = []
        states: list[Tensor] = []
        self._plain: list[Tensor] = []  # of each layer, what it gave for the last token
        self._asked: tuple[Tensor, Entry] | None = None  # tokens of answers, and what becomes of them
        self._unedited: list[Tensor] = []  # and for the same token in the first of the rows run last
        handles = [
            decoder.register_forward_pre_hook(
                lambda _, args, kwargs: calls.append(kwargs | ({"positional": args} if args else {})),
                with_kwargs=True,
            ),
            decoder.register_forward_hook(lambda _, args, out: outs.append(out)),
            structure.blocks[0].register_forward_pre_hook(lambda _, args: states.append(args[0])),
            *self._watching(self._plain, -1),
        ]
        try:
            with last_position_only(model), _last_token_only(structure if last_token_only else None):
                out = model(**prompt.inputs, past_key_values=cache, use_cache=True)
        finally:
            for handle in handles:
                handle.remove()
        if len(calls) != 1 or "positional" in calls[0]:
            raise ModelError(f"{type(decoder).__name__} is called in a way that rows cannot follow.")
        self.logits: Tensor = out.logits[:, -1]
        self._entry, self._output, self._cache = Entry(calls[0], states[0]), outs[0], cache
        _, self.length, self.size = self._entry.embeds.shape[-3:]
        tokens = prompt.inputs["input_ids"]
        if tokens.shape[1] != self.length:
            raise ModelError(f"{type(decoder).__name__} sees {self.length} tokens for {tokens.shape[1]}.")
        mask = prompt.inputs.get("attention_mask")
        self._real = torch.ones_like(tokens) if mask is None else mask

    def before(self, given: int) -> Any:
        """The cache of all tokens but the last ``given``; nothing is copied, the reading stays as it is."""
        cache = knows_positions(branch(self._cache), self._entry.call.get("position_ids"))
        for layer in cache.layers:
            layer.crop(-given)
        return cache

    def first_divergent_layer(self, bound: float) -> tuple[int, int] | None:
        """The first layer behind which an unedited row is off the plain forward, and in which prompt.

        For rows just run, the first of them not edited. None if it is nowhere off by more than ``bound``,
        relative to the size of the plain forward's states.
        """
        for layer, (plain, ours) in enumerate(zip(self._plain, self._unedited, strict=True)):
            off = (plain.float() - ours.float()).abs().amax(-1) / plain.float().abs().amax(-1).clamp(min=1)
            off = off.reshape(-1, off.shape[-1]).amax(0)  # (B,): some models carry several states
            if not off.max() <= bound:
                return layer, int(off.nan_to_num(torch.inf).argmax())
        return None

    def rows(self, slots: SuffixTokens, parents: Mapping[int, Tensor], edit: EditScores) -> Tensor:
        """The decoder's output for N variants of S slots: [B, N, S, d].

        Args:
            slots: the tokens, the same for every variant.
            parents: layer -> [N'] the rows (variants so far) that its N' rows go on from; no entry: the same
                rows as before. Before the first layer there is one.
            edit: called at each layer with the scores of all rows.
        """
        width, given = slots.tokens.shape[1], slots.given
        if not 0 < given < self.length:
            raise ModelError(f"Rows of {given} prompt tokens share nothing with a prompt of {self.length}.")
        call = self._passed_on(slots)  # runs the model, so before any hook is set
        cache = self.before(given)
        attention = RowAttention(cache, self._layers, slots, edit)
        rows = {"count": 1}
        self._unedited.clear()
        handles = self._watching(self._unedited, given - 1) + [
            layer.register_forward_pre_hook(
                _branching(parents.get(i), rows, width, attention), with_kwargs=True
            )
            for i, layer in enumerate(self._structure.blocks)
        ]
        cache.update = attention.update
        beyond = self._real.new_ones(len(self._real), width - given)
        try:
            with attending(self._decoder, attention):
                out = self._decoder(
                    **call,
                    attention_mask=torch.cat([self._real, beyond], 1),
                    past_key_values=cache,
                    use_cache=True,
                )
        finally:
            for handle in handles:
                handle.remove()
        hidden = out.last_hidden_state
        return hidden.reshape(len(hidden), -1, width, hidden.shape[-1])

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [B, R, V] of the decoder's output [B, R, d], by what the model does behind its decoder."""
        output = copy.copy(self._output)
        output["last_hidden_state"] = hidden
        tokens = self._prompt.inputs["input_ids"][:, -1:]
        own = self._decoder.__dict__.get("forward")
        self._decoder.forward = lambda *args, **kwargs: output
        try:
            return self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        finally:
            del self._decoder.forward
            if own is not None:
                self._decoder.forward = own

    def _watching(self, found: list[Tensor], place: int) -> list[Any]:
        """Hooks that put what each layer gives for the token at ``place`` into ``found``."""

        def hook(_: Any, __: Any, out: Any) -> None:
            found.append((out[0] if isinstance(out, tuple) else out)[..., place, :])

        return [layer.register_forward_hook(hook) for layer in self._structure.blocks]

    def _passed_on(self, slots: SuffixTokens) -> dict[str, Any]:
        """What the decoder was called with, for the slots instead of the prompt."""
        given, asked = slots.given, slots.tokens[:, slots.given :]
        # what a decoder that embeds its tokens itself is given to do so is done
        call = {
            n: x
            for n, x in self._entry.call.items()
            if n in ("position_ids",) or n not in self._prompt.inputs
        }
        for ours in ("attention_mask", "past_key_values", "use_cache", "cache_position", "input_ids"):
            call.pop(ours, None)
        embeds, position = self._entry.embeds, call.pop("position_ids", None)
        extra = self._entry.per_token(("inputs_embeds", "position_ids", *self._prompt.inputs))
        extra = {name: value[:, -given:] for name, value in extra.items()} | {
            "inputs_embeds": embeds[:, -given:]
        }
        if asked.shape[1]:
            beyond = self._answers(asked)
            for name, value in extra.items():
                more = beyond.embeds if name == "inputs_embeds" else beyond.call.get(name)
                if not isinstance(more, Tensor) or more.shape[1] != asked.shape[1]:
                    raise ModelError(f"The decoder takes {name} for each token, which answers have not.")
                extra[name] = torch.cat([value, more.to(value.dtype)], 1)
        if position is None:
            call["position_ids"] = self.length - 1 + slots.depth
        else:
            behind = position[..., -1:] + slots.depth[:, given:]
            before = position[..., -given:].expand(*behind.shape[:-1], -1)
            call["position_ids"] = torch.cat([before, behind], -1)
        return call | extra

    def _answers(self, tokens: Tensor) -> Entry:
        """How the decoder is called for tokens of an answer [B, S], apart from where they stand."""
        if self._asked is None or not torch.equal(self._asked[0], tokens):
            alone = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            self._asked = tokens, enter(self._model, self._structure, alone)
        return self._asked[1]


def _branching(parents: Tensor | None, rows: dict[str, int], width: int, attention: RowAttention) -> Any:
    """A hook before a layer: its hidden states [..., N * S, d] branch, what goes with each token follows."""

    def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden, *others = args
        if parents is not None:
            shape = hidden.shape
            hidden = hidden.reshape(*shape[:-2], rows["count"], width, shape[-1])
            hidden = hidden.index_select(-3, parents).reshape(*shape[:-2], -1, shape[-1])
            rows["count"] = len(parents)
            attention.branched(parents)
        tile = lambda x: _tiled(x, width, rows["count"])  # noqa: E731
        kept = {"attention_mask", "past_key_values"}
        return (hidden, *map(tile, others)), {k: v if k in kept else tile(v) for k, v in kwargs.items()}

    return hook


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
    """Inside, the last layer's parts behind its attention see the last token alone; None: all of them.

    What they give, [.., 1, d], is then added to states of all tokens, of which the last is right.
    """
    block: Any = structure.blocks[-1] if structure else None
    module = structure.attention.get(len(structure.blocks) - 1) if structure else None
    if block is None or module is None:
        yield
        return
    passed: list[bool] = []  # whether the attention is behind us

    def cut(_: Any, args: tuple) -> tuple:
        states = bool(args) and isinstance(args[0], Tensor) and args[0].dim() >= 3
        return (args[0][..., -1:, :], *args[1:]) if passed and states else args

    handles = [module.register_forward_hook(lambda *_: passed.append(True))]
    handles += [part.register_forward_pre_hook(cut) for part in block.children() if part is not module]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
