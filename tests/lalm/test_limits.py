"""How much audio a processor takes: found by behaviour, whatever its settings say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mata_interp.benchmarks import Item
from mata_interp.lalm import LALM
from mata_interp.lalm.prompting.lengths import PromptLengths
from mata_interp.lalm.prompting.limits import AudioLimit
from tests.tiny import RATE, tiny_qwen2_audio


def counting(features):
    """The function, and the lengths of the clips that it was called with."""
    lengths = []

    def called(samples):
        lengths.append(len(samples))
        return features(samples)

    return called, lengths


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.5, 0.5), (1, 1), (29.994, 30), (30, 30), (31.234, 31.24), (75, 75), (600, 600), (655.5, 655.5)],
)
def test_a_truncating_processor_is_found_to_ten_milliseconds(seconds, expected):
    rate = 1000
    features, lengths = counting(lambda samples: {"x": torch.from_numpy(samples[: round(seconds * rate)])})
    limit = AudioLimit(features, rate)
    assert limit.usable_samples(10) == 10
    assert limit.seconds() == pytest.approx(expected, abs=0.006)
    assert len(lengths) < 60
    before = len(lengths)
    assert limit.usable_samples(10**7) == round(expected * rate)
    assert len(lengths) == before, "what was found is kept"


def test_only_as_long_a_clip_is_tried_as_needed():
    features, lengths = counting(lambda samples: {"x": torch.from_numpy(samples)})
    limit = AudioLimit(features, 100)
    assert limit.usable_samples(2500) == 2500
    assert lengths == [3000, 3000]
    assert limit.usable_samples(2900) == 2900
    assert len(lengths) == 2
    assert limit.usable_samples(7000) == 7000
    assert max(lengths) == 12_000
    assert limit.seconds() is None


def test_features_that_depend_on_the_whole_clip_or_on_chance():
    """Normalised over what is kept, in windows of 10 ms, with noise from the global generators."""

    def features(samples):
        clip = samples[:4000]
        clip = (clip - clip.mean()) / clip.std()
        frames = clip[: len(clip) // 10 * 10].reshape(-1, 10).mean(1)
        noisy = frames + 1e-3 * np.random.standard_normal(len(frames))  # noqa: NPY002 as extractors do
        return {"x": torch.from_numpy(noisy) + 1e-3 * torch.randn(1)}

    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert AudioLimit(features, 1000).seconds() == 4.0
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_the_real_whisper_window():
    """Qwen2-Audio's extractor with its own window of 30 s: features are those of the cut clip."""
    _, processor = tiny_qwen2_audio(chunk_length=30, layers=1)
    model, _ = tiny_qwen2_audio(chunk_length=30, layers=1)
    lalm = LALM(model, processor)
    samples = np.random.default_rng(0).normal(0, 0.1, 45 * RATE).astype(np.float32)
    items = [
        Item((samples[:length], RATE), "Which?", choices=("a", "b"))
        for length in (45 * RATE, 30 * RATE, 10 * RATE)
    ]
    prompt = lalm.prompt(items)
    assert prompt.audio_seconds == (30.0, 30.0, 10.0)
    assert prompt.truncated_seconds == (15.0, 0.0, 0.0)
    assert torch.equal(prompt.inputs["input_features"][0], prompt.inputs["input_features"][1])
    lengths = PromptLengths(lalm)
    assert [lengths(item).truncated_seconds for item in items] == [15.0, 0.0, 0.0]
    assert lalm.max_audio_seconds == 30.0


def test_a_flaw_is_named():
    limit = AudioLimit(lambda samples: {"x": torch.from_numpy(samples[:4000])}, 1000)
    samples = np.random.default_rng(0).normal(0, 0.1, 9000).astype(np.float32)
    assert limit.flaw(samples, limit.usable_samples(9000)) == ""
    assert "change no feature" in limit.flaw(samples, 9000)
    assert "after 3.00 s" in limit.flaw(samples, 3000)
