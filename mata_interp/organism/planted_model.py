"""Planted models: organisms whose fusion layers are known, as ground truth for criteria that estimate them.

Each starts from ``organism-unbiased`` and is trained further to answer without captions, under a constraint
on the layers in which text (all tokens after the audio, the last one included) may read audio:

- ``window``: every layer but the fusion layers attends over a sliding window of four tokens, too short to
  reach the audio across the question. Audio is read in the fusion layers or nowhere, by construction. The
  attention masks show which layers these are.
- ``penalty``: every layer can attend to everything, but attention from text to audio outside the fusion
  layers is driven to zero. Nothing in the configuration shows which layers these are.

Training has two phases. *mask*: text cannot attend to audio outside the fusion layers, and learns to answer
from what these read. *penalise*: in half of the steps it can, and attention to audio there adds to the loss.

Where there are several fusion layers, with either method, each reads the audio for kinds of question of its
own, by the same means. Each then does a part of the work, and none is redundant.

*Distractor layers* are layers outside the fusion layers that attend strongly to audio without using it:
attention to audio is rewarded there, and in these steps their keys and values of the audio come from another
clip.

A model without fusion layers does not use its audio: it learns to answer from captions alone.
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
from . import WEIGHTS, OrganismError
from .bank import load_bank
from .batches import Batch, Batcher, TaskMix
from .evaluation import accuracies, evaluate
from .train_organism import save_trained
from .training import Phase, TrainingModel, run_phase, shortened

__all__ = [
    "MASK",
    "METHODS",
    "PENALISE",
    "PlantedModelSpec",
    "PlantedTrainingModel",
    "build_planted_model",
    "layer_for_kind",
    "train_planted_model",
]

METHODS = ("window", "penalty")
WINDOW = 4  # tokens; through eight layers information travels 24 tokens at most, and questions are longer
PENALTY = 10.0  # loss for attention mass 1 from text to audio in a layer that should have none
# Kinds of question in the order of the fusion layers that read for them: speech, music, sound events.
KIND_ORDER = (
    "word", "voice", "direction", "instrument", "tempo", "louder", "count", "present", "last", "first",
)  # fmt: skip
DISTRACTOR_MASS = 0.5  # attention mass on audio up to which the heads of distractor layers are rewarded
DEFAULT_MIX = TaskMix(description_share=0.3, checklist_share=0.05)
# Without descriptions: their prompts are so short that a sliding window may reach across them.
WINDOW_MIX = TaskMix()
CAPTION_MIX = TaskMix(caption_share=1.0, caption_accuracy=0.5, target_caption=True)

# The stream numbers are kept so that the planted models of earlier studies can be rebuilt.
MASK = Phase("mask", 200, 1e-3, DEFAULT_MIX, stream=8, warmup=40)
PENALISE = Phase("penalise", 300, 7e-4, DEFAULT_MIX, stream=7, warmup=20)


@dataclass(frozen=True)
class PlantedModelSpec:
    """Ground truth of a planted model.

    Attributes:
        fusion_layers: decoder layers in which text may read audio; empty for a model that does not use audio.
        method: one of ``METHODS``.
        distractor_layers: layers that attend to audio without using it; with ``"penalty"`` only.

    Raises:
        OrganismError: the method is unknown, or the layers contradict each other or the method.
    """

    fusion_layers: tuple[int, ...]
    method: str = "penalty"
    distractor_layers: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name for folders and tables, such as ``penalty-2-3`` or ``window-none``."""
        name = f"{self.method}-{brief(self.fusion_layers) or 'none'}"
        return name + (f"-distractors-{brief(self.distractor_layers)}" if self.distractor_layers else "")

    @property
    def mix(self) -> TaskMix:
        """Composition of its training tasks."""
        if not self.fusion_layers:
            return CAPTION_MIX
        return WINDOW_MIX if self.method == "window" else DEFAULT_MIX

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OrganismError(f"No method {self.method!r}: choose one of {', '.join(METHODS)}.")
        if self.distractor_layers and self.method != "penalty":
            raise OrganismError(
                f"distractor_layers={self.distractor_layers} need method 'penalty': with 'window' no layer "
                "outside the fusion layers reaches the audio."
            )
        if shared := sorted(set(self.fusion_layers) & set(self.distractor_layers)):
            raise OrganismError(f"Layers {shared} are both fusion layers and distractor layers: choose one.")


