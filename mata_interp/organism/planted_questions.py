"""Questions that a small new decoder learns within minutes, and which fusion layer reads for each.

Three kinds of question have answers that the organism's audio encoder names frame by frame: the spoken word,
the speaker and the instrument. Each has four wordings. The twelve pairs of kind and wording are divided among
the fusion layers of a planted model in order, so that up to twelve layers do a part of the work each, and
none is redundant.

Clips are mixed and encoded once and drawn again in every batch: the encoder is not trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from ..benchmarks import Item, Items
from ..seeding import named_generator
from .architecture import SYSTEM, TEMPLATE, mel_features
from .bank import RATE, Bank
from .batches import Batch, Batcher, TaskMix
from .questions import WORDINGS, Question, make_question
from .scenes import Mixer, Scene

__all__ = ["PAIRS", "QuestionPool", "planted_items", "reading_layer", "short_processor"]

KINDS = ("word", "voice", "instrument")
PAIRS = tuple(f"{kind}/{wording}" for wording in range(4) for kind in KINDS)
SHORT_SYSTEM = "Listen and answer."
ENCODED_AT_ONCE = 50  # clips


def reading_layer(pair: str, fusion_layers: Sequence[int]) -> int | None:
    """The fusion layer that reads the audio for a pair of kind and wording; None without fusion layers.

    >>> [reading_layer(pair, (3, 7)) for pair in (PAIRS[0], PAIRS[-1])]
    [3, 7]
    """
    if not fusion_layers:
        return None
    return fusion_layers[PAIRS.index(pair) * len(fusion_layers) // len(PAIRS)]


def short_processor(processor: Qwen2AudioProcessor) -> Qwen2AudioProcessor:
    """The processor with a system message of three words, which makes prompts half as long."""
    processor.chat_template = TEMPLATE.replace(SYSTEM, SHORT_SYSTEM)
    processor.tokenizer.chat_template = processor.chat_template
    return processor


def draw_questions(bank: Bank, split: str, count: int, seed: int) -> Iterator[tuple[Scene, Question, str]]:
    """Clips of a split with one question each, kinds in turn, and the question's pair of kind and wording."""
    rng = named_generator(seed, f"planted questions {split}")
    mixer = Mixer(bank, split, rng, augment=split == "train")
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        scene = mixer.scene(kind)
        question = make_question(kind, scene, bank, rng)
        yield scene, question, f"{kind}/{WORDINGS[kind].index(question.text)}"


def planted_items(bank: Bank, split: str, count: int, seed: int = 0) -> Items:
    """Items to measure planted models of new decoders on.

    Args:
        bank: the recordings.
        split: ``"selection"`` for criteria, ``"confirmation"`` for the truth.
        count: number of items, each with a clip of its own.
        seed: seed of clips and questions.
    """
    items = [
        Item(
            audio=(scene.samples, RATE),
            question=question.text,
            choices=question.choices,
            answer=question.answer,
            id=f"{split}-{number}",
            kind=pair,
            condition="neutral",
            split=split,
        )
        for number, (scene, question, pair) in enumerate(draw_questions(bank, split, count, seed))
    ]
    return Items.from_records(items, name=f"planted {split}")


