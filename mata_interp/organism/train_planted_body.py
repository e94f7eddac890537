"""Training of planted models with new decoders, in the phases of `planted_model`, and growth of deep ones.

A model without fusion layers is trained in one phase in which every clip is another one's, so that it learns
the answers' frequencies and to ignore the audio, which it can see.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from ..lalm import LALM
from . import WEIGHTS, OrganismError
from .bank import load_bank
from .batches import Batch, TaskMix
from .planted_body import PlantedBodySpec, build_body
from .planted_growth import GrownModelSpec, grow_model
from .planted_model import PlantedModelSpec, PlantedTrainingModel
from .planted_questions import PAIRS, QuestionPool, planted_items, reading_layer, short_processor
from .train_organism import save_model, save_trained
from .training import Phase, run_phase, shortened

__all__ = ["PlantedBodyTraining", "build_grown_model", "train_planted_body"]

TRAIN_CLIPS, TEST_CLIPS = 2400, 240
MASK_RATE, PENALISE_RATE = 3e-3, 1.5e-3  # peak learning rates
BATCH = 24  # questions
MIN_ACCURACY = 0.4  # of a base that is trained to use the audio; without it, 0.22 to 0.25 in five models
PENALISED_LAYERS = 8  # the penalty on one layer is that of a model of so many layers, at any depth


class PlantedBodyTraining(PlantedTrainingModel):
    """A planted model in training whose batches hold the audio encoder's outputs as ``features``."""

    def __init__(
        self, model: Qwen2AudioForConditionalGeneration, prefix: list[int], spec: PlantedBodySpec
    ) -> None:
        planted = PlantedModelSpec(spec.fusion_layers, distractor_layers=spec.distractor_layers)
        super().__init__(model, 1, prefix, planted)
        self.penalty *= spec.num_layers / PENALISED_LAYERS

    def reader(self, kind: str) -> int | None:
        return reading_layer(kind, self.spec.fusion_layers)

    def answer_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self.logits(batch)[:, :-1].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, batch.labels[:, 1:].flatten()), torch.zeros(())

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.spec.fusion_layers:
            return super().losses(batch)
        return self.answer_losses(with_audio_of_other_clips(batch))

    def logits(self, batch: Batch) -> Tensor:
        """``[B, R, vocabulary]``: logits at the tokens after the prefix, from encoded audio."""
        rows, p = len(batch.suffix), self.prefix.shape[1]
        decoder = self.model.model.language_model
        cache = decoder(input_ids=self.prefix, use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)
        audio = batch.suffix == self.model.config.audio_token_id
        states = self.model.model.multi_modal_projector(batch.features)[batch.feature_mask]
        embeds = decoder.embed_tokens(batch.suffix).masked_scatter(audio[..., None], states)
        mask = torch.cat([torch.ones(rows, p, dtype=torch.bool), batch.mask], dim=1)
        hidden = decoder(
            inputs_embeds=embeds,
            attention_mask=mask.long(),
            position_ids=torch.arange(p, p + batch.suffix.shape[1])[None],
            past_key_values=cache,
        ).last_hidden_state
        return self.model.lm_head(hidden)