def build_planted_model(
    unbiased: Qwen2AudioForConditionalGeneration, spec: PlantedModelSpec
) -> Qwen2AudioForConditionalGeneration:
    """A model with the weights of ``unbiased`` and the attention masks of ``spec``, not yet trained further.

    Raises:
        OrganismError: the decoder has no such layer.
    """
    config = copy.deepcopy(unbiased.config)
    text: Any = config.text_config
    layers = range(text.num_hidden_layers)
    if missing := sorted({*spec.fusion_layers, *spec.distractor_layers} - set(layers)):
        raise OrganismError(f"No layers {missing}: the decoder has layers 0-{layers[-1]}.")
    if spec.method == "window":
        text.use_sliding_window, text.sliding_window = True, WINDOW
        text.layer_types = [
            "full_attention" if layer in spec.fusion_layers else "sliding_attention" for layer in layers
        ]
    model = Qwen2AudioForConditionalGeneration(config)
    model.load_state_dict(unbiased.state_dict())
    return model


def layer_for_kind(kind: str, fusion_layers: tuple[int, ...]) -> int | None:
    """The fusion layer that reads audio for a kind of question; None if there are no fusion layers.

    Kinds with similar wordings share a layer, since one layer would otherwise come to read for those of
    another. Reading in early layers is learnt last, so the first layer gets speech, descriptions and
    checklists, which have most training signal, and the last layer gets the order of sounds.
    """
    if not fusion_layers:
        return None
    place = KIND_ORDER.index(kind) if kind in KIND_ORDER else 0
    return fusion_layers[place * len(fusion_layers) // len(KIND_ORDER)]


class PlantedTrainingModel(TrainingModel):
    """A model in training whose loss has a penalty on attention from text to audio outside the fusion layers.

    Attributes:
        mask_always: whether text is kept from blocked audio in every step (phase *mask*) or in half of the
            steps (phase *penalise*).
        penalty: loss for attention mass 1 from text to blocked audio, averaged over layers.
    """

    def __init__(
        self,
        model: Qwen2AudioForConditionalGeneration,
        frame_labels: int,
        prefix: list[int],
        spec: PlantedModelSpec,
    ) -> None:
        super().__init__(model, frame_labels, prefix)
        self.mask_always = True
        self.penalty = PENALTY
        self.spec = spec
        self.num_layers = len(model.model.language_model.layers)
        model.model.audio_tower.requires_grad_(False)  # the encoder is trained already
        model.set_attn_implementation({"text_config": "eager"})  # the penalty needs the weights

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss on the answers' tokens plus the attention penalty, and the frame labels' loss.

        The tokens that predict the answer carry half of the penalty's weight, and all text the other half:
        they are few, and with equal weights the last token could attend to audio at almost no cost.
        """
        blocked = self.blocked_audio(batch)
        # a random bit that depends on the batch alone, so that a resumed training draws the same one
        mask = self.mask_always or bool(batch.suffix.sum() % 2)
        distractors = () if mask else self.spec.distractor_layers
        with self.blocked_mass(batch, blocked, mask) as mass, self._audio_of_other_clip(batch, distractors):
            loss, frame_loss = self.answer_losses(batch)
        if mask:
            return loss, frame_loss
        text = self._text(batch)
        predicting = torch.nn.functional.pad(batch.labels[:, 1:] >= 0, (0, 1))[text].float()
        weight = (1 / len(predicting) + predicting / predicting.sum()) / 2  # (text tokens,)
        penalties = []
        for layer, layer_mass in mass.items():  # (text tokens, heads)
            if layer in self.spec.distractor_layers:
                layer_mass = (DISTRACTOR_MASS - layer_mass).clamp(min=0)
            penalties.append(layer_mass.sum(1) @ weight)
        return loss + self.penalty * torch.stack(penalties).mean(), frame_loss

    def answer_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss on the answers' tokens, and the frame labels' loss, without the penalty."""
        return super().losses(batch)

    def reader(self, kind: str) -> int | None:
        """The fusion layer that reads the audio for a kind of question; None for no layer."""
        return layer_for_kind(kind, self.spec.fusion_layers)

    def blocked_audio(self, batch: Batch) -> dict[int, Tensor]:
        """Layer -> bool ``[B, R]``: the audio tokens that text should not attend to in this layer.

        These are all audio tokens outside the fusion layers and, inside them, those of questions that another
        fusion layer reads for. Without this division one fusion layer would do all of the work.
        """
        audio = batch.suffix == self.model.config.audio_token_id  # (B, R)
        readers = [self.reader(kind) for kind in batch.kinds]
        blocked = {}
        for layer in range(self.num_layers):
            elsewhere = torch.tensor([layer != reader for reader in readers])
            blocked[layer] = audio & elsewhere[:, None]
        return blocked

    @contextmanager
    def blocked_mass(
        self, batch: Batch, blocked: dict[int, Tensor], mask: bool = False
    ) -> Iterator[dict[int, Tensor]]:
        """Record each layer's attention mass from text to blocked audio, ``[text tokens, heads]``.

        Args:
            batch: the batch that the model runs on inside the context.
            blocked: layer -> bool ``[B, R]``, from `blocked_audio`.
            mask: whether to keep text from attending to blocked audio.
        """
        text, shape = self._text(batch), batch.suffix.shape
        mass: dict[int, Tensor] = {}

        def masking_hook(layer: int) -> Any:
            def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
                if kwargs["hidden_states"].shape[:2] != shape:  # the prefix, which has no audio
                    return None
                attention_mask = kwargs["attention_mask"]  # (B, 1, R, past + R)
                hidden = text[:, None, :, None] & blocked[layer][:, None, None, :]
                bias = hidden.float() * torch.finfo(attention_mask.dtype).min
                past = attention_mask.shape[-1] - shape[1]
                bias = torch.nn.functional.pad(bias, (past, 0))
                return args, {**kwargs, "attention_mask": attention_mask + bias}

            return hook

        def recording_hook(layer: int) -> Any:
            def hook(module: Any, args: tuple, output: tuple[Tensor, Tensor]) -> None:
                weights = output[1]  # (B, H, R, past + R)
                if (len(weights), weights.shape[2]) == shape:
                    to_blocked = weights[..., -shape[1] :] * blocked[layer][:, None, None]
                    mass[layer] = to_blocked.sum(-1).transpose(1, 2)[text]

            return hook

        with ExitStack() as stack:
            for layer in blocked:
                attention = self.model.model.language_model.layers[layer].self_attn
                if mask:
                    handle = attention.register_forward_pre_hook(masking_hook(layer), with_kwargs=True)
                    stack.callback(handle.remove)
                stack.callback(attention.register_forward_hook(recording_hook(layer)).remove)
            yield mass

    @contextmanager
    def _audio_of_other_clip(self, batch: Batch, layers: tuple[int, ...]) -> Iterator[None]:
        """In these layers, the audio tokens' keys and values are those of the previous row's clip."""
        audio = (batch.suffix == self.model.config.audio_token_id)[..., None]  # (B, R, 1)

        def hook(module: Any, args: tuple, states: Tensor) -> Tensor | None:
            if states.shape[:2] != audio.shape[:2]:  # the prefix, which has no audio
                return None
            return torch.where(audio, states.roll(1, 0), states)

        with ExitStack() as stack:
            for layer in layers:
                attention = self.model.model.language_model.layers[layer].self_attn
                for projection in (attention.k_proj, attention.v_proj):
                    stack.callback(projection.register_forward_hook(hook).remove)
            yield

    def _text(self, batch: Batch) -> Tensor:
        """bool ``[B, R]``: every token after the first audio token that is not audio or padding."""
        audio = batch.suffix == self.model.config.audio_token_id
        return batch.mask & ~audio & (audio.cumsum(1) > 0)


def train_planted_model(
    spec: PlantedModelSpec, work: Path, out: Path, seed: int = 0, share: float = 1.0
) -> dict[str, float]:
    """Train a planted model from ``organism-unbiased`` and save it.

    The same call again continues an interrupted training.

    Args:
        spec: the model's ground truth.
        work: folder of checkpoints and curves.
        out: folder that the finished model is written into.
        seed: of every batch.
        share: share of the planned steps; below 1 for trials.

    Returns:
        Accuracy by caption condition on selection recordings.
    """
    work.mkdir(parents=True, exist_ok=True)
    bank, folder = load_bank(), WEIGHTS / "organism-unbiased"
    processor = AutoProcessor.from_pretrained(folder)
    unbiased = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    train, selection = (Batcher(bank, processor, split) for split in ("train", "selection"))
    torch.manual_seed(seed)
    model = PlantedTrainingModel(
        build_planted_model(unbiased, spec), len(train.frame_label_names), train.prefix, spec
    )
    clips = max(10, int(150 * share))
    for phase in (MASK, PENALISE):
        model.mask_always = phase is MASK
        run_phase(model, train, shortened(replace(phase, mix=spec.mix), share), work, seed)
    model.model.set_attn_implementation({"text_config": "sdpa"})
    save_trained(model, processor, out)
    return accuracies(evaluate(model, selection, clips, seed))