@dataclass
class QuestionPool:
    """Questions whose clips are encoded, from which batches are drawn.

    Attributes:
        prefix: token ids that all prompts begin with.
        states: of each clip, the audio encoder's output ``[n, 128]``, one row per audio token.
        prompts, answers: token ids of each question after the prefix, and of its answer.
        pairs: kind and wording of each question.
        pad: token id of padding.
    """

    prefix: list[int]
    states: list[Tensor]
    prompts: list[list[int]]
    answers: list[list[int]]
    pairs: list[str]
    pad: int

    @classmethod
    def make(
        cls,
        unbiased: Qwen2AudioForConditionalGeneration,
        processor: Qwen2AudioProcessor,
        bank: Bank,
        split: str,
        count: int,
        cache: Path | None = None,
    ) -> QuestionPool:
        """Draw questions and encode their clips, or read both from ``cache``, which is written."""
        batcher = Batcher(bank, processor, split)
        if cache is not None and cache.exists():
            questions, states = _read(cache)
        else:
            drawn = list(draw_questions(bank, split, count, 0))
            questions = [(question, pair) for _, question, pair in drawn]
            states = _encode(unbiased, processor, [scene.samples for scene, _, _ in drawn])
            if cache is not None:
                _write(cache, questions, states)
        tokenizer, audio = processor.tokenizer, processor.audio_token
        texts = [
            batcher.prompt_text("", question).replace(audio, audio * len(rows))
            for (question, _), rows in zip(questions, states, strict=True)
        ]
        skip = len(batcher.prefix)
        return cls(
            batcher.prefix,
            states,
            [ids[skip:] for ids in tokenizer(texts)["input_ids"]],
            tokenizer([question.answer + "<|im_end|>" for question, _ in questions])["input_ids"],
            [pair for _, pair in questions],
            tokenizer.pad_token_id,
        )

    def batch(self, chosen: Sequence[int]) -> Batch:
        """The batch of these questions; ``features`` are the encoder's outputs ``[B, most tokens, 128]``."""
        rows = [self.prompts[i] + self.answers[i] for i in chosen]
        width, longest = max(map(len, rows)), max(len(self.states[i]) for i in chosen)
        suffix = torch.full((len(rows), width), self.pad)
        labels = torch.full((len(rows), width), -100)
        features = torch.zeros(len(rows), longest, self.states[0].shape[1])
        for row, i in enumerate(chosen):
            suffix[row, : len(rows[row])] = torch.tensor(rows[row])
            labels[row, len(self.prompts[i]) : len(rows[row])] = torch.tensor(self.answers[i])
            features[row, : len(self.states[i])] = self.states[i]
        lengths = torch.tensor([len(ids) for ids in rows])
        mask = torch.arange(width) < lengths[:, None]
        filled = torch.tensor([len(self.states[i]) for i in chosen])
        return Batch(
            features,
            torch.arange(longest) < filled[:, None],
            suffix,
            mask,
            labels,
            torch.zeros(len(rows), 0, 0),
            tuple(self.pairs[i] for i in chosen),
        )

    def stream(self, size: int, seed: tuple[int, ...], steps: range, mix: TaskMix) -> Iterator[Batch]:
        """The batches of these steps, as `Batcher.stream` has them; ``mix`` changes nothing here."""
        for step in steps:
            yield self.batch(
                np.random.default_rng((*seed, step)).integers(len(self.pairs), size=size).tolist()
            )


@torch.no_grad()
def _encode(
    unbiased: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, clips: list[np.ndarray]
) -> list[Tensor]:
    """The encoder's output of each clip, as the decoder's projector receives it."""
    projector, audio = unbiased.model.multi_modal_projector, unbiased.config.audio_token_id
    inputs: list[Tensor] = []
    handle = projector.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    encoded: list[Tensor] = []
    try:
        for begin in range(0, len(clips), ENCODED_AT_ONCE):
            features, mask = mel_features(processor, clips[begin : begin + ENCODED_AT_ONCE])
            counts = [((int(n) - 1) // 2 + 1 - 2) // 2 + 1 for n in mask.sum(-1)]
            ids = torch.zeros(len(counts), max(counts) + 1, dtype=torch.long)
            for row, count in enumerate(counts):
                ids[row, :count] = audio
            unbiased.model(input_ids=ids, input_features=features, feature_attention_mask=mask)
            states = inputs.pop()
            encoded += [states[row, :count].clone() for row, count in enumerate(counts)]
    finally:
        handle.remove()
    return encoded


def _write(cache: Path, questions: list[tuple[Question, str]], states: list[Tensor]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    lengths = torch.tensor([len(rows) for rows in states])
    texts = json.dumps([{**asdict(question), "pair": pair} for question, pair in questions])
    part = cache.with_suffix(".part")
    save_file({"states": torch.cat(states), "lengths": lengths}, part, {"questions": texts})
    part.replace(cache)


def _read(cache: Path) -> tuple[list[tuple[Question, str]], list[Tensor]]:
    with safe_open(cache, "pt") as file:
        entries = json.loads(file.metadata()["questions"])
        states = file.get_tensor("states").split(file.get_tensor("lengths").tolist())
    pairs = [entry.pop("pair") for entry in entries]
    questions = [Question(**{**entry, "choices": tuple(entry["choices"])}) for entry in entries]
    return list(zip(questions, pairs, strict=True)), list(states)
