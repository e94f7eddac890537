"""The projector's first training: frames of a word or sound are moved to the decoder's embedding of its name.

No pass through the decoder is needed. Afterwards the decoder's inputs are about those of a text with the
names in it, each repeated for all of its frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clips import SECONDS, Segment
from .convert import AUDIO_TOKENS
from .features import EncodedClips
from .progress import Progress
from .prompts import Decoder

__all__ = ["align", "frame_accuracy", "frame_targets"]

SILENCE = -1
RATE = AUDIO_TOKENS / SECONDS  # audio tokens per second
BATCH = 1024
LEARNING_RATE = 4e-3
TEMPERATURE = 0.07
REPORT_EVERY = 100


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


def _all_targets(decoder: Decoder, clips: EncodedClips) -> Tensor:
    """Targets of all clips, int64 [clips, audio tokens]."""
    labels = {segment.label for segments in clips.segments for segment in segments}
    ids = {label: decoder.ids(" " + label.removeprefix("a ")) for label in labels}
    return torch.tensor([frame_targets(segments, ids) for segments in clips.segments])


class _Embeddings:
    """The decoder's embeddings of the names that occur, centred and scaled to length 1."""

    def __init__(self, decoder: Decoder, tokens: Tensor) -> None:
        table = decoder.language_model.embed_tokens.weight.detach()
        self.tokens = tokens
        self.mean = table.mean(0)
        self.raw = table[tokens]
        self.size = self.raw.square().sum(-1).mean()
        self.directions = F.normalize(self.raw - self.mean, dim=-1)

    def scores(self, projected: Tensor) -> Tensor:
        """Cosines of projected frames with every name, [frames, names]."""
        return F.normalize(projected - self.mean, dim=-1) @ self.directions.T


def align(decoder: Decoder, clips: EncodedClips, steps: int, seed: int) -> None:
    """Train the projector from scratch to name frames.

    The loss is the cross-entropy of the names given the cosines, plus the squared distance to the name's
    embedding (for silence: to the mean embedding), relative to the embeddings' squared length.

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
    targets = _all_targets(decoder, clips)
    named = targets != SILENCE
    frames, silent = clips.features[named].float(), clips.features[~named].float()
    tokens, classes = torch.unique(targets[named], return_inverse=True)
    names = _Embeddings(decoder, tokens)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    with Progress("aligning the projector", steps) as progress:
        for step in range(steps):
            some = torch.randint(len(frames), (BATCH,), generator=generator)
            quiet = torch.randint(len(silent), (BATCH // 4,), generator=generator)
            projected = projector(frames[some])
            naming = F.cross_entropy(names.scores(projected) / TEMPERATURE, classes[some])
            distance = (projected - names.raw[classes[some]]).square().sum(-1).mean()
            distance = distance + (projector(silent[quiet]) - names.mean).square().sum(-1).mean()
            loss = naming + distance / names.size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance(note=f"loss {loss.item():.3f}" if step % REPORT_EVERY == 0 else "")


@torch.no_grad()
def frame_accuracy(decoder: Decoder, clips: EncodedClips) -> float:
    """Return the share of non-silent frames whose nearest name (by cosine) is the right one."""
    targets = _all_targets(decoder, clips)
    named = targets != SILENCE
    tokens, classes = torch.unique(targets[named], return_inverse=True)
    scores = _Embeddings(decoder, tokens).scores(decoder.projector(clips.features[named].float()))
    return (scores.argmax(-1) == classes).float().mean().item()
