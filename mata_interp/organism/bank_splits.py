"""Which recordings of the bank may be kept for the test: those that others of their label sound like.

A bass drum sounds like another bass drum, but no other recording of the bank sounds like its crow, and its
four guitars are a fifth, a slide, a chord and harmonics. Where nothing in training sounds like a recording,
asking about it asks for a guess; such labels are shared by all splits, and the bank says so. The rule looks
at sounds alone, never at a model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.distance import cdist
from transformers import WhisperFeatureExtractor

from .bank import RATE

__all__ = ["event_splits", "likeness"]

TAKES = 6  # of each recording: varied in pitch and noise, as in clips
NEIGHBOURS = 5
LIKE = 0.75  # share of a recording's neighbours that must be of its own label
SHARED = ("train", "selection", "test")


def event_splits(
    samples: Mapping[str, np.ndarray], labels: Mapping[str, str], seed: int = 0
) -> dict[str, tuple[str, ...]]:
    """The splits of each recording, its name -> e.g. ``("test",)``.

    Recordings are held out one by one, in random order, as long as every one held out is told right by those
    left for training (`likeness` of at least 0.75): a quarter of a label's recordings for the test, an eighth
    for selection, at least one each. A label of which none can be held out for the test is shared by all
    splits; one without a recording for selection shares its training recordings with selection.

    Args:
        samples: of each recording, float mono at the bank's rate.
        labels: of each recording.
    """
    rng = np.random.default_rng(seed)
    takes = {name: _takes(sound, rng) for name, sound in samples.items()}
    splits: dict[str, tuple[str, ...]] = {}
    held: dict[str, str] = {}  # name -> "test" or "selection"
    for label in dict.fromkeys(labels.values()):
        names = [name for name in samples if labels[name] == label]
        quota = {"test": max(1, len(names) // 4), "selection": max(1, len(names) // 8)}
        mine: dict[str, str] = {}
        for name in rng.permutation(names):
            part = next((p for p, n in quota.items() if list(mine.values()).count(p) < n), None)
            if part is None:
                break
            tried = {**mine, str(name): part}
            known = {n: takes[n] for n in samples if n not in tried and n not in held}
            if all(likeness(takes[n], known, labels, label) >= LIKE for n in tried):
                mine = tried
        held |= mine
        rest = ("train",) if "selection" in mine.values() else ("train", "selection")
        for name in names:
            splits[name] = (mine[name],) if name in mine else rest if mine else SHARED
    return splits


def likeness(
    takes: np.ndarray, known: Mapping[str, np.ndarray], labels: Mapping[str, str], label: str
) -> float:
    """Share of the five nearest takes of ``known`` recordings that are of ``label``, mean over ``takes``."""
    pool = np.concatenate(list(known.values()))
    right = np.concatenate([np.full(len(t), labels[name] == label) for name, t in known.items()])
    scale = pool.std(0)
    nearest = np.argsort(cdist(takes / scale, pool / scale), axis=1)[:, :NEIGHBOURS]
    return float(right[nearest].mean())


def _takes(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[TAKES, features]: log-mel energies of the first half second in four spans, and their spread."""
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
