"""Generated answers: greedy or sampled, each row independent of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..errors import ArgumentError, ModelError
from .decoding_options import Decoding
from .generation_settings import generation_arguments, stop_strings
from .prompting.prompts import Prompt
from .prompting.thinking import TAGS, OpenThought, ThoughtState
from .prompting.vocabulary import special_tokens
from .random_draws import GumbelNoise
from .rereading import keeps_states, without_last_token
from .rows.caches import branch_cache, crop_last_token, preallocate, set_prompt_positions, with_next_position
from .scoring import decoder_positions

__all__ = ["GenerationOutput", "decode", "end_of_sequence_ids", "read_to_answer"]

# they stay in the text although some tokenizers call them special
_TAGS = {"<answer>", "</answer>", *(text for tags in TAGS for text in tags)}


@dataclass(frozen=True, eq=False, repr=False)
class GenerationOutput:
    """The answers to B prompts.

    Attributes:
        texts: without the end-of-sequence token; thoughts and tags stay in.
        tokens: their ids, int64 [B, n], each row padded after its end.
        lengths: number of tokens generated, the end-of-sequence token included, int [B].
        stopped: whether a row reached an end-of-sequence token or a stop string; False where it was cut at
            ``max_new_tokens``. bool [B].
        dose: the intervention's dose, a mean over edited layers, heads and queries (the last prompt token and
            all tokens of the answer that the model read): name -> float64 [B]. Empty without an intervention.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> output = lalm.answer(items[0], max_new_tokens=8)
        >>> len(output.texts), output.tokens.shape[0]
        (1, 1)
    """

    texts: tuple[str, ...]
    tokens: Tensor
    lengths: np.ndarray
    stopped: np.ndarray
    dose: dict[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        first = self.texts[0] if len(self.texts[0]) <= 40 else f"{self.texts[0][:37]}..."
        cut = int((~self.stopped).sum())
        return f"<GenerationOutput {len(self.texts)} answers, {cut} cut, the first {first!r}>"


def read_to_answer(model: Any, prompt: Prompt, room: int) -> Any:
    """The cache of all prompt tokens but the last, with the positions that generation itself uses.

    Args:
        room: number of tokens to allocate space for, that last one and an answer's.

    Returns:
        None where the last token is audio, and where the model needs more than ids and a mask for each token.
    """
    shorter = without_last_token(prompt)
    if shorter is None or prompt.groups["audio"][:, -1].any():
        return None
    how = generation_arguments(model) | {"return_dict_in_generate": True, "min_new_tokens": None}

    def cache_of(inputs: dict[str, Any]) -> Any:
        with decoder_positions(model) as positions:
            out = model.generate(**inputs, max_new_tokens=1, **how)
        return set_prompt_positions(out.past_key_values, positions[0])

    back = None if keeps_states(model) else crop_last_token(cache_of(prompt.inputs))
    if back is None:
        back = with_next_position(cache_of(shorter))
    return preallocate(back, room)


def decode(
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    decoding: Decoding,
    editing: Any = None,
    cache: Any = None,
) -> GenerationOutput:
    """Generate with a KV cache; attention edits are made around this function, by the instrument.

    The model's own generation settings hold (penalties, bad words, stop strings, ...), but for those of
    `generation_settings.REPLACED`: sampling, beams, and how a cache is kept. Greedy search runs over logits
    to which, for a temperature above 0, Gumbel noise is added, whose maximum is an exact draw (Gumbel 1954;
    Maddison et al. 2014, arXiv 1411.0030).

    Args:
        prompt: on the model's device.
        editing: bound interventions; its ``counted`` is set to the rows that have not ended, so that padding
            does not enter the dose.
        cache: from `read_to_answer` for these prompts; None: they are read here.

    Raises:
        ModelError: a generation setting of the model makes answers that cannot be edited.
    """
    how = generation_arguments(model)
    ends = end_of_sequence_ids(model, tokenizer)
    chooser = _Chooser([item.id for item in prompt.items], decoding, ends, editing)
    if editing is not None and editing.follows_thoughts:
        if tokenizer is None:
            raise ArgumentError("Edits of reasoning or answer need a tokenizer, which finds the tags.")
        tags = None if prompt.thought is None else prompt.thought.tags
        chooser.thoughts = ThoughtState(tokenizer, tags, prompt.size)
        editing.thought_open = chooser.thoughts.open
    inputs: dict[str, Any] = dict(prompt.inputs)
    if cache is not None:
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        inputs["past_key_values"] = branch_cache(cache)
    sequences = model.generate(
        **inputs,
        max_new_tokens=decoding.max_new_tokens,
        logits_processor=LogitsProcessorList([chooser]),
        stopping_criteria=_stop_strings(model, tokenizer, chooser),
        **how,
    )
    tokens = _padded_behind_ends(model, sequences[:, prompt.width :], chooser.lengths)
    # one copy of all from the device
    ends_of_rows = torch.stack([chooser.lengths, chooser.ended.long()], 1)
    on_cpu = torch.cat([ends_of_rows, sequences[:, : prompt.width].long(), tokens.long()], 1).cpu()
    lengths, ended, whole = on_cpu[:, 0].numpy(), on_cpu[:, 1].bool().numpy(), on_cpu[:, 2:]
    prompt_ids, answer_ids = whole[:, : prompt.width], whole[:, prompt.width :]
    texts = [
        _text(tokenizer, prompt_ids[row], answer_ids[row, : int(lengths[row])], ends, prompt.thought)
        for row in range(prompt.size)
    ]
    return GenerationOutput(tuple(texts), tokens, lengths, ended)


class _Chooser(LogitsProcessor):
    """The last logits processor: makes greedy search sample, and records the end of every row.

    Everything stays on the device of the logits: reading it would make each token wait for the device.
    """

    def __init__(self, ids: Sequence[str], decoding: Decoding, ends: Tensor, editing: Any) -> None:
        self._ids, self._seed = list(ids), decoding.seed
        self._warpers: list[Any] = []
        if decoding.temperature > 0:
            self._warpers.append(TemperatureLogitsWarper(float(decoding.temperature)))
            if decoding.top_k:
                self._warpers.append(TopKLogitsWarper(decoding.top_k))
            if decoding.top_p < 1:
                self._warpers.append(TopPLogitsWarper(float(decoding.top_p)))
        self._ends, self._editing = ends, editing
        self.thoughts: ThoughtState | None = None
        self._noise: GumbelNoise | None = None
        self._position = 0  # in the answers
        self.ended = torch.zeros(len(ids), dtype=torch.bool)
        self.lengths = torch.zeros(len(ids), dtype=torch.long)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores [B, V] float32 whose maximum is the next token."""
        if self._position == 0:
            device = scores.device
            self._ends, self.ended = self._ends.to(device), self.ended.to(device)
            self.lengths = self.lengths.to(device)
            if self._warpers:
                self._noise = GumbelNoise(self._seed, self._ids, device)
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        if self._noise is not None:
            scores = scores + self._noise.draw(self._position, scores.shape[1])
        self._position += 1
        self.lengths = self.lengths + ~self.ended
        chosen = scores.argmax(-1)
        self.end(torch.isin(chosen, self._ends))
        if self.thoughts is not None and self._editing is not None:
            self.thoughts.add(chosen.tolist())
            self._editing.thought_open = self.thoughts.open
        return scores

    def end(self, ended: Tensor) -> None:
        """Some rows, bool [B], ended with their last token."""
        self.ended = self.ended | ended.to(self.ended.device)
        if self._editing is not None:
            self._editing.counted = ~self.ended[:, None]


