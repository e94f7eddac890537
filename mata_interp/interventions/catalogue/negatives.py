"""The negative of contrastive methods: what the extra pass is given in place of the audio.

Published implementations differ in it, often without saying so: here every contrastive method names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, finalize

import numpy as np
import torch
from torch import Tensor

from mata_interp.benchmarks import Item
from mata_interp.errors import InterventionError, unknown_name
from mata_interp.interventions.protocol import SiteContext

from .method import Described

__all__ = ["NEGATIVES", "Negative", "SamePrompt", "drop_improbable", "negative_prompt"]

NEGATIVES = ("omitted", "silent", "noised", "reversed", "another", "ignored")
"""``omitted``: the audio and its marks are left out. ``silent``: zeros of the same length. ``noised``:
sqrt(0.5) x + sqrt(0.5) e, where e is Gaussian noise of the clip's own power, a function of the seed and the
item. ``reversed``: in time. ``another``: the clip that the method names. ``ignored``: the same audio, and the
instruction to ignore it after the question."""

IGNORE = "Ignore the audio."

# Of each model, the negative prompts of each prompt, by the identity of its token ids. Several strengths are
# tried on one prompt, and a processor takes longer than a small model. They live as long as these ids: until
# the end of a call with items, whose prompt is made in the call, or as long as the caller's own prompt.
_made: WeakKeyDictionary[Any, dict[int, dict[tuple, Any]]] = WeakKeyDictionary()


def negative_prompt(lalm: Any, prompt: Any, negative: str, clip: str | None = None, seed: int = 0) -> Any:
    """The prompt of an extra pass, for the same items.

    Args:
        lalm: an LALM.
        prompt: made from items; the other one is worded alike.
        negative: one of `NEGATIVES`.
        clip: path of the audio, for ``"another"``.
        seed: of the noise, for ``"noised"``.

    Raises:
        InterventionError: there is no such negative, ``"another"`` names no clip, or the prompt was made from
            ready-made inputs.
    """
    if negative not in NEGATIVES:
        raise InterventionError(unknown_name("negative", negative, NEGATIVES))
    if any(not item.question and item.audio is None for item in prompt.items):
        raise InterventionError(
            "A negative prompt is made from items, and this prompt from ready-made inputs: ask with mi.Item "
            "and lalm.generate."
        )
    ids, of_model = prompt.inputs["input_ids"], _made.setdefault(lalm, {})
    if id(ids) not in of_model:
        of_model[id(ids)] = {}
        finalize(ids, of_model.pop, id(ids), None).atexit = False
    negatives, key = of_model[id(ids)], (negative, clip, seed, prompt.format)
    if key not in negatives:
        negatives[key] = _make_prompt(lalm, prompt, negative, clip, seed)
    return negatives[key]


def _make_prompt(lalm: Any, prompt: Any, negative: str, clip: str | None, seed: int) -> Any:
    if negative == "omitted":
        return lalm.prompt(prompt.items, audio=None, format=prompt.format)
    if negative == "ignored":
        items = [replace(item, question=f"{item.question} {IGNORE}") for item in prompt.items]
        return lalm.prompt(items, format=prompt.format)
    if negative == "another":
        if clip is None:
            raise InterventionError("negative='another' needs clip=, the path of the other audio.")
        replaced = [replace(item.with_audio(clip), audio_root=None) for item in prompt.items]
        return lalm.prompt(replaced, format=prompt.format)
    rate, change = lalm.sampling_rate, _CHANGES[negative]
    changed = [_changed(item, rate, change, seed) for item in prompt.items]
    return lalm.prompt(changed, format=prompt.format)


def _changed(item: Item, rate: int, change: Callable[[np.ndarray, int], np.ndarray], seed: int) -> Item:
    audio = item.load_audio(rate)
    seed_of_item = int(audio.sha256[:8], 16) ^ seed
    return item.with_audio((change(audio.samples, seed_of_item).astype(np.float32), rate))


def _noised(samples: np.ndarray, seed: int) -> np.ndarray:
    power = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    noise = np.random.default_rng(seed).normal(0.0, power, len(samples))
    return math.sqrt(0.5) * samples + math.sqrt(0.5) * noise


_CHANGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "silent": lambda samples, seed: np.zeros_like(samples),
    "noised": _noised,
    "reversed": lambda samples, seed: samples[::-1].copy(),
}


def check_negative(method: Any) -> None:
    """Refuse a negative that does not exist, or whose ``clip`` is missing or of no use.

    Raises:
        InterventionError: saying which.
    """
    if method.negative not in NEGATIVES:
        raise InterventionError(unknown_name("negative", method.negative, NEGATIVES))
    if (method.negative == "another") != (method.clip is not None):
        raise InterventionError("clip, a path, belongs to negative='another', and to it alone.")


@dataclass(frozen=True)
class Negative(Described):
    """A method at the logits with a pass over a negative prompt.

    Subclasses have the fields ``negative`` (one of `NEGATIVES`), ``clip`` (a path, for ``"another"``) and
    ``seed`` (for ``"noised"``).
    """

    site = "logits"
    layers = ()
    queries = "last"
    phase = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_negative(self)

    def negative_prompt(self, lalm: Any, prompt: Any) -> Any:
        """The prompt of the extra pass."""
        values: Any = self
        return negative_prompt(lalm, prompt, values.negative, values.clip, values.seed)

    @staticmethod
    def negative_logits(context: SiteContext) -> Tensor:
        """The logits of the extra pass: [B, Q, V]."""
        if context.negative is None:
            raise InterventionError("A contrastive method acts at the logits of a model only.")
        return context.negative


class SamePrompt(Negative):
    """A method whose extra pass reads the same prompt, under its ``negative_parts``."""

    negative: ClassVar[str] = "omitted"  # not used
    clip: ClassVar[None] = None

    def negative_prompt(self, lalm: Any, prompt: Any) -> Any:
        """The prompt itself."""
        return prompt


def drop_improbable(logits: Tensor, plain: Tensor, cutoff: float) -> Tensor:
    """Logits, -inf where the plain logits are below their maximum + log cutoff; a cutoff of 0 drops none."""
    if cutoff <= 0:
        return logits
    least = plain.amax(-1, keepdim=True) + math.log(cutoff)
    return torch.where(plain < least, -torch.inf, logits)
