"""The bank of recordings: complete, licensed, split by recording, and small enough to ship."""

from __future__ import annotations

import pytest

from mata_interp.benchmarks.loading import SHIPPED
from mata_interp.organism import BANK, WEIGHTS
from mata_interp.organism.bank import RATE, SPLITS, load_bank


@pytest.fixture(scope="module")
def bank():
    return load_bank()


def test_every_recording_has_a_source_and_a_licence(bank):
    assert len(bank.recordings) == len(bank.samples) == 581
    assert {r.licence for r in bank.recordings} == {"CC0-1.0"}
    assert all(r.source.startswith(("Debian sonic-pi-samples, ", "espeak-ng -v ")) for r in bank.recordings)
    for recording in bank.recordings:
        samples = bank.samples[recording.name]
        assert 0.02 * RATE < len(samples) <= 1.5 * RATE + 1
        assert 0.5 < abs(samples).max() <= 1.2  # Vorbis may overshoot the peak of 0.9 it was given


def test_training_and_test_share_recordings_only_where_there_are_fewer_than_three(bank):
    few = {label for label in bank.labels if sum(r.label == label for r in bank.recordings) < 3}
    assert set(bank.shared_labels()) == few
    assert few == {"a burp", "a cash register", "a choir", "a crow", "a finger snap", "a piano"}
    for recording in bank.recordings:
        assert set(recording.splits) <= set(SPLITS)
        if recording.label not in few:
            assert not {"train", "test"} <= set(recording.splits)
            assert not {"selection", "test"} <= set(recording.splits)


def test_no_voice_speaks_in_two_splits(bank):
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


def test_weights_and_sounds_together_are_at_most_25_megabytes():
    files = [p for folder in (BANK, WEIGHTS, SHIPPED["listening"].parent) for p in folder.rglob("*")]
    size = sum(p.stat().st_size for p in files if p.suffix in {".ogg", ".safetensors"})
    assert 5e6 < size <= 25e6
