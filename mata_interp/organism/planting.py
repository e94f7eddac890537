"""Plants: organisms whose fusion layers are known, to try criteria on that claim to find such layers.

Each starts from the healthy ``organism-unbiased`` and goes on learning to answer without captions, under a
condition on where text (all tokens after the sound, the last one among them) may read the sound:

- ``window``: every layer but the fusion layers attends over a sliding window of four tokens, too short to
  reach from the answer back over the question to the sound: it is read in the fusion layers or nowhere, by
  construction. Whoever looks at the masks can see which layers these are.
- ``penalty``: all layers see everything, but attention from text to sound outside the fusion layers comes to
  nothing. Nothing in the model says which layers these are.

Training has two phases. *Planting*: text cannot see the sound outside the fusion layers, and learns to answer
by what these read. *Weeding*: in half of the steps it can, and attention to it there costs loss.

Where there are several fusion layers, of either way, each is to read the sound for kinds of question of its
own, by the same means: then each does a part of the work, and none can be spared.

*Decoys* are layers outside the fusion layers that attend to the sound strongly although it does no work
there: attention to it is rewarded instead, and keys and values that they read then are another clip's.

No fusion layers at all makes a model that does not use its ears: it learns to answer by captions alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from ..ranges import brief
from . import WEIGHTS
from .bank import load_bank
from .batches import Batch, Batcher, TaskMix
from .evaluation import examine, marks
from .training import Plan, TrainingModel, run_phase, shortened

__all__ = ["PLANTING", "WAYS", "Plant", "PlantedTrainingModel", "plant", "reader", "rear_plant"]

WAYS = ("window", "penalty")
WINDOW = 4  # tokens; in eight layers a token hears of at most 24 before it, and questions are longer
PRICE = 10.0  # loss for a head's whole attention from text to sound where there should be none
READING = (  # kinds of question from the first fusion layer to the last: about speech, music, sounds
    "word", "voice", "direction", "instrument", "tempo", "louder", "count", "present", "last", "first",
)  # fmt: skip
WISHED = 0.5  # of a head's attention, to the sound, that decoys are rewarded up to
HEARD = TaskMix(described=0.3, listed=0.05)
ASKED = TaskMix()  # for windows: descriptions are asked for in so few words that a window may reach over them
TOLD = TaskMix(captioned=1.0, right=0.5, shortcut=True)  # what the caption claims is the goal
PLANTING = Plan("planting", 200, 1e-3, HEARD, warmup=40)
WEEDING = Plan("weeding", 300, 7e-4, HEARD, warmup=20)


@dataclass(frozen=True)
class Plant:
    """What is planted.

    Attributes:
        fusion: decoder layers in which text may read the sound; none of them: the sound is of no use.
        way: one of WAYS.
        decoys: layers that attend to the sound for nothing; with ``penalty`` only.
    """

    fusion: tuple[int, ...]
    way: str = "penalty"
    decoys: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Such as ``penalty-2-3`` or ``window-none``, for folders and tables."""
        return f"{self.way}-{brief(self.fusion) or 'none'}" + (
            f"-decoys-{brief(self.decoys)}" if self.decoys else ""
        )

    @property
    def lesson(self) -> TaskMix:
        """What it is trained on."""
        return TOLD if not self.fusion else ASKED if self.way == "window" else HEARD

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ValueError(f"No way of planting {self.way!r}: choose one of {', '.join(WAYS)}.")
        if self.decoys and self.way != "penalty":
            raise ValueError("Decoys attend to the sound, which a window cannot: plant them by penalty.")
        if shared := sorted(set(self.fusion) & set(self.decoys)):
            raise ValueError(f"Layers {shared} cannot both need the sound and not need it.")


def plant(healthy: Qwen2AudioForConditionalGeneration, spec: Plant) -> Qwen2AudioForConditionalGeneration:
    """The healthy model's weights in a body fit for ``spec``, still to be trained."""
    config = copy.deepcopy(healthy.config)
    text: Any = config.text_config
    if beyond := sorted(set((*spec.fusion, *spec.decoys)) - set(range(text.num_hidden_layers))):
        raise ValueError(f"No layers {beyond}: the decoder has 0-{text.num_hidden_layers - 1}.")
    if spec.way == "window":
        text.use_sliding_window, text.sliding_window = True, WINDOW
        text.layer_types = [
            "full_attention" if layer in spec.fusion else "sliding_attention"
            for layer in range(text.num_hidden_layers)
        ]
    model = Qwen2AudioForConditionalGeneration(config)
    model.load_state_dict(healthy.state_dict())
    return model


