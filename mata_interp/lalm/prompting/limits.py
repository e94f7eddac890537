"""How much of a clip a processor takes: found by changing the end of a clip, not read from its settings.

Settings do not tell. A feature extractor's window is no limit where the processor makes as many windows as
the audio needs, a stated maximum may be rounded down to whole windows, and some extractors truncate without
an attribute that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["AudioLimit", "same_features"]

END = 0.1  # seconds changed at the end of a clip: longer than the step of any feature
COARSE, FINE = 30.0, 0.01  # seconds: limits are sought in whole windows first, then to a hundredth
LONGEST = 1920.0  # seconds: `AudioLimit.seconds` tries no longer clip


class AudioLimit:
    """The longest audio that a processor takes, found when a clip is long enough to matter.

    A clip of 30 s is tried first, then lengths that double: where no feature changes with the last 100 ms of
    a clip, the clip is cut. The place is then found by bisection, to 10 ms. Only the processor runs.

    Args:
        features: the processor's outputs for the samples of one clip, float32 [n].
        rate: sampling rate, in Hz.

    Examples:
        >>> import torch
        >>> limit = AudioLimit(lambda samples: {"x": torch.tensor(samples[:4000])}, rate=1000)
        >>> limit.usable_samples(3000), limit.usable_samples(9000), limit.seconds()
        (3000, 4000, 4.0)
    """

    def __init__(self, features: Callable[[np.ndarray], Mapping[str, Any]], rate: int) -> None:
        self._features, self._rate = features, rate
        self._uncut = 0  # samples: a clip of this length is taken to its end
        self._limit: int | None = None

    def usable_samples(self, samples: int) -> int:
        """How many samples of a clip of this many the processor takes; the rest is cut off its end."""
        while self._limit is None and samples > self._uncut:
            self._try(max(round(COARSE * self._rate), 2 * self._uncut))
        return samples if self._limit is None else min(samples, self._limit)

    def seconds(self) -> float | None:
        """The longest audio that the processor takes, in seconds; None if it takes 32 minutes or more."""
        self.usable_samples(round(LONGEST * self._rate))
        return None if self._limit is None else self._limit / self._rate

    def flaw(self, samples: np.ndarray, count: int) -> str:
        """Why the first ``count`` of these samples are not what the processor takes; "" if they are.

        Args:
            samples: of one clip, float32 [n].
            count: number of samples, from `usable_samples`.
        """
        begin = max(0, count - round(END * self._rate))
        changed = np.concatenate([samples[:begin], _noise(count - begin, 1)])
        with _same_randomness():
            features = self._features(samples[:count])
            if same_features(features, self._features(changed)):
                return f"its last {END * 1000:g} ms change no feature"
            if count < len(samples) and not same_features(features, self._features(samples)):
                return f"what is after {count / self._rate:.2f} s changes its features"
        return ""

    def _try(self, length: int) -> None:
        """Is a clip of this many samples taken to its end? If it is not, find the limit."""
        clip = _noise(length, 0)
        with _same_randomness():
            plain = self._features(clip)

        def matters(begin: int) -> bool:
            """Whether the samples from ``begin`` on change any feature."""
            changed = np.concatenate([clip[:begin], _noise(length - begin, 1)])
            with _same_randomness():
                return not same_features(plain, self._features(changed))

        end = length - round(END * self._rate)
        if matters(end) or not matters(0):  # whether audio reaches the model at all is checked elsewhere
            self._uncut = length
            return
        low, high = max(0, self._uncut - round(END * self._rate)), end
        for step in (COARSE, FINE):
            low, high = _bisect(matters, low, high, round(step * self._rate))
        # some extractors make a last frame only of a few more samples, which change nothing in it
        self._limit = high
        for longer in range(high, high + round(END * self._rate), round(FINE * self._rate)):
            with _same_randomness():
                if same_features(plain, self._features(clip[:longer])):
                    self._limit = longer
                    break


def _bisect(matters: Callable[[int], bool], low: int, high: int, step: int) -> tuple[int, int]:
    """Neighbouring multiples of ``step`` between which the first sample lies that does not matter.

    Args:
        matters: true at ``low``, false at ``high``.
    """
    first, last = low // step, -(-high // step)
    if last - first > 1 and matters((last - 1) * step):  # often the limit is the highest candidate
        first = last - 1
    while last - first > 1:
        middle = (first + last) // 2
        if matters(middle * step):
            first = middle
        else:
            last = middle
    return first * step, last * step


def same_features(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two outputs of a processor are equal in every bit."""
    if a.keys() != b.keys():
        return False
    for name, x in a.items():
        y = b[name]
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            if not torch.equal(x, y):
                return False
        elif not np.array_equal(np.asarray(x), np.asarray(y)):
            return False
    return True


def _noise(samples: int, seed: int) -> np.ndarray:
    """Noise of a tenth of full scale."""
    return np.random.default_rng(seed).standard_normal(samples, dtype=np.float32) * np.float32(0.1)


@contextmanager
def _same_randomness() -> Iterator[None]:
    """Inside, random numbers are the same each time: some extractors add noise to the samples."""
    state = np.random.get_state()  # noqa: NPY002 extractors draw from the global generator
    try:
        with torch.random.fork_rng(devices=[]):
            np.random.seed(0)  # noqa: NPY002
            torch.manual_seed(0)
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
