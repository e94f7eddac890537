"""A family of models in these tests: how to build a tiny one, and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

__all__ = ["AUDIO", "END", "PAD", "VOCAB", "Family", "byte_tokenizer", "seeded", "sounding"]

VOCAB = 320
PAD, END, AUDIO = 256, 257, 258  # the first special tokens after 256 bytes
MARKS = (259, 260)  # begin and end of a clip, where a family has them

Sound = Callable[[int], "tuple[dict[str, Tensor], list[int]]"]
"""``sound(rows)``: inputs that hold one clip per row, and how many placeholders each takes."""


@dataclass(frozen=True)
class Family:
    """One family of audio-language models in transformers.

    Attributes:
        name: its ``model_type``.
        model: a tiny seeded model in eval mode, for an attention implementation (None: SDPA).
        sound: inputs that hold one clip per row, and the placeholders each takes.
        needs: packages without which it cannot be loaded; it is then built without the part they are for.
        audio: the id of its placeholder.
        states: whether some layers keep a recurrent or convolutional state, which rows cannot share.
        rounding: how far logits may differ in float32, relative to their size.
    """

    name: str
    model: Callable[[str | None], Any]
    sound: Sound
    needs: tuple[str, ...] = ()
    audio: int = AUDIO
    states: bool = False
    rounding: float = 1e-5

    @property
    def missing(self) -> list[str]:
        """Which of the packages it needs are not here."""
        return [name for name in self.needs if find_spec(name) is None]

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """``rows`` prompts of unlike length, left-padded: text, one clip, text."""
        held, placeholders = self.sound(rows)
        noise = np.random.default_rng(7)
        texts = [
            [
                *noise.integers(32, 127, 3 + 2 * row),
                MARKS[0],
                *[self.audio] * placeholders[row],
                MARKS[1],
                *noise.integers(32, 127, 9 - 3 * row),
            ]
            for row in range(rows)
        ]
        width = max(map(len, texts))
        ids = torch.full((rows, width), PAD)
        mask = torch.zeros(rows, width, dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, width - len(text) :] = torch.tensor(np.array(text))
            mask[row, width - len(text) :] = 1
        return {"input_ids": ids, "attention_mask": mask, **held}


def seeded(build: Callable[[], Any], sharpness: float = 12.0, normed_sharpness: float = 2.5) -> Any:
    """A model with random weights, in eval mode, whose output depends on its attention.

    Freshly drawn weights give almost uniform attention and hardly change the residual stream, so that no edit
    would show. Queries and keys are sharpened, by their norms where there are any; all else is made larger.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
        decoder = getattr(model, "thinker", model).get_decoder()
        normed = {name for name, _ in decoder.named_parameters() if "q_norm" in name}
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                if "audio" in name or "image" in name or "vision" in name:
                    continue
                if "q_norm.weight" in name:
                    parameter.mul_(normed_sharpness)
                elif parameter.dim() == 1 and "norm" not in name and "bias" in name:
                    parameter.normal_(std=0.1)
                elif any(part in name for part in ("q_proj.weight", "k_proj.weight")) and not normed:
                    parameter.mul_(sharpness)
                elif parameter.dim() > 1:
                    parameter.mul_(5.0)
            for name, parameter in model.named_parameters():
                if "conv" in name and parameter.dim() > 2:
                    parameter.mul_(5.0)  # otherwise all audio gives nearly the same output in bfloat16
            heads = (m.get_output_embeddings() for m in (model, getattr(model, "language_model", None)) if m)
            head = next(head for head in heads if head is not None).weight
            if head is not getattr(model.get_input_embeddings(), "weight", None):
                head.mul_(5.0)
    model.generation_config.eos_token_id = None  # random weights end anywhere
    model.generation_config.pad_token_id = PAD
    model.generation_config.suppress_tokens = list(range(PAD, 272))  # answers are text without audio tokens
    return model


def sounding(*shape: int, seed: int = 0) -> Tensor:
    """Noise in place of features."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def byte_tokenizer(special: dict[str, str | None], **named: str) -> PreTrainedTokenizerFast:
    """256 bytes without merges, then the special tokens in order: their ids are 256 and up."""
    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytes_only = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    extra = {name: token for token, name in special.items() if name}
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, padding_side="left", extra_special_tokens=extra, **named
    )
