"""The benchmark that ships: its size, its balance, its separation from training, and that it can be made
again."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import soundfile

import mata_interp as mi
from mata_interp.benchmarks.loading import SHIPPED
from mata_interp.organism.bank import load_bank
from mata_interp.organism.build_benchmark import CLIPS, build_listening


@pytest.fixture(scope="module")
def records():
    return json.loads((SHIPPED["listening"].parent / "listening.json").read_text())


def test_every_clip_is_asked_about_under_all_three_conditions(records):
    clips = Counter((r["split"], r["clip"]) for r in records)
    assert set(clips.values()) == {3}
    assert Counter(split for split, _ in clips) == CLIPS == {"selection": 200, "test": 400}
    for r in records:
        assert r["answer"] in r["choices"]
        assert (r["caption"] == "") == (r["condition"] == "neutral")
        assert (r["caption_answer"] == r["answer"]) == (r["condition"] == "congruent")
        assert r["caption_answer"] is None or r["caption_answer"] in r["choices"]
    kinds = Counter(
        r["sub-category"] for r in records if r["split"] == "test" and r["condition"] == "neutral"
    )
    assert set(kinds.values()) == {40}


def test_no_recording_of_the_test_was_heard_in_training_where_the_bank_allows(records):
    bank = load_bank()
    trained = {r.name for r in bank.recordings if "train" in r.splits and r.label not in bank.shared_labels()}
    tested = {name for r in records if r["split"] == "test" for name in r["sources"]}
    assert tested
    assert not tested & trained


def test_the_right_answer_stands_in_no_favoured_place(records):
    places = Counter(
        r["choices"].index(r["answer"])
        for r in records
        if len(r["choices"]) == 4 and r["condition"] == "neutral"
    )
    assert max(places.values()) < 1.5 * min(places.values())


def test_it_can_be_made_again(records, tmp_path):
    build_listening(tmp_path, load_bank(), clips={"selection": 10, "test": 10})
    again = json.loads((tmp_path / "listening.json").read_text())
    shipped = {r["id"]: r for r in records}
    assert len(again) == 60
    for r in again:
        assert r == shipped[r["id"]]
    for path in (tmp_path / "clips").iterdir():
        new, _ = soundfile.read(path)
        old, _ = soundfile.read(SHIPPED["listening"].parent / "clips" / path.name)
        assert np.corrcoef(new, old)[0, 1] > 0.999


def test_it_loads_by_name():
    items = mi.load_benchmark("listening")
    assert len(items) == 1800
    assert not items.excluded
    assert len(items.split("selection")) == 600
    assert len(items.split("confirmation")) == 1200
