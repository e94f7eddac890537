"""Everything that functions take as items: iterators, records, tables, datasets, sound of other libraries."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

from mata_interp.benchmarks import Item, Items
from mata_interp.benchmarks.entries import as_entries, as_items
from mata_interp.errors import ArgumentTypeError, ItemError, MataError

from .conftest import RATE, a_record

datasets = pytest.importorskip("datasets")

NOISE = np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32)


def records(folder, count: int = 3) -> list[dict]:
    return [a_record(n, audio_id=str(folder / "clips" / f"{n}.wav")) for n in range(count)]


FORMS = {
    "list of records": lambda rows: rows,
    "generator": lambda rows: (row for row in rows),
    "map": lambda rows: map(dict, rows),
    "table": pd.DataFrame,
    "itertuples": lambda rows: pd.DataFrame(rows).rename(columns={"sub-category": "kind"}).itertuples(),
    "iterrows": lambda rows: pd.DataFrame(rows).iterrows(),
    "list of series": lambda rows: [row for _, row in pd.DataFrame(rows).iterrows()],
    "dataset": lambda rows: datasets.Dataset.from_list(rows),
    "iterable dataset": lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    "items": lambda rows: Items.from_records(rows),
    "generator of items": lambda rows: iter(Items.from_records(rows)),
}


@pytest.mark.parametrize("form", FORMS)
def test_items_in_any_form(folder, form):
    rows = records(folder)
    for made in (as_entries(FORMS[form](rows)), as_items(FORMS[form](rows))):
        assert [item.id for item in made] == ["q0", "q1", "q2"]
        assert [(item.choices, item.answer) for item in made] == [(("a dog", "a bell", "rain"), "a bell")] * 3
        assert made[0].load_audio(RATE).seconds == 0.5
    assert Items.from_records(FORMS[form](rows)).content_sha256 == as_items(rows).content_sha256


def test_one_item_or_record(folder):
    item = Item(audio=None, question="Who?")
    assert list(as_entries(item)) == [item]
    assert [made.id for made in as_entries(records(folder)[0])] == ["q0"]
    assert as_entries(entries := as_entries(item)) is entries


def test_records_of_which_no_item_can_be_made_are_named(folder):
    bad = [a_record(2, question={"text": "?"}), {"id": "q4", "audio": "a.wav"}]
    rows = [*records(folder, 2), *bad, a_record(3, choices=["x"])]
    entries = as_entries(iter(rows))
    assert [item.id for item in entries] == ["q0", "q1", "q3"]
    left = [("q2", "question"), ("q4", "question")]
    assert [(exclusion.item, exclusion.field) for exclusion in entries.excluded] == left
    items = as_items(iter(rows))
    assert [item.id for item in items] == ["q0", "q1"]
    left.append(("q3", "choices"))
    assert [(exclusion.item, exclusion.field) for exclusion in items.excluded] == left


@pytest.mark.parametrize(
    ("wrong", "fact"),
    [
        ("listening", "'listening'"),
        (None, "None"),
        (7, "7"),
        (b"x", "bytes"),
        ([Item(audio=None, question="?"), 7], "entry 2"),
        (["a.wav"], "'a.wav'"),
        ({"first": Item(audio=None, question="?")}, "['first']"),
        (pd.DataFrame({"file": ["a.wav"], "prompt": ["?"]}), "['file', 'prompt']"),
        ([["a.wav", "?"]], "entry 1"),
        (datasets.DatasetDict({"a": datasets.Dataset.from_list([{"x": 1}])}), "['a']"),
    ],
)
def test_what_is_no_item_is_one_clear_type_error(wrong, fact):
    for take in (as_entries, as_items):
        with pytest.raises(ArgumentTypeError) as caught:
            take(wrong)
        assert fact in str(caught.value)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, MataError)
        assert len(str(caught.value)) < 500


def test_a_dataset_with_audio_inside_is_not_decoded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    rows = [{**row, "audio": row.pop("audio_id")} for row in records(folder)]
    outside = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    encoded = [{**row, "audio": {"bytes": Path(row["audio"]).read_bytes(), "path": None}} for row in rows]
    inside = datasets.Dataset.from_list(encoded).cast_column("audio", datasets.Audio())
    sounds = [[item.load_audio().sha256 for item in as_items(data)] for data in (rows, outside, inside)]
    assert sounds[0] == sounds[1] == sounds[2]
    assert len(set(sounds[0])) == 3


def encoded(samples: np.ndarray, form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "sound",
    [
        {"array": NOISE.tolist(), "sampling_rate": RATE},
        {"array": NOISE, "sampling_rate": RATE, "path": "a.wav"},
        {"bytes": encoded(NOISE, "FLAC"), "path": "a.flac"},
        SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=NOISE[None], sample_rate=RATE)),
    ],
    ids=["array of floats in a list", "array", "bytes", "decoder"],
)
def test_sound_as_hugging_face_gives_it(sound):
    """A decoder of torchcodec, which the datasets library uses, has ``get_all_samples`` of [channels, n]."""
    audio = Item(audio=sound, question="?").load_audio()
    assert (audio.rate, audio.seconds) == (RATE, 0.5)
    np.testing.assert_allclose(audio.samples, NOISE, atol=2**-15)


def test_sound_inside_a_record_that_cannot_be_decoded():
    def fail():
        raise RuntimeError("no stream")

    for sound in ({"bytes": b"RIFFxxxx", "path": None}, SimpleNamespace(get_all_samples=fail)):
        with pytest.raises(ItemError) as caught:
            Item(audio=sound, question="?", id="q")
        assert (caught.value.item, caught.value.field) == ("q", "audio")
    assert Item(audio={"bytes": None, "path": None}, question="?").audio is None
    assert Item(audio={"bytes": None, "path": "a.wav"}, question="?").audio == "a.wav"
