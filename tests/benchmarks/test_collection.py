"""Collections of items: what is left out, and parts that share no recording."""

from __future__ import annotations

import copy
import io
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.benchmarks import Exclusion, Item, Items
from mata_interp.errors import BenchmarkError

from .conftest import RATE, a_record

CONDITIONS = ("neutral", "congruent", "conflict")


def listening(clips: int, kinds: int = 4, split: str = "", **values) -> list[Item]:
    """``clips`` clips, each under all three conditions, one kind of question a clip."""
    usual = {"audio": "a.wav", "question": "Which?", "choices": ("a", "b"), "answer": "a", "split": split}
    items = []
    for n in range(clips):
        usual |= {"source": f"{split}{n}", "kind": f"kind {n % kinds}"} | values
        items += [
            Item(id=f"{split}{n}-{condition}", condition=condition, **usual) for condition in CONDITIONS
        ]
    return items


def test_a_sequence_of_items():
    made = listening(2)
    items = Items.from_records(made, name="mine")
    assert list(items) == made
    assert items[-1] is made[-1]
    assert list(items[1:3]) == made[1:3]
    assert made[3] in items
    assert repr(items) == "<Items 'mine': 6 items, 0 left out>"
    with pytest.raises(AttributeError):
        items.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_the_hash_is_of_the_content():
    items = Items.from_records(listening(2))
    assert items.sha256 == Items.from_records(listening(2)).sha256
    assert items.sha256 != Items.from_records(listening(2, question="Who?")).sha256
    reverse = Items.from_records(listening(2)[::-1])
    assert items.sha256 != reverse.sha256
    assert items.content_sha256 == reverse.content_sha256
    assert items.content_sha256 != Items.from_records(listening(2, answer="b")).content_sha256


def test_items_can_be_sent_to_another_process():
    items = Items.from_records([*listening(1), Item(audio=(np.zeros(9), 8), question="", id="bad")])
    back = pickle.loads(pickle.dumps(items))
    assert [item.id for item in back] == [item.id for item in items]
    assert back.excluded == items.excluded == (Exclusion("bad", "question", "it is empty."),)
    assert copy.deepcopy(items).sha256 == items.sha256


def test_bad_entries_are_named_and_the_others_kept():
    records = [
        a_record(0),
        a_record(1, choices=[]),
        a_record(2, choices=["a dog", "a bell", "a dog"]),
        a_record(3, answer="thunder"),
        a_record(0, question="Which comes last?"),
        a_record(4, choices={"a": 1}),
        a_record(5, question=None),
        a_record(6, audio_id=7),
        a_record(7, id=""),
        "not a record",
        a_record(8, id=None, answer=["b", {}]),
        Item(audio=None, question="Who?", choices=("x", "y"), id="made"),
    ]
    items = Items.from_records(records)
    assert [item.question for item in items] == ["Which sound comes first?"] * 2 + ["Who?"]
    assert items[0].id == "q0"
    assert len(items[1].id) == 12
    assert [(left.item, left.field) for left in items.excluded] == [
        ("q1", "choices"),
        ("q2", "choices"),
        ("q3", "answer"),
        ("q0", "id"),
        ("q4", "choices"),
        ("q5", "question"),
        ("q6", "audio"),
        ("record 10", "record"),
        ("record 11", "answer"),
    ]
    reasons = [left.reason for left in items.excluded]
    assert "'a dog' is repeated" in reasons[1]
    assert "'thunder' is not among the choices ['a dog', 'a bell', 'rain']" in reasons[2]
    assert reasons[3] == "an earlier item has the same id. Give each its own."


