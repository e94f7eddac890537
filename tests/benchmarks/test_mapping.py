"""Field mappings: the forms of a field, those that ship, records that become several items."""

from __future__ import annotations

import json

import pytest

from mata_interp.benchmarks import FieldMapping, load_benchmark, read_mapping, shipped_mappings
from mata_interp.errors import BenchmarkError

from .conftest import RATE, write_json


def test_every_shipped_mapping_is_marked_as_not_verified():
    assert shipped_mappings() == ("air-bench", "alme", "mcr-bench", "mmau-pro", "mmsu")
    for name in shipped_mappings():
        mapping = read_mapping(name)
        assert not mapping.verified
        assert mapping.note
        assert mapping.source
        with pytest.raises(BenchmarkError, match=f"{name}.*path="):
            load_benchmark(name)


def test_mmsu(folder):
    record = {
        "id": "code_1",
        "audio_path": "clips/0.wav",
        "question": "Which?",
        "choice_a": "rising",
        "choice_b": "falling",
        "choice_c": "",
        "choice_d": None,
        "answer_gt": "falling",
        "task_name": "intonation",
        "category": "Perception",
    }
    letter = record | {"id": "code_2", "answer_gt": "B"}
    wrong = record | {"id": "code_3", "answer_gt": "level"}
    items = load_benchmark("mmsu", path=write_json(folder / "mmsu.json", [record, letter, wrong]))
    assert [item.answer for item in items] == ["falling", "falling"]
    assert (items[0].choices, items[0].kind, items[0].domain) == (
        ("rising", "falling"),
        "intonation",
        "speech",
    )
    assert items[0].extra["category"] == "Perception"
    assert [(left.item, left.field) for left in items.excluded] == [("code_3", "answer")]
    assert len(items.drop_undecodable(RATE)) == 2


def test_mmau_pro_keeps_items_with_options(folder):
    record = {
        "id": "p0",
        "audio_path": ["clips/0.wav"],
        "question": "Which?",
        "choices": ["a dog", "a bell"],
        "answer": "a bell",
        "category": "sound",
        "task_classification": "closed",
    }
    two = record | {"id": "p1", "audio_path": ["clips/0.wav", "clips/1.wav"]}
    open_one = record | {"id": "p2", "choices": None, "answer": "It barks."}
    items = load_benchmark("mmau-pro", path=write_json(folder / "pro.json", [record, two, open_one]))
    assert [item.clips for item in items] == [("clips/0.wav",), ("clips/0.wav", "clips/1.wav")]
    assert {left.item: left.field for left in items.excluded} == {"p2": "choices"}


def test_air_bench_has_a_folder_for_each_task(folder):
    record = {
        "uniq_id": 7,
        "path": "clip.wav",
        "task_name": "Sound_AQA",
        "dataset_name": "avqa",
        "question": "Which?",
        "choice_a": "a dog",
        "choice_b": "a bell",
        "answer_gt": "a dog",
    }
    grounding = record | {"uniq_id": 8, "task_name": "Audio_Grounding", "dataset_name": "grounding"}
    items = load_benchmark("air-bench", path=write_json(folder / "meta.json", [record, grounding]))
    assert [item.audio for item in items] == [
        "Sound_AQA_avqa/clip.wav",
        "Audio_Grounding_grounding/clip.flac",
    ]
    assert [item.id for item in items] == ["7", "8"]


