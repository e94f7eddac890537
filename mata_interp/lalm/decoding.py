"""Answers in the model's own words: greedy or sampled, a row's words independent of its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..errors import InterventionError
from ..interventions import Editing
from .prompting.prompts import Prompt
from .prompting.vocabulary import special_tokens
from .rows.caches import branch_cache, crop_last_token, preallocate

__all__ = ["Decoding", "GenerationOutput", "decode", "end_tokens", "read_to_answer"]

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")  # kept although some tokenizers call them special


@dataclass(frozen=True)
class Decoding:
    """How an answer is generated.

    Attributes:
        max_new_tokens: an answer that is not finished by then is cut, which is recorded.
        temperature: 0 is greedy; else the logits are divided by it and a token is drawn.
        top_k: drawn from so many of the likeliest tokens; 0: from all.
        top_p: drawn from the fewest tokens whose probabilities add up to it; 1: from all.
        seed: of the draws. Each item draws from a generator of its own, made of seed and item id: what is
            drawn for it does not depend on the items beside it, on their order, or on restarts.

    Raises:
        InterventionError: a value makes no sense.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("top_k", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InterventionError(f"{name} is {value!r}: give a whole number of at least {least}.")
        for name, low, high in (("temperature", 0, 100), ("top_p", 1e-9, 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InterventionError(f"{name} is {value!r}: it lies between {low:g} and {high:g}.")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise InterventionError("top_k and top_p are of sampling: give a temperature above 0 with them.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class GenerationOutput:
    """What B prompts were answered with.

    Attributes:
        texts: the words, without the end mark; thoughts and tags stay in.
        tokens: their ids, int64 [B, n], each row padded after its end mark.
        lengths: tokens generated, the end mark among them, int [B].
        stopped: whether a row came to its end; False where it was cut at ``max_new_tokens``. bool [B].
        dose: of an intervention, its mean over edited layers, heads and queries (the last prompt token and
            those tokens of the answer that the model read again): name -> float64 [B]. Empty without one.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    lengths: np.ndarray
    stopped: np.ndarray
    dose: dict[str, np.ndarray] = field(default_factory=dict)


# None for what only sampling uses, so that greedy decoding is not warned about
_GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_k": None, "top_p": None}


def read_to_answer(model: Any, prompt: Prompt, room: int) -> Any:
    """The cache of all tokens of the prompts but their last, as generation itself reads them (its positions).

    None where the model cannot step back by that token, or takes more for each token than ids and a mask.
    ``room``: for how many tokens to leave place, that last one and an answer's.
    """
    tensors = {name: x for name, x in prompt.inputs.items() if isinstance(x, Tensor)}
    per_token = {name for name, x in tensors.items() if x.dim() > 1 and x.shape[-1] == prompt.width}
    if per_token - {"input_ids", "attention_mask"} or prompt.groups["audio"][:, -1].any():
        return None
    out = model.generate(**prompt.inputs, max_new_tokens=1, return_dict_in_generate=True, **_GREEDY)
    back = crop_last_token(out.past_key_values)
    return None if back is None else preallocate(back, room)


def decode(
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    decoding: Decoding,
    editing: Editing | None = None,
    cache: Any = None,
) -> GenerationOutput:
    """Generate with a KV cache; attention edits are made around this function, by the instrument.

    The model's own generation settings hold, but for its sampling: greedy search runs over logits to which,
    for a temperature above 0, Gumbel noise is added, whose maximum is an exact draw (Gumbel 1954; Maddison
    et al. 2014, arXiv 1411.0030).

    Args:
        prompt: on the model's device.
        editing: told which rows have ended, so that padding does not enter the dose.
        cache: what `read_to_answer` gave for these prompts; None: they are read here.
    """
    ends = end_tokens(model, tokenizer)
    chooser = _Chooser([item.id for item in prompt.items], decoding, ends, editing)
    inputs: dict[str, Any] = dict(prompt.inputs)
    if cache is not None:
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        inputs["past_key_values"] = branch_cache(cache)
    sequences = model.generate(
        **inputs,
        max_new_tokens=decoding.max_new_tokens,
        logits_processor=LogitsProcessorList([chooser]),
        **_GREEDY,
    )
    tokens = sequences[:, prompt.width :]
    texts = [
        _text(tokenizer, prompt.inputs["input_ids"][row], tokens[row, : int(chooser.lengths[row])], ends)
        for row in range(prompt.size)
    ]
    return GenerationOutput(tuple(texts), tokens, chooser.lengths.numpy(), chooser.ended.numpy())


class _Chooser(LogitsProcessor):
    """The last processor of the logits: makes greedy search draw, and keeps count of every row's end."""

    def __init__(self, ids: Sequence[str], decoding: Decoding, ends: Tensor, editing: Editing | None) -> None:
        self._generators = [_generator(decoding.seed, name) for name in ids]
        self._warpers: list[Any] = []
        if decoding.temperature > 0:
            self._warpers.append(TemperatureLogitsWarper(float(decoding.temperature)))
            if decoding.top_k:
                self._warpers.append(TopKLogitsWarper(decoding.top_k))
            if decoding.top_p < 1:
                self._warpers.append(TopPLogitsWarper(float(decoding.top_p)))
        self._ends, self._editing = ends, editing
        self.ended = torch.zeros(len(ids), dtype=torch.bool)
        self.lengths = torch.zeros(len(ids), dtype=torch.long)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores [B, V] float32 whose maximum is the token to say."""
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        if self._warpers:
            noise = torch.zeros(scores.shape)
            for row, generator in enumerate(self._generators):
                if not self.ended[row]:
                    drawn = generator.standard_exponential(scores.shape[1], dtype=np.float32)
                    noise[row] = -torch.from_numpy(drawn).clamp_min(1e-30).log()
            scores = scores + noise.to(scores.device)
        self.lengths += ~self.ended
        self.ended |= torch.isin(scores.argmax(-1).cpu(), self._ends)
        if self._editing is not None:
            self._editing.counted = ~self.ended[:, None]
        return scores


def _generator(seed: int, item: str) -> np.random.Generator:
    name = int.from_bytes(hashlib.sha256(item.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, name])


def end_tokens(model: Any, tokenizer: Any) -> Tensor:
    """The tokens at which transformers ends a row: those of the generation settings."""
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None and tokenizer is not None else ends
    return torch.tensor([] if ends is None else ends, dtype=torch.long).reshape(-1)


def _text(tokenizer: Any, asked: Tensor, said: Tensor, ends: Tensor) -> str:
    """The words of one row; with the <think> that a chat template may have opened for the model."""
    if tokenizer is None:
        return ""
    special = {id for id, written in special_tokens(tokenizer).items() if written not in _TAGS}
    kept = [token for token in said.tolist() if token not in special and token not in ends.tolist()]
    opened = tokenizer.decode(asked[-8:]).rstrip().endswith("<think>")
    return ("<think>" if opened else "") + tokenizer.decode(kept, skip_special_tokens=False)