def with_audio_of_other_clips(batch: Batch) -> Batch:
    """The batch with the audio of the row before, cut or repeated to each row's number of audio tokens."""
    features = torch.zeros_like(batch.features)
    lengths = batch.feature_mask.sum(1).tolist()
    for row, length in enumerate(lengths):
        other = batch.features[row - 1, : lengths[row - 1]]
        features[row, :length] = other.repeat(-(-length // len(other)), 1)[:length]
    return Batch(**{**vars(batch), "features": features})


def train_planted_body(spec: PlantedBodySpec, work: Path, out: Path, share: float = 1.0) -> dict[str, float]:
    """Train a planted model with a new decoder and save it.

    The same call again continues an interrupted training.

    Args:
        spec: what to train; its seed decides all random choices.
        work: folder of checkpoints, curves and encoded clips; models of one set share the clips.
        out: folder that the finished model is written into.
        share: share of the planned steps and clips; below 1 for trials.

    Returns:
        ``accuracy``: share of questions of the *selection* recordings of whose answer every token is the most
        probable of all tokens.

    Raises:
        OrganismError: a model with fusion layers, trained with all of its steps, does not use the audio: its
            accuracy is below 0.4.
    """
    folder = work / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    unbiased = Qwen2AudioForConditionalGeneration.from_pretrained(WEIGHTS / "organism-unbiased")
    processor = short_processor(AutoProcessor.from_pretrained(WEIGHTS / "organism-unbiased"))
    train, test = _pools(unbiased, processor, work, share)
    model = PlantedBodyTraining(build_body(unbiased, spec), train.prefix, spec)
    for phase in _phases(spec):
        model.mask_always = phase.name == "mask"
        run_phase(model, train, shortened(phase, share), folder, spec.seed)
    accuracy = answer_accuracy(model, test)
    if spec.fusion_layers and share >= 1 and accuracy < MIN_ACCURACY:
        raise OrganismError(
            f"Planted model {spec.name!r}: after {sum(spec.steps)} steps it answers {accuracy:.1%} of the "
            f"questions, fewer than {MIN_ACCURACY:.0%}: it does not use the audio. Give it more steps in the "
            f"file of planted models, and remove {folder} first."
        )
    model.model.set_attn_implementation({"text_config": "sdpa"})
    save_trained(model, processor, out)
    return {"accuracy": accuracy}


def _pools(
    unbiased: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, work: Path, share: float
) -> tuple[QuestionPool, QuestionPool]:
    """Questions to train on and to test on."""
    bank, pools = load_bank(), []
    for split, count in (("train", TRAIN_CLIPS), ("selection", TEST_CLIPS)):
        count = max(2 * len(PAIRS), int(count * share))
        cache = work / f"encoded-{split}-{count}.safetensors"
        pools.append(QuestionPool.make(unbiased, processor, bank, split, count, cache))
    return pools[0], pools[1]


def _phases(spec: PlantedBodySpec) -> list[Phase]:
    mask, penalise = spec.steps
    if not spec.fusion_layers:
        return [
            Phase("no audio", mask + penalise, MASK_RATE, TaskMix(), stream=0, batch_size=BATCH, warmup=15)
        ]
    return [
        Phase("mask", mask, MASK_RATE, TaskMix(), stream=0, batch_size=BATCH, warmup=15),
        Phase("penalise", penalise, PENALISE_RATE, TaskMix(), stream=1, batch_size=BATCH, warmup=5),
    ]


def build_grown_model(spec: GrownModelSpec, work: Path, out: Path, share: float = 1.0) -> None:
    """Train the base of a deep planted model if it is missing, grow the model and save it.

    Args:
        spec: what to build.
        work: folder of bases and encoded clips.
        out: folder that the model is written into.
        share: share of the planned steps and clips of the base; below 1 for trials.
    """
    folder = work / "bases" / spec.base.name
    if not (folder / "config.json").exists():
        train_planted_body(spec.base, work, folder, share)
    base = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = dict(LALM(base, processor).prompt(planted_items(load_bank(), "train", len(PAIRS))).inputs)
    save_model(grow_model(base, spec, inputs), processor, out)


@torch.inference_mode()
def answer_accuracy(model: PlantedBodyTraining, pool: QuestionPool) -> float:
    """Share of a pool's questions whose answers are right: each token is the most probable of all tokens.

    Answers of a kind often begin with the same token, which a model that does not hear the clip knows too.
    """
    model.eval()
    right = []
    for begin in range(0, len(pool.pairs), 60):
        batch = pool.batch(range(begin, min(begin + 60, len(pool.pairs))))
        predicted, labels = model.logits(batch)[:, :-1].argmax(-1), batch.labels[:, 1:]
        right += ((predicted == labels) | (labels < 0)).all(1).tolist()
    return sum(right) / len(right)
