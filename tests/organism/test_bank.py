"""The bank of recordings: complete, licensed, split by recording, small enough to ship."""

from __future__ import annotations

import numpy as np
import pytest

from mata_interp.benchmarks.loading import SHIPPED
from mata_interp.organism import BANK, WEIGHTS, OrganismError
from mata_interp.organism.bank import RATE, SPLITS, load_bank
from mata_interp.organism.bank_splits import event_splits


@pytest.fixture(scope="module")
def bank():
    return load_bank()


def test_every_recording_has_a_source_and_a_licence(bank):
    assert len(bank.recordings) == len(bank.samples) == 595
    assert {r.licence for r in bank.recordings} == {"CC0-1.0"}
    assert all(r.source.startswith(("Debian sonic-pi-samples, ", "espeak-ng -v ")) for r in bank.recordings)
    for recording in bank.recordings:
        samples = bank.samples[recording.name]
        assert 0.02 * RATE < len(samples) <= 1.5 * RATE + 1
        assert 0.5 < abs(samples).max() <= 1.2  # the peak is 0.9 before Vorbis, which may overshoot


SHARED = {
    "a beep", "a bell", "a burp", "a cash register", "a choir", "a crow", "a finger snap", "a guitar",
    "a piano", "a record scratch", "a whoosh",
}  # fmt: skip


def test_training_and_confirmation_share_only_labels_without_similar_recordings(bank):
    assert set(bank.shared_labels()) == SHARED
    for recording in bank.recordings:
        assert set(recording.splits) <= set(SPLITS)
        if recording.label in SHARED:
            assert recording.splits == SPLITS
        else:
            assert not {"train", "confirmation"} <= set(recording.splits)
            assert not {"selection", "confirmation"} <= set(recording.splits)


def test_held_out_recordings_sound_like_training_recordings(bank):
    """By a nearest neighbour on the mean spectrum, another measure than the one that assigned the splits."""
    mean = {r.name: _mean_spectrum(bank.samples[r.name]) for r in bank.recordings if r.role == "event"}
    by_name = {r.name: r for r in bank.recordings}
    training = [name for name in mean if "train" in by_name[name].splits]
    held_out = [name for name in mean if "train" not in by_name[name].splits]
    assert len(held_out) >= 20
    nearest = {n: min(training, key=lambda m: np.abs(mean[n] - mean[m]).mean()) for n in held_out}
    matches = [by_name[n].label == by_name[m].label for n, m in nearest.items()]
    assert np.mean(matches) >= 0.8


def _mean_spectrum(sound: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(sound[: RATE // 2], RATE)) ** 2
    bands = np.split(power[20:], np.unique(np.geomspace(1, 7900, 40).astype(int)))
    level = np.log10(np.array([band.mean() for band in bands]) + 1e-6 * power.max())
    return level - level.mean()


def test_labels_with_similar_recordings_are_held_out():
    """Two labels with similar recordings and one without, all synthetic."""
    rng = np.random.default_rng(0)
    t = np.arange(RATE) / RATE
    sounds, labels = {}, {}
    for label, pitches in {"low": 60 * 1.02 ** np.arange(8), "high": 3000 * 1.02 ** np.arange(8)}.items():
        for i, pitch in enumerate(pitches):
            labels[f"{label}{i}"] = label
            sounds[f"{label}{i}"] = np.sin(2 * np.pi * pitch * t) + 0.01 * rng.standard_normal(RATE)
    sounds |= {
        "noise": rng.standard_normal(RATE),
        "middle": np.sin(2 * np.pi * 600 * t),
        "click": np.exp(-400 * t),
    }
    labels |= dict.fromkeys(("noise", "middle", "click"), "odd")
    splits = event_splits(sounds, labels)
    assert splits == event_splits(sounds, labels)
    for label in ("low", "high"):
        mine = [splits[name] for name in sounds if labels[name] == label]
        assert sorted(mine) == [("confirmation",), ("confirmation",), ("selection",), *[("train",)] * 5]
    assert {splits[name] for name in ("noise", "middle", "click")} == {SPLITS}


def test_no_voice_is_in_two_splits(bank):
    splits_of_voice: dict[str, set] = {}
    for recording in bank.recordings:
        if recording.role == "word":
            splits_of_voice.setdefault(recording.source, set()).update(recording.splits)
    assert all(len(splits) == 1 for splits in splits_of_voice.values())
    for split in SPLITS:
        for word in bank.words:
            assert {r.voice for r in bank.recordings if r.label == word and split in r.splits} == set(
                bank.voices
            )


def test_weights_and_audio_together_are_at_most_25_megabytes():
    files = [p for folder in (BANK, WEIGHTS, SHIPPED["listening"].parent) for p in folder.rglob("*")]
    size = sum(p.stat().st_size for p in files if p.suffix in {".ogg", ".safetensors"})
    assert 5e6 < size <= 25e6


def test_a_missing_recording_is_named(bank):
    with pytest.raises(OrganismError, match=r"'a dog'.*'confirmation'"):
        bank.find("confirmation", "a dog")
