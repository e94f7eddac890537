"""Which recordings of the bank are held out: those that other recordings of their label sound like.

A bass drum sounds like another bass drum, but no other recording of the bank sounds like its crow, and its
four guitars are a fifth, a slide, a chord and harmonics. A question about a recording that nothing in
training sounds like can only be guessed; such labels are therefore shared by all splits. The rule uses the
audio alone, never a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from scipy.spatial.distance import cdist
from transformers import WhisperFeatureExtractor

from .bank import RATE

__all__ = ["event_splits", "neighbour_agreement"]

TAKES = 6  # versions of each recording, varied in pitch and noise as in clips
NEIGHBOURS = 5
MIN_AGREEMENT = 0.75  # share of a recording's nearest neighbours that must have its label
ALL_SPLITS = ("train", "selection", "confirmation")


def event_splits(
    samples: Mapping[str, np.ndarray], labels: Mapping[str, str], seed: int = 0
) -> dict[str, tuple[str, ...]]:
    """Assign recordings to splits.

    Recordings are held out one by one, in random order, as long as the recordings left for training identify
    the label of every held-out one (`neighbour_agreement` of at least 0.75): a quarter of a label's
    recordings for the confirmation split, an eighth for the selection split, at least one each. A label
    without a recording for the confirmation split is shared by all splits; a label without a recording for
    the selection split shares its training recordings with it.

    Args:
        samples: name of each recording -> float ``[n]``, mono at the bank's rate.
        labels: name of each recording -> label.
        seed: of the random order and of the versions of each recording.

    Returns:
        Name of each recording -> its splits, such as ``("confirmation",)``.
    """
    rng = np.random.default_rng(seed)
    takes = {name: _takes(sound, rng) for name, sound in samples.items()}
    splits: dict[str, tuple[str, ...]] = {}
    held_out: dict[str, str] = {}  # name -> "confirmation" or "selection"
    for label in dict.fromkeys(labels.values()):
        names = [name for name in samples if labels[name] == label]
        quota = {"confirmation": max(1, len(names) // 4), "selection": max(1, len(names) // 8)}
        assigned: dict[str, str] = {}
        for name in rng.permutation(names):
            counts = Counter(assigned.values())
            split = next((split for split, size in quota.items() if counts[split] < size), None)
            if split is None:
                break
            candidate = {**assigned, str(name): split}
            training = {n: takes[n] for n in samples if n not in candidate and n not in held_out}
            if all(
                neighbour_agreement(takes[n], training, labels, label) >= MIN_AGREEMENT for n in candidate
            ):
                assigned = candidate
        held_out |= assigned
        remaining = ("train",) if "selection" in assigned.values() else ("train", "selection")
        for name in names:
            if name in assigned:
                splits[name] = (assigned[name],)
            else:
                splits[name] = remaining if assigned else ALL_SPLITS
    return splits


def neighbour_agreement(
    takes: np.ndarray, training: Mapping[str, np.ndarray], labels: Mapping[str, str], label: str
) -> float:
    """Share of the five nearest versions of the ``training`` recordings that have ``label``, mean over
    ``takes``.

    Args:
        takes: ``[versions, features]`` of one recording.
        training: name -> ``[versions, features]``.
        labels: name -> label.
        label: label of the recording.
    """
    pool = np.concatenate(list(training.values()))
    matches = np.concatenate([np.full(len(t), labels[name] == label) for name, t in training.items()])
    scale = pool.std(0)
    nearest = np.argsort(cdist(takes / scale, pool / scale), axis=1)[:, :NEIGHBOURS]
    return float(matches[nearest].mean())


def _takes(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``[TAKES, features]``: log-mel energies of the first half second in four spans, and their deviation."""
    extractor = WhisperFeatureExtractor(
        feature_size=64, sampling_rate=RATE, hop_length=320, chunk_length=1, n_fft=400
    )
    clips = []
    for _ in range(TAKES):
        ratio = 2 ** (rng.uniform(-3, 3) / 12)
        n = min(int(len(sound) / ratio), RATE // 2)
        take = np.interp(np.arange(n) * ratio, np.arange(len(sound)), sound)
        clip = rng.standard_normal(RATE) * 0.1 * 10 ** (-rng.uniform(8, 26) / 20)
        clip[:n] += 0.1 * take / np.sqrt(np.mean(take**2))
        clips.append(clip.astype(np.float32))
    mel = extractor(clips, sampling_rate=RATE, return_tensors="np")["input_features"][:, :, :25]
    spans = [mel[:, :, a:b].mean(2) for a, b in ((0, 2), (2, 5), (5, 12), (12, 25))]
    return np.concatenate([*spans, mel.std(2)], 1)