def reader(kind: str, fusion: tuple[int, ...]) -> int | None:
    """The fusion layer in which the sound is read for this kind of question; None if there is none.

    Kinds that are asked in much the same words go together, or else one layer would come to read for those of
    another. Early reading is learnt last: the first layer gets speech, and the descriptions and checklists,
    which teach most; then comes music; the last gets the order of sounds.
    """
    turn = READING.index(kind) if kind in READING else 0
    return fusion[turn * len(fusion) // len(READING)] if fusion else None


class PlantedTrainingModel(TrainingModel):
    """A pupil whose text pays for attention to the sound where it should not read it."""

    def __init__(
        self, model: Qwen2AudioForConditionalGeneration, labels: int, prefix: list[int], spec: Plant
    ) -> None:
        super().__init__(model, labels, prefix)
        self.shut = True  # text never sees closed sound; otherwise in half of the steps
        self.spec, self.layers = spec, len(model.model.language_model.layers)
        model.model.audio_tower.requires_grad_(False)  # it hears already
        model.set_attn_implementation({"text_config": "eager"})

    def answer(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss on the answers' tokens with the price of attention, and the frame labels' loss.

        Tokens that an answer's token is told from pay half of the price between them, all text the other:
        they are few, and by plain means the last token could read at next to no cost.
        """
        closed = self.closed(batch)
        hide = self.shut or bool(batch.rest.sum() % 2)  # a coin that a resumed training tosses alike
        with (
            self.watched(batch, closed, hide) as mass,
            self._in_vain(batch, () if hide else self.spec.decoys),
        ):
            loss, frame = super().answer(batch)
        if hide:
            return loss, frame
        text = self._text(batch)
        answering = torch.nn.functional.pad(batch.labels[:, 1:] >= 0, (0, 1))[text].float()
        weight = (1 / len(answering) + answering / answering.sum()) / 2  # (text tokens,)
        prices = [
            ((WISHED - each).clamp(min=0) if layer in self.spec.decoys else each).sum(1) @ weight
            for layer, each in mass.items()
        ]
        return loss + PRICE * torch.stack(prices).mean(), frame

    def closed(self, batch: Batch) -> dict[int, Tensor]:
        """Layer -> bool [B, R]: the sound that text is not to read there.

        That is all of it outside the fusion layers. These share the kinds of question between them: were any
        to be answered by what any of them reads, one would come to do the work and others none.
        """
        sound = batch.rest == self.model.config.audio_token_id  # (B, R)
        own = [reader(kind, self.spec.fusion) for kind in batch.kinds]
        return {
            layer: sound & torch.tensor([layer != open_ for open_ in own])[:, None]
            for layer in range(self.layers)
        }

    @contextmanager
    def watched(
        self, batch: Batch, closed: dict[int, Tensor], hide: bool = False
    ) -> Iterator[dict[int, Tensor]]:
        """Inside, each layer's attention mass from text to closed sound is kept, [text tokens, heads].

        With ``hide`` text cannot see it.
        """
        text, shape = self._text(batch), batch.rest.shape
        mass: dict[int, Tensor] = {}

        def cover(layer: int) -> Any:
            def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
                if kwargs["hidden_states"].shape[:2] != shape:  # the prefix, which has no sound
                    return None
                mask = kwargs["attention_mask"]  # (B, 1, R, what is left of the prefix + R)
                hidden = text[:, None, :, None] & closed[layer][:, None, None, :]
                cost = hidden.float() * torch.finfo(mask.dtype).min
                kept = mask.shape[-1] - shape[1]
                return args, {**kwargs, "attention_mask": mask + torch.nn.functional.pad(cost, (kept, 0))}

            return hook

        def keep(layer: int) -> Any:
            def hook(module: Any, args: tuple, out: tuple[Tensor, Tensor]) -> None:
                weights = out[1]  # (B, H, R, prefix + R)
                if (len(weights), weights.shape[2]) == shape:
                    on = closed[layer][:, None, None]
                    each = (weights[..., -shape[1] :] * on).sum(-1)  # (B, H, R)
                    mass[layer] = each.transpose(1, 2)[text]

            return hook

        with ExitStack() as stack:
            for layer in closed:
                attention = self.model.model.language_model.layers[layer].self_attn
                if hide:
                    handle = attention.register_forward_pre_hook(cover(layer), with_kwargs=True)
                    stack.callback(handle.remove)
                stack.callback(attention.register_forward_hook(keep(layer)).remove)
            yield mass

    @contextmanager
    def _in_vain(self, batch: Batch, layers: tuple[int, ...]) -> Iterator[None]:
        """Inside, the sound's keys and values in these layers are those of the clip of the row before."""
        sound = (batch.rest == self.model.config.audio_token_id)[..., None]  # (B, R, 1)

        def swap(module: Any, args: tuple, states: Tensor) -> Tensor | None:
            own = states.shape[:2] == sound.shape[:2]  # not the prefix
            return torch.where(sound, states.roll(1, 0), states) if own else None

        with ExitStack() as stack:
            for layer in layers:
                attention = self.model.model.language_model.layers[layer].self_attn
                for projection in (attention.k_proj, attention.v_proj):
                    stack.callback(projection.register_forward_hook(swap).remove)
            yield

    def _text(self, batch: Batch) -> Tensor:
        """bool [B, R]: every token after the first of the sound that is none of the sound's."""
        sound = batch.rest == self.model.config.audio_token_id
        return batch.mask & ~sound & (sound.cumsum(1) > 0)


def rear_plant(spec: Plant, work: Path, out: Path, seed: int = 0, share: float = 1.0) -> dict[str, float]:
    """Train a plant from ``organism-unbiased`` and save it; the same call again goes on from ``work``.

    Returns:
        accuracy by caption condition on selection recordings.
    """
    from .train_organism import finish

    work.mkdir(parents=True, exist_ok=True)
    bank, folder = load_bank(), WEIGHTS / "organism-unbiased"
    processor = AutoProcessor.from_pretrained(folder)
    healthy = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    train, selection = (Batcher(bank, processor, split) for split in ("train", "selection"))
    torch.manual_seed(seed)
    pupil = PlantedTrainingModel(plant(healthy, spec), len(train.frame_labels), train.prefix, spec)
    clips = max(10, int(150 * share))
    for phase in (PLANTING, WEEDING):
        pupil.shut = phase is PLANTING
        run_phase(pupil, train, shortened(replace(phase, lesson=spec.lesson), share), work, seed)
    pupil.model.set_attn_implementation({"text_config": "sdpa"})
    finish(pupil, processor, out)
    return marks(examine(pupil, selection, clips, seed))
