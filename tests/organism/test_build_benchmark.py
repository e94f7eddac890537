"""The benchmark that ships: size, balance, separation from training, and that it can be rebuilt."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import soundfile

from mata_interp.benchmarks import load_benchmark
from mata_interp.benchmarks.loading import SHIPPED
from mata_interp.organism.bank import load_bank
from mata_interp.organism.build_benchmark import CLIPS, FILE_SPLITS, build_listening, split_generator


@pytest.fixture(scope="module")
def records():
    return json.loads((SHIPPED["listening"].parent / "listening.json").read_text())


def test_every_clip_has_all_three_conditions(records):
    clips = Counter((r["split"], r["clip"]) for r in records)
    assert set(clips.values()) == {3}
    assert CLIPS == {"selection": 200, "confirmation": 400}
    assert Counter(split for split, _ in clips) == {FILE_SPLITS[split]: n for split, n in CLIPS.items()}
    for r in records:
        assert r["answer"] in r["choices"]
        assert (r["caption"] == "") == (r["condition"] == "neutral")
        assert (r["caption_answer"] == r["answer"]) == (r["condition"] == "congruent")
        assert r["caption_answer"] is None or r["caption_answer"] in r["choices"]
    kinds = Counter(
        r["sub-category"] for r in records if r["split"] == "test" and r["condition"] == "neutral"
    )
    assert set(kinds.values()) == {40}


def test_confirmation_clips_use_no_training_recordings_where_the_bank_allows(records):
    bank = load_bank()
    training = {
        r.name for r in bank.recordings if "train" in r.splits and r.label not in bank.shared_labels()
    }
    confirmation = {name for r in records if r["split"] == "test" for name in r["sources"]}
    assert confirmation
    assert not confirmation & training


def test_the_right_option_has_no_preferred_position(records):
    places = Counter(
        r["choices"].index(r["answer"])
        for r in records
        if len(r["choices"]) == 4 and r["condition"] == "neutral"
    )
    assert max(places.values()) < 1.5 * min(places.values())


def test_it_can_be_rebuilt(records, tmp_path):
    build_listening(tmp_path, load_bank(), clips={"selection": 10, "confirmation": 10})
    again = json.loads((tmp_path / "listening.json").read_text())
    shipped = {r["id"]: r for r in records}
    assert len(again) == 60
    for r in again:
        assert r == shipped[r["id"]]
    for path in (tmp_path / "clips").iterdir():
        new, _ = soundfile.read(path)
        old, _ = soundfile.read(SHIPPED["listening"].parent / "clips" / path.name)
        assert np.corrcoef(new, old)[0, 1] > 0.999


def test_the_streams_of_the_splits_are_unchanged():
    draws = {split: split_generator(split).integers(2**31, size=3).tolist() for split in CLIPS}
    assert draws == {
        "selection": [847113528, 2137529086, 1937445030],
        "confirmation": [1771627098, 1101749856, 1794942606],
    }


def test_it_loads_by_name():
    items = load_benchmark("listening")
    assert len(items) == 1800
    assert not items.excluded
    for split, count in (("selection", 600), ("confirmation", 1200)):
        assert len(items.split(split)) == count
        assert {item.split for item in items.split(split)} == {split}