def test_undecodable_audio_is_dropped_and_named(folder):
    (folder / "clips" / "1.wav").unlink()
    (folder / "clips" / "2.wav").write_bytes(b"")
    soundfile.write(folder / "clips" / "3.wav", np.full(9, np.nan, np.float32), RATE, subtype="FLOAT")
    whole = (folder / "clips" / "4.wav").read_bytes()
    (folder / "clips" / "4.wav").write_bytes(whole[: len(whole) // 2])
    records = [a_record(n) for n in range(6)]
    records.insert(2, a_record(1, id="q1 again"))
    records.append(a_record(6, audio_id="../outside.wav"))
    records.append(a_record(7, choices=["one"]))
    items = Items.from_records(records, audio_root=folder).drop_undecodable(RATE)
    assert [item.id for item in items] == ["q0", "q5"]
    result = {left.item: (left.field, left.reason) for left in items.excluded}
    assert result.keys() == {"q1", "q1 again", "q2", "q3", "q4", "q6", "q7"}
    assert {field for field, _ in result.values()} == {"audio", "choices"}
    for name, problem in [
        ("q1", "no such file"),
        ("q1 again", "no such file"),
        ("q2", "empty"),
        ("q3", "NaN"),
        ("q4", "truncated"),
        ("q6", "leads out of audio_root"),
    ]:
        assert problem in result[name][1]


def test_filter():
    items = Items.from_records(listening(4, kinds=2))
    assert [i.id for i in items.filter(condition="conflict")] == [f"{n}-conflict" for n in range(4)]
    both = items.filter(condition=["neutral", "conflict"], kind="kind 1")
    assert {(i.condition, i.kind) for i in both} == {("neutral", "kind 1"), ("conflict", "kind 1")}
    assert len(items.filter(domain="music")) == 0
    with pytest.raises(BenchmarkError, match=r"'colour'.*condition"):
        items.filter(colour="red")


sources = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(sources, st.integers(0, 2**31), st.floats(0, 1))
def test_a_split_separates_the_recordings(names, seed, fraction):
    items = Items.from_records(
        Item(audio=None, question="?", choices=("a", "b"), id=f"{n}", source=source)
        for n, source in enumerate(names)
    )
    chosen, held = (items.split(name, seed, fraction) for name in ("selection", "confirmation"))
    assert not {i.source for i in chosen} & {i.source for i in held}
    assert sorted([i.id for i in chosen] + [i.id for i in held]) == sorted(i.id for i in items)
    assert len({i.source for i in chosen}) == round(fraction * len(set(names)))
    assert [i.id for i in chosen] == [i.id for i in items if i in chosen]  # in the order of the file
    back = Items.from_records(reversed(list(items))).split("selection", seed, fraction)
    assert {i.id for i in back} == {i.id for i in chosen}  # whatever that order is


def test_a_split_depends_on_its_seed():
    items = Items.from_records(listening(60))
    parts = {frozenset(i.id for i in items.split("selection", seed)) for seed in range(5)}
    assert len(parts) == 5
    assert {len(part) for part in parts} == {60}


def test_the_files_own_split_decides():
    items = Items.from_records(listening(3, split="selection") + listening(5, split="test"))
    for seed in (0, 1):
        assert {i.split for i in items.split("selection", seed)} == {"selection"}
        assert {i.split for i in items.split("confirmation", seed)} == {"confirmation"}
    assert len(items.split("confirmation")) == 15
    alone = Items.from_records(listening(5, split="test"))  # without a selection, the file's own name stays
    assert {item.split for item in alone} == {"test"}


def test_a_recording_in_both_parts_is_left_out_of_the_selection():
    leak = Item(audio=None, question="?", choices=("a", "b"), id="leak", source="test0", split="selection")
    items = Items.from_records([*listening(2, split="selection"), leak, *listening(2, split="test")])
    chosen, held = items.split("selection"), items.split("confirmation")
    assert len(chosen) == len(held) == 6
    assert "leak" not in {i.id for i in chosen}
    expected = Exclusion("leak", "split", "its recording is in the confirmation split, too.")
    assert chosen.excluded == held.excluded == (expected,)


def test_a_split_without_sources_is_by_audio(folder):
    copied = (folder / "clips" / "0.wav").read_bytes()
    (folder / "clips" / "5.wav").write_bytes(copied)
    (folder / "clips" / "3.wav").unlink()
    items = Items.from_records([a_record(n) for n in range(6)], audio_root=folder)
    for seed in range(8):
        chosen, held = items.split("selection", seed, 0.5), items.split("confirmation", seed, 0.5)
        assert (len({i.cluster for i in chosen}), len({i.cluster for i in held})) == (2, 2)
        assert ("q0" in {i.id for i in chosen}) == ("q5" in {i.id for i in chosen})
        assert len(chosen) + len(held) == 5
        assert [(left.item, left.field) for left in chosen.excluded] == [("q3", "audio")]


def test_a_split_has_two_names():
    with pytest.raises(BenchmarkError, match=r"'test'.*'selection'.*'confirmation'"):
        Items.from_records(listening(1)).split("test")


@pytest.mark.parametrize("n", [3, 12, 30, 59, 100])
def test_a_sample_is_balanced_and_has_whole_clips(n):
    items = Items.from_records(listening(40, kinds=5))
    part = items.sample(n, seed=1)
    assert n - 2 <= len(part) <= n
    assert set(Counter(i.source for i in part).values()) == {3}
    cells = Counter((i.condition, i.kind) for i in part)
    assert max(cells.values()) - min(cells.values()) <= 1
    assert [i.id for i in part] == [i.id for i in items if i in part]


def test_a_sample_depends_on_its_seed_and_may_be_all_items():
    items = Items.from_records(listening(40))
    assert len({frozenset(i.id for i in items.sample(12, seed)) for seed in range(5)}) == 5
    assert [i.id for i in items.sample(12)] == [i.id for i in items.sample(12)]
    assert list(items.sample(1000)) == list(items)
    assert len(items.sample(1)) == 3
    assert len(items[:0].sample(5)) == 0
    with pytest.raises(BenchmarkError, match=r"sample\(0\)"):
        items.sample(0)


def test_a_sample_finds_clips_by_their_audio(folder):
    records = [a_record(n, id=f"{n}{q}") for n in range(6) for q in "ab"]
    part = Items.from_records(records, audio_root=folder).sample(4)
    assert set(Counter(str(i.audio) for i in part).values()) == {2}
    assert len(part) == 4


@pytest.mark.parametrize("records", ["listening", {"id": "q0"}, None, Item(audio=None, question="?")])
def test_what_is_no_list_of_records_is_refused(records):
    with pytest.raises(BenchmarkError, match="list of records"):
        Items.from_records(records)


def test_a_table_of_pandas_has_missing_values(folder):
    """From ``to_dict("records")``, where missing text is NaN, and from Parquet, where options are arrays."""
    text = "id,audio_id,question,choices,answer,caption,condition,url\n"
    rows = [
        f"q{n},clips/{n}.wav,Which?,a|b,a,{rest}" for n, rest in enumerate(["A.,conflict,u0", ",,", ",,"])
    ]
    table = pd.read_csv(io.StringIO(text + "\n".join(rows)))
    items = Items.from_records(table.to_dict("records"), audio_root=folder)
    assert [item.caption for item in items] == ["A.", "", ""]
    assert [item.condition for item in items] == ["conflict", "", ""]
    assert len({item.cluster for item in items}) == 3
    arrays = [{**row, "choices": np.array(["a", "b"])} for row in table.to_dict("records")]
    assert [item.id for item in Items.from_records(arrays)] == ["q0", "q1", "q2"]


def test_messages_are_short(folder):
    audio = {"bytes": bytes(320_000), "path": None}
    records = [a_record(0, audio_id=None, audio=audio), a_record(1, choices="x" * 10_000), ["y" * 10_000]]
    items = Items.from_records([{k: v for k, v in records[0].items() if k != "audio_id"}, *records[1:]])
    assert [left.field for left in items.excluded] == ["audio", "choices", "record"]
    assert max(len(left.reason) for left in items.excluded) < 500
