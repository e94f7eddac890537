"""Plants on a pretrained decoder: the assembled model, trained to read the audio in chosen layers only.

In every layer low-rank changes of the attention matrices are trained on questions with and without options.
In the phase *mask* no text sees the audio outside the chosen layers; in the phase *penalise* it does in half
of the steps, and attention to audio outside them adds to the loss, as in
`mata_interp.organism.planted_model`. The result is a stock model, in whose configuration nothing shows which
layers these are. Each set of layers reads for one role, words or sounds, so that none is redundant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mata_interp as mi
from mata_interp.benchmarks import Item, Items

from .adapter import add_low_rank
from .clips import ClipMaker
from .features import EncodedClips
from .prompts import Decoder, Row
from .questions import ask, option_text
from .speech import RATE
from .streams import stream
from .training import STRIDE, VALIDATED, Labels, Plan, descend, losses_of_answers, validation_accuracy

__all__ = ["PLANTS", "AssembledPlant", "plant", "planted_items"]

LAYERS = 30
PENALTY = 10.0  # loss for attention mass 1 from text to audio in a layer that should have none
# Share of the steps whose questions have options: few at first, as open answers say more.
WITH_OPTIONS, WITH_OPTIONS_AT_FIRST = 0.85, 0.35


@dataclass(frozen=True)
class AssembledPlant:
    """A planted model on the assembled model's decoder.

    Attributes:
        name: unique among planted models.
        role: as in `mata_interp.organism.planted_growth.GrownModelSpec`.
        readers: ``"word"`` and ``"sound"`` -> the layers in which text may read the audio for questions on
            them.
        seed: seed of the changes, the lessons and the phases.
        steps: optimizer steps of the phases *mask* and *penalise*.
    """

    name: str
    role: str
    readers: Mapping[str, tuple[int, ...]]
    seed: int
    steps: tuple[int, int] = (240, 120)

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return LAYERS

    @property
    def fusion_layers(self) -> tuple[int, ...]:
        """The layers in which text was trained to read the audio."""
        return tuple(sorted({layer for layers in self.readers.values() for layer in layers}))

    @property
    def plan(self) -> Plan:
        """How it is trained; the learning rate falls from the end of the phase *mask* on."""
        mask, penalise = self.steps
        return Plan(steps=mask + penalise, fall=mask, zero=mask + penalise + 30, validate_every=mask)


MIDDLE = (15, 16, 17, 18)
PLANTS = (
    AssembledPlant("30-assembled-two", "held-out", {"word": (22, 23), "sound": (17,)}, seed=71),
    AssembledPlant("30-assembled-middle", "held-out", {"word": MIDDLE, "sound": MIDDLE}, seed=72),
)


def planted_items(maker: ClipMaker, series: str, count: int, seed: int) -> Items:
    """Questions with options on clips without captions, as the benchmark has them.

    Args:
        maker: of the clips.
        series: name of the series of clips; another one than the benchmark's gives other clips.
        count: number of clips.
        seed: seed of the questions.
    """
    items = []
    for index in range(count):
        clip = maker.clip(series, index)
        question = ask(clip.segments, maker.labels, stream(seed, "question", maker.split, series, index))
        items.append(
            Item(
                audio=(clip.audio, RATE),
                question=question.text,
                choices=question.choices,
                answer=question.answer,
                id=f"{series}-{index}",
                kind=question.topic,
                condition="neutral",
                split=maker.split,
            )
        )
    return mi.Items.from_records(items, name=f"assembled {series}")


def plant(
    decoder: Decoder,
    clips: tuple[EncodedClips, EncodedClips],
    labels: tuple[Labels, Labels],
    spec: AssembledPlant,
    folder: Path,
) -> float:
    """Train; afterwards ``decoder.model`` holds the result.

    Args:
        decoder: the assembled model with its trained weights.
        clips: training and validation clips.
        labels: of both, role -> every label.
        spec: where text is to read.
        folder: for the checkpoint and the loss curve; training continues from a checkpoint in it.

    Returns:
        Accuracy on validation clips, with all of the audio in sight.
    """
    decoder.model.set_attn_implementation({"text_config": "eager"})  # the penalty needs the weights
    parameters = add_low_rank(decoder.model.requires_grad_(False), spec.plan.rank, spec.seed, first=0)

    def accuracy() -> float:
        return validation_accuracy(decoder, clips[1], labels[1], VALIDATED, spec.seed)

    def loss(step: int) -> Tensor:
        return _loss(decoder, clips[0], labels[0], spec, step)

    descend(parameters, spec.plan, loss, accuracy, folder)
    result = accuracy()
    decoder.model.set_attn_implementation({"text_config": "sdpa"})
    return result


def _loss(decoder: Decoder, clips: EncodedClips, labels: Labels, spec: AssembledPlant, step: int) -> Tensor:
    """The loss of a step: that of the answers, and where the audio is in sight, the penalty."""
    rng = stream(spec.seed, "planting", step)
    hide = step < spec.steps[0] or bool(rng.integers(2))
    chosen = rng.choice(len(clips), spec.plan.batch, replace=False)
    questions = [ask(clips.segments[index], labels, rng) for index in chosen]
    options = rng.random() < (WITH_OPTIONS_AT_FIRST if step < spec.steps[0] / 3 else WITH_OPTIONS)
    rows = [decoder.row(option_text(one) if options else one.text, one.answer) for one in questions]
    features = clips.features[torch.from_numpy(chosen)].float()[:, int(rng.integers(STRIDE)) :: STRIDE]
    readers = [spec.readers[question.role] for question in questions]
    with sight(decoder, features.shape[1], readers, hide) as masses:
        loss = losses_of_answers(decoder.answer_logits(features, rows), rows).mean()
    return loss if hide else loss + PENALTY * _penalty(masses, rows)


@contextmanager
def sight(
    decoder: Decoder, audio: int, readers: Sequence[Sequence[int]], hide: bool
) -> Iterator[list[Tensor]]:
    """Inside, text does not see the audio outside the layers that read it; or its attention is recorded.

    Args:
        decoder: its model runs on one batch inside the context, audio first.
        audio: number of audio tokens.
        readers: for each row of the batch, the layers that may read its audio.
        hide: keep the audio of other layers from text; otherwise only record.

    Yields:
        without ``hide``, a list that gets each layer's attention mass from text to audio where it should not
        read: summed over heads, [rows, tokens after the audio].
    """
    masses: list[Tensor] = []
    before = len(decoder.before)
    keys = slice(before, before + audio)

    def hiding(closed: Tensor) -> Any:
        def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            mask = kwargs["attention_mask"]
            if mask.shape[-1] <= before:  # the common beginning of all prompts
                return None
            hidden = torch.zeros(len(closed), *mask.shape[1:], dtype=torch.bool)  # (B, 1, Q, K)
            hidden[closed, :, audio:, keys] = True
            return args, {**kwargs, "attention_mask": mask.masked_fill(hidden, torch.finfo(mask.dtype).min)}

        return hook

    def recording(closed: Tensor) -> Any:
        def hook(module: Any, args: tuple, output: tuple[Tensor, Tensor]) -> None:
            weights = output[1]  # (B, H, Q, K)
            if weights.shape[-1] > before:
                masses.append(weights[:, :, audio:, keys].sum((1, 3)) * closed[:, None])

        return hook

    with ExitStack() as stack:
        for index, layer in enumerate(decoder.language_model.layers):
            closed = torch.tensor([index not in layers for layers in readers])
            if not closed.any():
                continue
            if hide:
                handle = layer.self_attn.register_forward_pre_hook(hiding(closed), with_kwargs=True)
            else:
                handle = layer.self_attn.register_forward_hook(recording(closed))
            stack.callback(handle.remove)
        yield masses


def _penalty(masses: Sequence[Tensor], rows: Sequence[Row]) -> Tensor:
    """The mean attention mass over layers, summed over heads; half of its weight is on the tokens that
    predict the answer, which are few, and half on all text."""
    width = masses[0].shape[1]
    text, predicting = torch.zeros(len(rows), width), torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        text[index, : len(row.prompt) + len(row.answer)] = 1
        predicting[index, len(row.prompt) - 1 : len(row.prompt) + len(row.answer) - 1] = 1
    weight = (text / text.sum() + predicting / predicting.sum()) / 2
    return torch.stack([(mass * weight).sum() for mass in masses]).mean()
