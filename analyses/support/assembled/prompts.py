"""Run the decoder on audio features and text, with the common beginning of all prompts computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from .convert import SPECIAL_TOKENS

__all__ = ["Decoder", "Row"]


@dataclass(frozen=True)
class Row:
    """One prompt after the audio, as token ids, and the answer's token ids."""

    prompt: list[int]
    answer: list[int]


class Decoder:
    """The assembled model from the projector on, for training and validation.

    Every prompt begins with the same tokens up to the audio. Their keys and values are computed once and
    shared, which is exact, because no earlier token attends to a later one.

    Args:
        model: the assembled model.
        processor: its processor.
    """

    def __init__(self, model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor) -> None:
        self.model, self.processor = model, processor
        self.language_model, self.head = model.model.language_model, model.lm_head
        self.projector = model.model.multi_modal_projector
        self.tokenizer = processor.tokenizer
        self.before = self.ids(self._parts("")[0])
        self.end = self.ids("<|im_end|>")

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _parts(self, text: str) -> tuple[str, str]:
        """The chat prompt of audio and text, before and after the audio."""
        content = [{"type": "audio"}, {"type": "text", "text": text}]
        chat = [{"role": "user", "content": content}]
        whole = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        before, after = whole.split(SPECIAL_TOKENS["audio_token"])
        return before, after

    def row(self, text: str, answer: str) -> Row:
        """Return the row of a user's text and an answer, which ends the turn."""
        return Row(self.ids(self._parts(text)[1]), self.ids(answer) + self.end)

    def prefix(self, count: int) -> DynamicCache:
        """Return the keys and values of the common beginning for ``count`` rows, without gradients."""
        with torch.no_grad():
            inputs = torch.tensor([self.before])
            cache = self.language_model(input_ids=inputs, use_cache=True).past_key_values
        cache.batch_repeat_interleave(count)
        return cache

    def answer_logits(self, features: Tensor, rows: Sequence[Row]) -> list[Tensor]:
        """Return the logits that predict each row's answer, float [answer tokens, vocabulary] per row.

        Args:
            features: the encoder's output, [rows, audio tokens, width], or every nth of the audio tokens.
            rows: one per clip.
        """
        return self.logits_of(self.projector(features), rows)

    def logits_of(self, audio: Tensor, rows: Sequence[Row]) -> list[Tensor]:
        """Return the same for audio embeddings [rows, audio tokens, decoder width]."""
        lengths = [len(row.prompt) + len(row.answer) for row in rows]
        tokens = torch.full((len(rows), max(lengths)), self.tokenizer.pad_token_id)
        before = len(self.before) + audio.shape[1]  # tokens before the question
        mask = torch.zeros(len(rows), before + max(lengths), dtype=torch.long)
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            tokens[index, :length] = torch.tensor(row.prompt + row.answer)
            mask[index, : before + length] = 1
        embeddings = torch.cat([audio, self.language_model.embed_tokens(tokens)], dim=1)
        states = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            past_key_values=self.prefix(len(rows)),
            use_cache=True,
        ).last_hidden_state
        firsts = [audio.shape[1] + len(row.prompt) - 1 for row in rows]
        sizes = [len(row.answer) for row in rows]
        answers = [
            state[first : first + size] for state, first, size in zip(states, firsts, sizes, strict=True)
        ]
        return list(self.head(torch.cat(answers)).split(sizes))  # the large head runs once
