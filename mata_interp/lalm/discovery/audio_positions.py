"""Where audio enters the decoder: found by changing the audio and comparing the decoder's inputs.

Attention to audio can be told from attention to text only where audio stands at positions of its own, in
place of placeholder tokens. This file checks that on the model itself, whatever its family: the forward runs
as far as the first decoder layer, once with the audio and once with other audio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mata_interp.errors import ModelError

from ..calls.locks import exclusive
from ..memory import is_out_of_memory
from .entry import enter
from .structure import ModelStructure

__all__ = ["AudioAlignment", "audio_input_names", "count_audio_frames", "probe_audio_positions"]


@dataclass(frozen=True, eq=False)
class AudioAlignment:
    """Where the audio of B prompts of T tokens enters the decoder.

    Attributes:
        placeholders: bool [B, T], the tokens that stand for audio.
        moved: bool [B, L], the decoder's inputs that change with the audio; None where there is no audio.
        frames: embeddings of audio that the model made, where it inserts them by ``masked_scatter``, which
            silently drops those that find no placeholder; otherwise None.
        audio_inputs: names of the inputs that were changed.
        deterministic: whether the same audio gives the same inputs whatever the random seed.
    """

    placeholders: Tensor
    moved: Tensor | None
    frames: int | None
    audio_inputs: tuple[str, ...]
    deterministic: bool

    @property
    def padded(self) -> int:
        """Placeholders that no audio reaches: families with a fixed number of them fill up the rest."""
        return 0 if self.moved is None else int((self.placeholders & ~self.moved).sum())

    @property
    def problem(self) -> str | None:
        """Why attention to audio cannot be told from attention to text; None if it can."""
        placeholders, moved = self.placeholders, self.moved
        count = int(placeholders.sum())
        if moved is None:
            return f"{count} audio placeholders and no audio among the inputs" if count else None
        if moved.shape != placeholders.shape:
            return (
                f"its decoder sees {moved.shape[1]} tokens for {placeholders.shape[1]} of input: expand each "
                "audio placeholder to one a frame, as processors do"
            )
        if moved.all():
            return "audio is added to every position, so that no token is audio and none is text alone"
        stray = int((moved & ~placeholders).sum())
        if stray:
            return f"the audio moves {stray} decoder inputs that are not audio placeholders"
        if not moved.any():
            return f"the audio moves none of the {count} audio placeholders"
        if self.frames is not None and self.frames != count:
            return (
                f"{self.frames} frames of audio for {count} audio placeholders: the rest is dropped "
                "silently; expand the placeholders to one a frame, as processors do"
            )
        return None

    def require(self, name: str) -> AudioAlignment:
        """Returns itself if the audio is where the placeholders are.

        Args:
            name: of the model, for the error.

        Raises:
            ModelError: it is not; with the reason.
        """
        if self.problem is not None:
            raise ModelError(f"{name} cannot be traced on these inputs: {self.problem}.")
        return self


def audio_input_names(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the inputs that hold audio: waveforms and features, which are of floating point, and codes.

    Codes are whole numbers, [clips, frames, codebooks] or [clips, frames], with which a codec or a quantised
    spectrogram describes audio. Whether a candidate is audio is found by changing it.
    """
    tokens = inputs.get("input_ids")
    return tuple(
        name
        for name, x in inputs.items()
        if isinstance(x, Tensor)
        and not _OTHER_INPUTS.search(name)
        and (x.is_floating_point() or _may_be_codes(x, tokens))
    )


_OTHER_INPUTS = re.compile(
    r"^(pixel|image|video|inputs_embeds|input_ids$)|mask|position|token_type|length|size|grid|labels"
)


def _may_be_codes(x: Tensor, tokens: Any) -> bool:
    """Whether whole numbers may be codes of audio: they are neither flags nor one for each token."""
    if x.dtype == torch.bool or x.dim() < 2 or (isinstance(tokens, Tensor) and x.shape == tokens.shape):
        return False
    return x.dim() >= 3 or (x.numel() > 0 and int(x.max()) > 1)


@torch.inference_mode()
def probe_audio_positions(
    model: Any, structure: ModelStructure, inputs: Mapping[str, Tensor]
) -> AudioAlignment:
    """Change the audio and see which decoder inputs change: three runs up to the first decoder layer.

    Args:
        model: a transformers model in eval mode.
        structure: of that model.
        inputs: of its forward, on its device and in its dtype, ``input_ids[B, T]`` among them.
    """
    names = audio_input_names(inputs)
    placeholders = inputs["input_ids"] == structure.audio_token_id
    if not names:
        return AudioAlignment(placeholders, None, None, (), deterministic=True)
    plain, frames = _entry(model, structure, inputs, seed=0)
    again, _ = _entry(model, structure, inputs, seed=1)
    changed = {**inputs, **{name: _other_audio(inputs[name]) for name in names}}
    other, _ = _entry(model, structure, changed, seed=0)
    moved = (plain != other).any(-1)
    return AudioAlignment(placeholders, moved, frames, names, bool(torch.equal(plain, again)))


@torch.inference_mode()
def count_audio_frames(model: Any, structure: ModelStructure, inputs: Mapping[str, Tensor]) -> AudioAlignment:
    """The cheap part, one run: only that there is audio, one frame of it for each placeholder.

    ``moved`` is taken to be the placeholders where the lengths agree.

    Args:
        model: a transformers model in eval mode.
        structure: of that model.
        inputs: of its forward, on its device and in its dtype, ``input_ids[B, T]`` among them.
    """
    names = audio_input_names(inputs)
    placeholders = inputs["input_ids"] == structure.audio_token_id
    if not names:
        return AudioAlignment(placeholders, None, None, (), deterministic=True)
    entry, frames = _entry(model, structure, inputs, seed=0)
    same_length = entry.shape[:2] == placeholders.shape
    everywhere = torch.ones(entry.shape[:2], dtype=torch.bool, device=entry.device)
    moved = placeholders if same_length else everywhere
    return AudioAlignment(placeholders, moved, frames, names, deterministic=True)


def _other_audio(audio: Tensor) -> Tensor:
    """Other audio of about the same size; of codes, others between the smallest and the largest."""
    if not audio.is_floating_point():
        low, high = audio.min(), audio.max()
        if low == high:
            return audio + (1 if low == 0 else -1)
        mirrored = low + high - audio
        return torch.where(mirrored == audio, low, mirrored)
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0)).to(audio)
    size = audio.float().std() if audio.numel() > 1 else audio.new_zeros(())
    return audio + noise * (size if size > 0 else 1.0)


def _entry(
    model: Any, structure: ModelStructure, inputs: Mapping[str, Tensor], seed: int
) -> tuple[Tensor, int | None]:
    """What enters the first decoder layer, [B, L, d], and how many frames of audio were inserted."""
    devices = list(range(torch.cuda.device_count()))  # manual_seed seeds all of them
    with (
        exclusive(structure.decoder),
        torch.random.fork_rng(devices=devices),
        _Scattered(inputs["input_ids"], structure) as scattered,
    ):
        torch.manual_seed(seed)
        try:
            states = enter(model, structure, inputs).states
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            if isinstance(error, ModelError) or is_out_of_memory(error):
                raise
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"{type(model).__name__} does not take these inputs: {reason}.") from error
    # some decoders carry several streams of states, [streams, B, L, d]
    return torch.cat(list(states.reshape(-1, *states.shape[-3:])), -1), scattered.frames


class _Scattered(TorchFunctionMode):
    """Counts the rows that ``masked_scatter`` inserts at the audio placeholders."""

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
