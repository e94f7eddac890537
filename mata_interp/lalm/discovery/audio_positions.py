"""Where a sound enters the decoder: found by changing the sound and looking which of its inputs move.

What attention an audio-language model gives to sound can be told only where sound stands at positions of its
own, in the place of placeholders. This file checks that on the model itself, whatever its family: the forward
is run as far as the first decoder layer, once as it is and once with another sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mata_interp.errors import ModelError

from .entry import enter
from .structure import ModelStructure

__all__ = ["AudioAlignment", "count_audio_frames", "probe_audio_positions", "sounds"]


@dataclass(frozen=True, eq=False)
class AudioAlignment:
    """Where the sounds of B prompts of T tokens enter the decoder.

    Attributes:
        placeholders: bool [B, T], the tokens that say "here is sound".
        moved: bool [B, L], the decoder's inputs that change with the sound; None where there is no sound.
        frames: embeddings of sound that the model made, where it puts them in by ``masked_scatter``, which
            drops what finds no placeholder without a word; else None.
        sounds: names of the inputs that were changed.
        deterministic: whether the same sound gives the same inputs whatever the random seed.
    """

    placeholders: Tensor
    moved: Tensor | None
    frames: int | None
    sounds: tuple[str, ...]
    deterministic: bool

    @property
    def padded(self) -> int:
        """Placeholders that no sound reaches: families with a fixed number of them fill the rest up."""
        return 0 if self.moved is None else int((self.placeholders & ~self.moved).sum())

    @property
    def problem(self) -> str | None:
        """Why attention to sound cannot be told apart from attention to text; None if it can."""
        wanted, moved = self.placeholders, self.moved
        count = int(wanted.sum())
        if moved is None:
            return f"{count} audio placeholders and no sound among the inputs" if count else None
        if moved.shape != wanted.shape:
            return (
                f"its decoder sees {moved.shape[1]} tokens for {wanted.shape[1]} of input: expand each "
                "audio placeholder to one a frame, as processors do"
            )
        if moved.all():
            return "sound is added to every position, so that no token is audio and none is text alone"
        if stray := int((moved & ~wanted).sum()):
            return f"the sound moves {stray} decoder inputs that are not audio placeholders"
        if not moved.any():
            return f"the sound moves none of the {count} audio placeholders"
        if self.frames is not None and self.frames != count:
            return (
                f"{self.frames} frames of sound for {count} audio placeholders: the rest is dropped without "
                "a word; expand the placeholders to one a frame, as processors do"
            )
        return None

    def require(self, name: str) -> AudioAlignment:
        """Itself, if the sound is where the placeholders are.

        Raises:
            ModelError: it is not; the reason is given. ``name`` is the model's.
        """
        if self.problem is not None:
            raise ModelError(f"{name} cannot be traced on these inputs: {self.problem}.")
        return self


def sounds(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the inputs that hold sound: waveforms or features, told by their floating point."""
    other = ("pixel", "image", "video", "inputs_embeds")
    return tuple(
        name
        for name, x in inputs.items()
        if isinstance(x, Tensor)
        and x.is_floating_point()
        and not name.startswith(other)
        and "mask" not in name
    )


@torch.inference_mode()
def probe_audio_positions(
    model: Any, structure: ModelStructure, inputs: Mapping[str, Tensor]
) -> AudioAlignment:
    """Change the sound and see which decoder inputs move: three runs up to the first decoder layer.

    Args:
        model: a transformers model in eval mode.
        anatomy: of that model.
        inputs: what its forward takes, on its device and in its dtype, ``input_ids[B, T]`` among them.
    """
    names = sounds(inputs)
    placeholders = inputs["input_ids"] == structure.audio_token_id
    if not names:
        return AudioAlignment(placeholders, None, None, (), deterministic=True)
    plain, frames = _entry(model, structure, inputs, seed=0)
    again, _ = _entry(model, structure, inputs, seed=1)
    other, _ = _entry(model, structure, {**inputs, **{n: _other(inputs[n]) for n in names}}, seed=0)
    moved = (plain != other).any(-1)
    return AudioAlignment(placeholders, moved, frames, names, bool(torch.equal(plain, again)))


@torch.inference_mode()
def count_audio_frames(model: Any, structure: ModelStructure, inputs: Mapping[str, Tensor]) -> AudioAlignment:
    """The cheap part, one run: only that there is sound, a frame of it for each placeholder.

    ``moved`` is taken to be the placeholders where the lengths agree.
    """
    names = sounds(inputs)
    placeholders = inputs["input_ids"] == structure.audio_token_id
    if not names:
        return AudioAlignment(placeholders, None, None, (), deterministic=True)
    entry, frames = _entry(model, structure, inputs, seed=0)
    alike = entry.shape[:2] == placeholders.shape
    moved = placeholders if alike else torch.ones(entry.shape[:2], dtype=torch.bool, device=entry.device)
    return AudioAlignment(placeholders, moved, frames, names, deterministic=True)


def _other(sound: Tensor) -> Tensor:
    """Another sound of about the same size."""
    noise = torch.randn(sound.shape, generator=torch.Generator().manual_seed(0)).to(sound)
    size = sound.float().std() if sound.numel() > 1 else sound.new_zeros(())
    return sound + noise * (size if size > 0 else 1.0)


def _entry(
    model: Any, structure: ModelStructure, inputs: Mapping[str, Tensor], seed: int
) -> tuple[Tensor, int | None]:
    """What enters the first decoder layer, [B, L, d], and how many frames of sound were put in."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _Scattered(inputs["input_ids"], structure) as scattered:
        torch.manual_seed(seed)
        try:
            states = enter(model, structure, inputs).states
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            if isinstance(error, ModelError):
                raise
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"{type(model).__name__} does not take these inputs: {reason}.") from error
    # some decoders carry several streams of states, [streams, B, L, d]
    return torch.cat(list(states.reshape(-1, *states.shape[-3:])), -1), scattered.frames


class _Scattered(TorchFunctionMode):
    """Counts the rows that ``masked_scatter`` is given for the audio placeholders."""

    def __init__(self, tokens: Tensor, structure: ModelStructure) -> None:
        super().__init__()
        self._places = tokens == structure.audio_token_id
        self.frames: int | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("masked_scatter", "masked_scatter_"):
            target, mask, source = (*args, *(kwargs or {}).values())[:3]
            if target.shape[:2] == self._places.shape and target.dim() == 3:
                places = mask.expand_as(target).any(-1)
                if torch.equal(places.to(self._places.device), self._places):
                    self.frames = source.numel() // target.shape[-1]
        return func(*args, **(kwargs or {}))
