"""Items with several clips: their forms, their clusters, and what loads them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from mata_interp.benchmarks import Item, Items, load_benchmark
from mata_interp.benchmarks.clusters import connected_components
from mata_interp.errors import ItemError

RATE = 8000


def sound(seed: int, samples: int = 800) -> tuple[np.ndarray, int]:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32), RATE


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate("abcd"):
        soundfile.write(tmp_path / f"{name}.wav", *sound(seed))
    return tmp_path


def item(clips, id: str, **fields) -> Item:
    return Item(clips, "Which?", choices=["x", "y"], answer="x", id=id, **fields)


@pytest.mark.parametrize(
    ("audio", "count"),
    [
        (None, 0), ([], 0), ("a.wav", 1), (["a.wav"], 1), (["a.wav", "b.wav"], 2), (("a.wav", "b.wav"), 2),
        (sound(0), 1), ([sound(0), Path("b.wav")], 2), (np.array(["a.wav", "b.wav"], dtype=object), 2),
        ([{"array": [0.1, 0.2], "sampling_rate": 8000}, "b.wav"], 2),
    ],
)  # fmt: skip
def test_forms(audio, count):
    assert len(Item(audio, "?").clips) == count


@pytest.mark.parametrize("audio", [[0.1, 0.2], ["a.wav", None], ["a.wav", 3], 7])
def test_what_is_no_list_of_clips_is_refused(audio):
    with pytest.raises(ItemError) as error:
        Item(audio, "?", id="q1")
    assert (error.value.item, error.value.field) == ("q1", "audio")


def test_one_clip_is_what_it_was():
    """Ids, hashes and clusters of items with one clip are those of before."""
    assert Item("dog.wav", "Which?", choices=["a", "b"]).id == "80e3023e6a8d"
    one = item([sound(0)], "one")
    assert one.cluster == one.load_audio().sha256 == item(sound(0), "one").cluster


def test_clips_are_decoded_in_order(folder):
    two = item(["b.wav", "a.wav"], "two", audio_root=folder)
    assert [clip.sha256 for clip in two.load_clips()] == [
        item(f"{name}.wav", name, audio_root=folder).load_audio().sha256 for name in "ba"
    ]
    assert {clip.rate for clip in two.load_clips(16_000)} == {16_000}
    with pytest.raises(ItemError, match="2 clips"):
        two.load_audio()
    with pytest.raises(ItemError, match="clip 2 of 2: no such file") as error:
        item(["b.wav", "none.wav"], "q7", audio_root=folder).load_clips()
    assert error.value.item == "q7"
    with pytest.raises(ItemError, match="leads out of"):
        item(["b.wav", "../a.wav"], "q7", audio_root=folder).load_clips()


def test_connected_components():
    assert connected_components([["a"], ["b", "c"], ["c", "d"], ["d"], ["a"], []]) == [0, 1, 1, 1, 0, 5]


def test_clusters_are_components_of_shared_clips(folder):
    """Also where two files hold the same sound, and where only a chain of items connects two clips."""
    soundfile.write(folder / "again.wav", *sound(0))
    made = [
        item(["a.wav", "b.wav"], "ab", audio_root=folder),
        item("c.wav", "c", audio_root=folder),
        item(["b.wav", "d.wav"], "bd", audio_root=folder),
        item("again.wav", "a", audio_root=folder),
        item("d.wav", "d", audio_root=folder, source="tape"),
    ]
    for order in (made, made[::-1]):
        items = Items.from_records(order)
        clusters = {one.id: one.cluster for one in items}
        assert clusters["ab"] == clusters["bd"] == clusters["a"] == clusters["d"] != clusters["c"]
        assert clusters["c"] == made[1].load_audio().sha256
        again = pickle.loads(pickle.dumps(items[0]))
        assert again.cluster == clusters[items[0].id]
        assert again.shared_clips is None
        parts = [items.split(name, fraction=0.5) for name in ("selection", "confirmation")]
        assert sorted(len(part) for part in parts) == [1, 4]
        assert len(items.sample(1)) in (1, 2)  # by places: "a" and "d" are not known to share clips
    assert made[0].shared_clips is None, "the caller's items stay as they are"


def test_an_item_that_cannot_be_decoded_has_no_part_in_clusters(folder):
    items = Items.from_records(
        [item(["a.wav", "none.wav"], "bad", audio_root=folder), item("a.wav", "good", audio_root=folder)]
    )
    assert items[1].cluster == items[1].load_audio().sha256
    with pytest.raises(ItemError, match="clip 2 of 2"):
        _ = items[0].cluster
    decodable = items.drop_undecodable()
    assert [one.id for one in decodable] == ["good"]
    assert [left.item for left in decodable.excluded] == ["bad"]


RECORD = {"id": "q", "question": "Which?", "choices": ["x", "y"], "answer": "x"}


def test_loaders(folder):
    """A JSON list of paths, in JSON, in a CSV cell, in a Parquet column, and by a mapping of two columns."""
    clips = ["a.wav", "b.wav"]
    (folder / "one.json").write_text(json.dumps([RECORD | {"audio": clips}]))
    table = pd.DataFrame([RECORD | {"audio": clips}])
    table.to_parquet(folder / "two.parquet")
    cells = RECORD | {"audio": json.dumps(clips), "choices": "x|y"}
    pd.DataFrame([cells]).to_csv(folder / "three.csv", index=False)
    (folder / "four.json").write_text(json.dumps([RECORD | {"first": "a.wav", "second": "b.wav"}]))
    fields = {"one.json": None, "two.parquet": None, "three.csv": None}
    fields["four.json"] = {
        "id": "id", "question": "question", "choices": "choices", "answer": "answer",
        "audio": ["first", "second"],
    }  # fmt: skip
    for name, mapping in fields.items():
        loaded = load_benchmark(folder / name, fields=mapping)
        assert not loaded.excluded, loaded.excluded
        assert loaded[0].clips == ("a.wav", "b.wav"), name
        assert len(loaded[0].load_clips()) == 2


def test_a_file_name_with_a_bracket_is_a_path(folder):
    soundfile.write(folder / "[a].wav", *sound(0))
    (folder / "one.json").write_text(json.dumps([RECORD | {"audio": "[a].wav"}]))
    assert load_benchmark(folder / "one.json")[0].load_audio().seconds == 0.1