def test_mcr_bench_has_one_item_for_each_text(folder):
    records = [
        {
            "audio": f"clips/{n}.wav",
            "gt": emotion,
            "faithful": f"The speaker sounds {emotion}.",
            "adversarial": f"The speaker sounds {other}.",
            "irrelevant": "Bread is baked.",
            "neutral": "Which emotion is it?",
        }
        for n, (emotion, other) in enumerate(
            [("angry", "happy"), ("happy", "cheerful"), ("sad", "angry or happy")]
        )
    ]
    items = load_benchmark("mcr-bench", path=write_json(folder / "SER.json", records))
    assert len(items) == 12
    assert items[0].choices == ("angry", "happy", "sad")
    conflicts = items.filter(condition="conflict")
    assert [item.caption_answer for item in conflicts] == [
        "happy",
        None,
        None,
    ]  # only where the caption names exactly one
    assert [item.caption_answer for item in items.filter(condition="congruent")] == ["angry", "happy", "sad"]
    assert {item.caption for item in items.filter(condition="irrelevant")} == {"Bread is baked."}
    assert {item.caption for item in items.filter(condition="neutral")} == {""}
    assert items[0].id == "clips/0.wav:neutral"
    assert {item.cluster for item in items} == {f"clips/{n}.wav" for n in range(3)}
    chosen, held = items.split("selection"), items.split("confirmation")
    assert (len(chosen), len(held)) == (4, 8)
    many = [
        record | {"gt": f"free answer {n}", "audio": "clips/0.wav"} for n, record in enumerate(records * 5)
    ]
    left_out = load_benchmark("mcr-bench", path=write_json(folder / "AQA.json", many)).excluded
    assert len(left_out) == 60
    assert "15 values: too many" in left_out[0].reason


def test_alme_looks_inside_objects(folder):
    record = {
        "stimulus_id": "en_1",
        "audio_path": "clips/0.wav",
        "language": "EN",
        "transcript": "He came at six.",
        "conflict_text": "He came at nine.",
        "question": {
            "question_text": "When did he come?",
            "choices": ["at six", "at nine"],
            "correct_answer": "at six",
            "flip_type": "number",
        },
    }
    (folder / "stimuli.jsonl").write_text(json.dumps(record), encoding="utf-8")
    items = load_benchmark("alme", path=folder / "stimuli.jsonl")
    by = {item.condition: item for item in items}
    assert list(by) == ["neutral", "congruent", "conflict", "text only"]
    assert (by["conflict"].caption, by["conflict"].caption_answer) == ("He came at nine.", "at nine")
    assert (by["congruent"].caption, by["congruent"].caption_answer) == ("He came at six.", "at six")
    assert (by["text only"].audio, by["neutral"].caption) == (None, "")
    assert {item.kind for item in items} == {"number"}
    assert by["neutral"].extra["language"] == "EN"


def test_a_new_mapping(folder):
    record = {
        "name": "q",
        "file": "0",
        "prompt": "Who?",
        "options": ["x", "y"],
        "right": "(b)",
        "set": "selection",
    }
    mapping = {
        "title": "Mine",
        "fields": {
            "id": "{set}-{name}",
            "audio": "clips/{file}.wav",
            "question": "prompt",
            "choices": "options",
            "answer": {"option": "right"},
            "split": "set",
        },
    }
    data = write_json(folder / "mine.json", [record])
    for fields in (mapping, write_json(folder / "map.json", mapping)):
        item = load_benchmark(data, fields=fields, subset="selection")[0]
        assert (item.id, item.answer, item.split) == ("selection-q", "y", "selection")
        assert item.load_audio(RATE).seconds == 0.5
    escaping = write_json(folder / "bad.json", [record | {"file": "../../secret"}])
    assert (
        "leads out of audio_root"
        in load_benchmark(escaping, fields=mapping).drop_undecodable().excluded[0].reason
    )
    gap = load_benchmark(write_json(folder / "gap.json", [record, {"name": "r"}]), fields=mapping)
    assert [(left.item, left.field) for left in gap.excluded] == [("record 2", "id")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fields": {"sound": "a"}}, "no field 'sound'"),
        ({"fields": {"audio": 3}}, "'audio' is 3"),
        ({"fields": {"audio": {"lookup": "a"}}}, "'audio' is {'lookup': 'a'}"),
        ({"fields": {"audio": "a"}, "colour": 1}, "colour"),
        ({"fields": ["audio"]}, "audio"),
        ([], "mine"),
    ],
)
def test_impossible_mappings_are_refused(content, message):
    with pytest.raises(BenchmarkError, match=message):
        FieldMapping.from_dict(content, "mine")


def test_missing_columns_and_files(folder):
    data = write_json(folder / "a.json", [{"audio": "x"}])
    with pytest.raises(BenchmarkError, match=r"'stimulus_id'.*'audio'"):
        load_benchmark("alme", path=data)
    with pytest.raises(BenchmarkError, match=r"'none\.json'"):
        load_benchmark(data, fields="none.json")