class _StopStrings(StoppingCriteria):
    """Ends rows at a stop string, and tells the chooser, which records the end of every row."""

    def __init__(self, tokenizer: Any, strings: list[str], chooser: _Chooser) -> None:
        self._found, self._chooser = StopStringCriteria(tokenizer, strings), chooser

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        stopped = self._found(input_ids, scores)
        self._chooser.end(stopped)
        return stopped


def _stop_strings(model: Any, tokenizer: Any, chooser: _Chooser) -> StoppingCriteriaList:
    """The criteria that end rows at the stop strings of a model's generation settings, if it has any."""
    strings = stop_strings(model)
    if strings and tokenizer is None:
        raise ModelError(
            f"The generation settings of this model have stop_strings={strings!r}, which need its tokenizer: "
            "pass the processor to LALM, or set lalm.model.generation_config.stop_strings = None."
        )
    return StoppingCriteriaList([_StopStrings(tokenizer, strings, chooser)] if strings else [])


def _padded_behind_ends(model: Any, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The tokens [B, n], padded after each row's end; ``generate`` pads only after end tokens it knows."""
    pad = model.generation_config.pad_token_id
    behind = torch.arange(tokens.shape[1], device=lengths.device)[None] >= lengths[:, None]
    return tokens if pad is None else tokens.masked_fill(behind.to(tokens.device), pad)


def end_of_sequence_ids(model: Any, tokenizer: Any = None) -> Tensor:
    """The token ids that end an answer, int64 [n]: those of the model's generation settings.

    Args:
        model: a transformers model.
        tokenizer: its end-of-sequence token is used where the settings name none.
    """
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None and tokenizer is not None else ends
    return torch.tensor([] if ends is None else ends, dtype=torch.long).reshape(-1)


def _text(
    tokenizer: Any, prompt_tokens: Tensor, tokens: Tensor, ends: Tensor, thought: OpenThought | None = None
) -> str:
    """The text of one row; with the tag of a thought that the chat template has opened for the model."""
    if tokenizer is None:
        return ""
    special = {id for id, written in special_tokens(tokenizer).items() if written not in _TAGS}
    plain = [token for token in tokens.tolist() if token not in special and token not in ends.tolist()]
    if thought is not None:
        opened = thought.tags.open
    else:  # of a prompt from ready-made inputs
        end = tokenizer.decode(prompt_tokens[-8:]).rstrip()
        opened = next((tags.open for tags in TAGS if end.endswith(tags.open.rstrip())), "")
    return opened + tokenizer.decode(plain, skip_special_tokens=False)
