"""The first training: frames of a word or sound are moved to the decoder's embedding of its name.

No pass through the decoder is needed. Afterwards the decoder's inputs are about those of a text with the
names in it, each repeated for all of its frames. First the projector is trained alone, then together with
low-rank changes of the encoder's last layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .adapter import adapted_encoder, add_low_rank
from .clips import SECONDS, Segment
from .convert import AUDIO_TOKENS
from .features import EncodedClips, last_layers
from .progress import Progress
from .prompts import Decoder
from .streams import stream

__all__ = ["align", "frame_accuracy", "frame_targets", "tune_encoder"]

SILENCE = -1
RATE = AUDIO_TOKENS / SECONDS  # audio tokens per second
BATCH = 1024
LEARNING_RATE = 4e-3
TEMPERATURE = 0.07
REPORT_EVERY = 100
ENCODER_RANK = 4
ENCODER_RATE, PROJECTOR_RATE = 2e-3, 1e-3  # at their highest, while the encoder is tuned
TUNING_BATCH = 32  # clips


def frame_targets(segments: Sequence[Segment], ids: dict[str, list[int]]) -> list[int]:
    """Return the token that every audio token of one clip stands for, or ``SILENCE``.

    A label of several tokens is spread evenly over the segment's frames.

    Args:
        segments: the clip's segments.
        ids: label -> token ids.
    """
    targets = [SILENCE] * AUDIO_TOKENS
    for segment in segments:
        tokens = ids[segment.label]
        first = round(segment.start * RATE)
        last = min(max(round(segment.stop * RATE), first + 1), AUDIO_TOKENS)
        for frame in range(first, last):
            targets[frame] = tokens[(frame - first) * len(tokens) // (last - first)]
    return targets


class _Names:
    """The names of the frames of a series of clips, as directions among the decoder's embeddings.

    ``classes`` is int64 [clips, audio tokens]: the name of every frame, or ``SILENCE``.
    """

    def __init__(self, decoder: Decoder, clips: EncodedClips) -> None:
        labels = {segment.label for segments in clips.segments for segment in segments}
        ids = {label: decoder.ids(" " + label.removeprefix("a ")) for label in labels}
        targets = torch.tensor([frame_targets(segments, ids) for segments in clips.segments])
        named = targets != SILENCE
        tokens, found = torch.unique(targets[named], return_inverse=True)
        self.classes = torch.full_like(targets, SILENCE)
        self.classes[named] = found
        table = decoder.language_model.embed_tokens.weight.detach()
        self.mean, self.raw = table.mean(0), table[tokens]
        self.size = self.raw.square().sum(-1).mean()
        self.directions = F.normalize(self.raw - self.mean, dim=-1)

    def scores(self, projected: Tensor) -> Tensor:
        """Cosines of projected frames with every name, centred: [frames, names]."""
        return F.normalize(projected - self.mean, dim=-1) @ self.directions.T

    def loss(self, projected: Tensor, classes: Tensor) -> Tensor:
        """The cross-entropy of the names given the cosines, plus squared distances.

        The distances are those to the name's embedding and, for silence, to the mean embedding, relative to
        the embeddings' squared length.

        Args:
            projected: [frames, decoder width].
            classes: int64 [frames].
        """
        named = classes != SILENCE
        frames, right = projected[named], classes[named]
        naming = F.cross_entropy(self.scores(frames) / TEMPERATURE, right)
        distance = (frames - self.raw[right]).square().sum(-1).mean()
        silence = (projected[~named] - self.mean).square().sum(-1).mean()
        return naming + (distance + silence) / self.size


def align(decoder: Decoder, clips: EncodedClips, steps: int, seed: int) -> None:
    """Train the projector from scratch to name frames.

    Args:
        decoder: its projector is trained.
        clips: the training clips.
        steps: number of steps of 1,024 named and 256 silent frames.
        seed: seed of initial weights and batches.
    """
    generator = torch.Generator().manual_seed(seed)
    projector = decoder.projector.linear
    nn.init.normal_(projector.weight, std=0.02, generator=generator)
    nn.init.zeros_(projector.bias)
    names = _Names(decoder, clips)
    frames, classes = clips.features.flatten(0, 1), names.classes.flatten()
    named, silent = ((classes != SILENCE).nonzero()[:, 0], (classes == SILENCE).nonzero()[:, 0])
    optimizer = torch.optim.AdamW(projector.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    with Progress("aligning the projector", steps) as progress:
        for step in range(steps):
            some = named[torch.randint(len(named), (BATCH,), generator=generator)]
            quiet = silent[torch.randint(len(silent), (BATCH // 4,), generator=generator)]
            chosen = torch.cat([some, quiet])
            loss = names.loss(projector(frames[chosen].float()), classes[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance(note=f"loss {loss.item():.3f}" if step % REPORT_EVERY == 0 else "")


def tune_encoder(decoder: Decoder, clips: EncodedClips, steps: int, seed: int) -> None:
    """Train projector and low-rank changes of the encoder's last layers to name frames.

    Args:
        decoder: its model's encoder and projector are trained; the projector is aligned.
        clips: the training clips, with ``states``.
        steps: number of steps of 32 clips.
        seed: seed of the new matrices and of the batches.
    """
    model = decoder.model.requires_grad_(False)
    projector = list(decoder.projector.requires_grad_(True).parameters())
    low_rank = add_low_rank(adapted_encoder(model), ENCODER_RANK, seed)
    groups = [{"params": low_rank, "lr": ENCODER_RATE}, {"params": projector, "lr": PROJECTOR_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    rates = [ENCODER_RATE, PROJECTOR_RATE]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.1)
    names = _Names(decoder, clips)
    losses: list[float] = []
    with Progress("tuning the encoder", steps) as progress:
        for step in range(steps):
            chosen = stream(seed, "tuning", step).choice(len(clips), TUNING_BATCH, replace=False)
            batch = torch.from_numpy(chosen)
            projected = decoder.projector(last_layers(model, clips.states[batch].float()))
            loss = names.loss(projected.flatten(0, 1), names.classes[batch].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*low_rank, *projector], 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress.advance(note=f"loss {np.mean(losses[-20:]):.3f}")


@torch.no_grad()
def frame_accuracy(decoder: Decoder, clips: EncodedClips) -> float:
    """Return the share of non-silent frames whose nearest name (by cosine) is the right one."""
    names = _Names(decoder, clips)
    named = names.classes != SILENCE
    scores = names.scores(decoder.projector(clips.features[named].float()))
    return (scores.argmax(-1) == names.classes[named]).float().mean().item()
