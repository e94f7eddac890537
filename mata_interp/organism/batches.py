"""Training batches: clips, questions with and without captions, and frame labels, from a seed and a step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2AudioProcessor

from ..benchmarks import Item
from ..lalm.prompting.formats import PROMPT_FORMATS
from .architecture import HOP, SECONDS, mel_features
from .bank import RATE, Bank
from .questions import KINDS, Question, make_checklist, make_description, make_question
from .scenes import Mixer, Scene

FRAME = 4 * HOP / RATE  # seconds of audio in one audio token
FRAMES = SECONDS * RATE // HOP // 4
# Relative frequency of each kind of question in training: higher for kinds that are harder to learn.
WEIGHTS = {"first": 13, "last": 13, "present": 24, "louder": 9, "count": 9, "word": 11, "voice": 8,
           "direction": 12, "instrument": 3, "tempo": 4}  # fmt: skip


@dataclass(frozen=True)
class TaskMix:
    """Composition of the questions and captions of a phase of training.

    Attributes:
        description_share: share of clips with the task of describing the clip, without options.
        checklist_share: share of clips with a checklist, without options.
        caption_share: share of the other questions that have a caption.
        caption_accuracy: share of captions that name the right option.
        target_caption: whether the training target is the option that the caption names, right or wrong.
    """

    description_share: float = 0.0
    checklist_share: float = 0.0
    caption_share: float = 0.0
    caption_accuracy: float = 0.0
    target_caption: bool = False


@dataclass
class Batch:
    """B questions about B clips. A token row is [common prefix | suffix], the suffix padded on the right.

    Attributes:
        features: ``[B, mels, frames]``.
        feature_mask: ``[B, frames]``.
        suffix: ``[B, R]``, token ids after the common prefix: audio, question and answer.
        mask: bool ``[B, R]``, True on tokens that are not padding.
        labels: ``[B, R]``, token ids of the answer, -100 elsewhere.
        frame_labels: float ``[B, FRAMES, labels]``, 1 where a label's sound is present.
        kinds: kind of each question.
    """

    features: Tensor
    feature_mask: Tensor
    suffix: Tensor
    mask: Tensor
    labels: Tensor
    frame_labels: Tensor
    kinds: tuple[str, ...] = ()


class BatchSource(Protocol):
    """What training takes its batches from."""

    def stream(self, size: int, seed: tuple[int, ...], steps: range, mix: TaskMix) -> Iterator[Batch]:
        """The batches of these steps."""
        ...


class Batcher:
    """Make batches of one split of the bank.

    Attributes:
        frame_label_names: names of the frame labels.
        prefix: token ids that all prompts begin with: the system message and the user's turn up to the audio.
    """

    def __init__(self, bank: Bank, processor: Qwen2AudioProcessor, split: str) -> None:
        self.bank, self.processor, self.split = bank, processor, split
        self.frame_label_names = [*bank.labels, *bank.words, *bank.voices, "onset"]
        probe = [self.prompt_text("", Question("word", text, ("x", "y"), "x")) for text in ("one", "two")]
        ids = processor.tokenizer([text.split("<|AUDIO|>")[0] for text in probe])["input_ids"]
        self.prefix = ids[0]

    def prompt_text(self, caption: str, question: Question) -> str:
        """The prompt from the processor's chat template, with one audio placeholder."""
        item = Item(audio=None, question=question.text, choices=question.choices, caption=caption)
        words = "".join(text for _, text in PROMPT_FORMATS["options"](item))
        turn = {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": words}]}
        return self.processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)

    def batch(self, size: int, seed: tuple[int, ...], mix: TaskMix) -> Batch:
        """One batch.

        Args:
            size: number of questions.
            seed: seed of all random choices; the batch depends on nothing else.
            mix: composition of questions and captions.
        """
        rng = np.random.default_rng(seed)
        mixer = Mixer(self.bank, self.split, rng, augment=self.split == "train")
        p = np.array([WEIGHTS[k] for k in KINDS]) / sum(WEIGHTS.values())
        scenes, texts, answers, kinds = [], [], [], []
        for kind in rng.choice(KINDS, size, p=p):
            scene = mixer.scene(str(kind))
            uniform = rng.random()
            if uniform < mix.description_share:
                question = make_description(scene, rng)
            elif uniform < mix.description_share + mix.checklist_share:
                question = make_checklist(scene, self.bank, rng)
            else:
                question = make_question(str(kind), scene, self.bank, rng)
            caption, answer = "", question.answer
            if question.choices and rng.random() < mix.caption_share:
                correct = rng.random() < mix.caption_accuracy
                claim = question.answer if correct else question.wrong_option(rng)
                caption = question.caption(claim, rng)
                answer = claim if mix.target_caption else answer
            scenes.append(scene)
            texts.append(self.prompt_text(caption, question))
            answers.append(answer)
            kinds.append(question.kind)
        return replace(self.collate(scenes, texts, answers), kinds=tuple(kinds))

    def collate(self, scenes: list[Scene], texts: list[str], answers: list[str]) -> Batch:
        """Token rows with the audio placeholder repeated as the processor does, padded on the right.

        Args:
            scenes: clip of each row.
            texts: prompt of each row, from `prompt_text`.
            answers: answer of each row.
        """
        features, feature_mask = mel_features(self.processor, [s.samples for s in scenes])
        tokenizer, audio = self.processor.tokenizer, self.processor.audio_token
        counts = [((int(n) - 1) // 2 + 1 - 2) // 2 + 1 for n in feature_mask.sum(-1)]
        prompts = [t.replace(audio, audio * n) for t, n in zip(texts, counts, strict=True)]
        skip = len(self.prefix)
        prompt_ids = [ids[skip:] for ids in tokenizer(prompts)["input_ids"]]
        answer_ids = tokenizer([answer + "<|im_end|>" for answer in answers])["input_ids"]
        rows = list(zip(prompt_ids, answer_ids, strict=True))
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        suffix = torch.full((len(rows), width), tokenizer.pad_token_id)
        labels = torch.full((len(rows), width), -100)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, (prompt, answer) in enumerate(rows):
            n = len(prompt) + len(answer)
            suffix[i, :n] = torch.tensor(prompt + answer)
            labels[i, len(prompt) : n] = torch.tensor(answer)
            mask[i, :n] = True
        return Batch(features, feature_mask, suffix, mask, labels, self.frame_targets(scenes))

    def frame_targets(self, scenes: list[Scene]) -> Tensor:
        """``[B, FRAMES, labels]``: 1 where a label's sound fills part of a frame."""
        targets = torch.zeros(len(scenes), FRAMES, len(self.frame_label_names))
        for i, scene in enumerate(scenes):
            for event in scene.events:
                first = min(FRAMES - 1, int(event.start / FRAME))
                last = min(FRAMES - 1, int((event.start + max(0.08, event.seconds - 0.04)) / FRAME))
                targets[i, first, -1] = 1
                for label in (event.label, scene.facts.get("voice")):
                    if label:
                        targets[i, first : last + 1, self.frame_label_names.index(label)] = 1
        return targets

    def stream(self, size: int, seed: tuple[int, ...], steps: range, mix: TaskMix) -> Iterator[Batch]:
        """The batches of these steps, each prepared in a thread while the previous one is in use."""
        with ThreadPoolExecutor(1) as pool:
            upcoming = None
            for step in steps:
                current = upcoming or pool.submit(self.batch, size, (*seed, step), mix)
                upcoming = (
                    pool.submit(self.batch, size, (*seed, step + 1), mix) if step + 1 < steps.stop else None
                )
                yield current.result()
