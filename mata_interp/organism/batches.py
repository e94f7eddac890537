"""Training batches: clips, questions with and without captions, frame labels, drawn from seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2AudioProcessor

from ..benchmarks import Item
from ..lalm.prompting.formats import PROMPT_FORMATS
from .bank import RATE, Bank
from .body import HOP, SECONDS, mel_features
from .questions import KINDS, Question, ask, checklist, describe
from .scenes import Mixer, Scene

FRAME = 4 * HOP / RATE  # seconds of sound in one audio token
FRAMES = SECONDS * RATE // HOP // 4
# How often each kind is asked in training: more of what is harder to hear.
WEIGHTS = {"first": 13, "last": 13, "present": 24, "louder": 9, "count": 9, "word": 11, "voice": 8,
           "direction": 12, "instrument": 3, "tempo": 4}  # fmt: skip


@dataclass(frozen=True)
class TaskMix:
    """What the questions and captions of a phase are like."""

    described: float = 0.0  # share of clips that are to be described, without options
    listed: float = 0.0  # share of clips with a checklist, without options
    captioned: float = 0.0  # share of the other questions with a caption
    right: float = 0.0  # share of captions that are right
    shortcut: bool = False  # learn what the caption claims, right or wrong


@dataclass
class Batch:
    """B questions about B clips; token rows are [common prefix | rest | answer], padded on the right."""

    features: Tensor  # [B, mels, frames]
    feature_mask: Tensor  # [B, frames]
    rest: Tensor  # [B, R] tokens after the common prefix
    mask: Tensor  # [B, R] bool, True on real tokens
    labels: Tensor  # [B, R] the answer's tokens where they stand, -100 elsewhere
    frames: Tensor  # [B, FRAMES, labels] float, what sounds when
    kinds: tuple[str, ...] = ()  # B kinds of question


class Batcher:
    """Makes batches of one split of the bank."""

    def __init__(self, bank: Bank, processor: Qwen2AudioProcessor, split: str) -> None:
        self.bank, self.processor, self.split = bank, processor, split
        self.frame_labels = [*bank.labels, *bank.words, *bank.voices, "onset"]
        probe = [self.text("", Question("word", text, ("x", "y"), "x")) for text in ("one", "two")]
        ids = processor.tokenizer([text.split("<|AUDIO|>")[0] for text in probe])["input_ids"]
        self.prefix = ids[0]  # system message and the user's first tokens, up to the sound

    def text(self, caption: str, question: Question) -> str:
        """The prompt as the processor's chat template writes it, the placeholder not yet repeated."""
        item = Item(audio=None, question=question.text, choices=question.choices, caption=caption)
        words = "".join(text for _, text in PROMPT_FORMATS["options"](item))
        turn = {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": words}]}
        return self.processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)

    def batch(self, size: int, seed: tuple[int, ...], lesson: TaskMix) -> Batch:
        """One batch.

        Args:
            size: B.
            seed: makes the batch reproducible whatever came before it.
            lesson: what is asked, how often there is a caption, how often it is right, whether to believe it.
        """
        rng = np.random.default_rng(seed)
        mixer = Mixer(self.bank, self.split, rng, varied=self.split == "train")
        p = np.array([WEIGHTS[k] for k in KINDS]) / sum(WEIGHTS.values())
        scenes, texts, answers, kinds = [], [], [], []
        for kind in rng.choice(KINDS, size, p=p):
            scene = mixer.scene(str(kind))
            drawn = rng.random()
            if drawn < lesson.described:
                question = describe(scene, rng)
            elif drawn < lesson.described + lesson.listed:
                question = checklist(scene, self.bank, rng)
            else:
                question = ask(str(kind), scene, self.bank, rng)
            caption, answer = "", question.answer
            if question.choices and rng.random() < lesson.captioned:
                claim = question.answer if rng.random() < lesson.right else question.wrong(rng)
                caption = question.caption(claim, rng)
                answer = claim if lesson.shortcut else answer
            scenes.append(scene)
            texts.append(self.text(caption, question))
            answers.append(answer)
            kinds.append(question.kind)
        return replace(self.collate(scenes, texts, answers), kinds=tuple(kinds))

    def collate(self, scenes: list[Scene], texts: list[str], answers: list[str]) -> Batch:
        """Token rows with the placeholder repeated as the processor does, padded on the right."""
        features, feature_mask = mel_features(self.processor, [s.samples for s in scenes])
        tokenizer, audio = self.processor.tokenizer, self.processor.audio_token
        counts = [((int(n) - 1) // 2 + 1 - 2) // 2 + 1 for n in feature_mask.sum(-1)]
        prompts = [t.replace(audio, audio * n) for t, n in zip(texts, counts, strict=True)]
        skip = len(self.prefix)
        asked = [ids[skip:] for ids in tokenizer(prompts)["input_ids"]]
        told = tokenizer([a + "<|im_end|>" for a in answers])["input_ids"]
        width = max(len(a) + len(b) for a, b in zip(asked, told, strict=True))
        rest = torch.full((len(asked), width), tokenizer.pad_token_id)
        labels = torch.full((len(asked), width), -100)
        mask = torch.zeros(len(asked), width, dtype=torch.bool)
        for i, (a, b) in enumerate(zip(asked, told, strict=True)):
            n = len(a) + len(b)
            rest[i, :n] = torch.tensor(a + b)
            labels[i, len(a) : n] = torch.tensor(b)
            mask[i, :n] = True
        return Batch(features, feature_mask, rest, mask, labels, self.frames_of(scenes))

    def frames_of(self, scenes: list[Scene]) -> Tensor:
        """[B, FRAMES, labels]: 1 where a label's sound fills part of a frame."""
        out = torch.zeros(len(scenes), FRAMES, len(self.frame_labels))
        for i, scene in enumerate(scenes):
            for event in scene.events:
                first = min(FRAMES - 1, int(event.start / FRAME))
                last = min(FRAMES - 1, int((event.start + max(0.08, event.seconds - 0.04)) / FRAME))
                out[i, first, -1] = 1
                for label in (event.label, scene.facts.get("voice")):
                    if label:
                        out[i, first : last + 1, self.frame_labels.index(label)] = 1
        return out

    def stream(self, size: int, seed: tuple[int, ...], steps: range, lesson: TaskMix) -> Iterator[Batch]:
        """Batches for these steps, each made while the one before it is being learnt from."""
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for step in steps:
                now = ahead or pool.submit(self.batch, size, (*seed, step), lesson)
                ahead = (
                    pool.submit(self.batch, size, (*seed, step + 1), lesson)
                    if step + 1 < steps.stop
                    else None
                )
                yield now.result()
