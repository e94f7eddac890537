"""The run folder: whose it is, what is in it, what is damaged."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from mata_interp.benchmarks import Item
from mata_interp.errors import RunError, RunWarning
from mata_interp.execution.comparison import first_difference
from mata_interp.execution.files import write_json
from mata_interp.experiments.folder import RunFolder, slugs
from mata_interp.experiments.records import answer_records
from mata_interp.experiments.results import load_run

ITEMS = [
    Item(audio="a.wav", question="?", choices=["x", "y"], answer="x", id=f"i{n}", source="s")
    for n in range(4)
]
ASKED = {"audio_from": None, "audio_seconds": 1.0, "truncated_seconds": 0.0}
ASKED |= {"prompt_tokens": 9, "audio_tokens": 3, "padded_width": 9}
MANIFEST = {
    "version": 3,
    "model": {"name": "m", "weights_sha256": "w"},
    "data": {"sha256": "d"},
    "prompt_format": "options",
    "seed": 0,
    "batch_size": 2,
    "conditions": {"plain": {"audio": "own"}, "other audio": {"audio": "other"}},
    "excluded": [],
    "batches": [{"items": ["i0", "i1"]}, {"items": ["i2", "i3"]}],
    "audio_from": {},
    "environment": {"threads": 1},
    "created": "2026-01-01",
}


def part(condition: str, batch: int):
    items = ITEMS[2 * batch : 2 * batch + 2]
    logprob = np.array([[-1.0, -2.0], [-3.0, -0.5]])
    scores = SimpleNamespace(logprob=logprob, tokens=np.ones((2, 2), int), dose={})
    return answer_records(condition, batch, items, [ASKED] * 2, scores)


def filled(path) -> RunFolder:
    folder = RunFolder.start(path, MANIFEST)
    for condition, batch in reversed(list(folder.expected())):  # the order of writing does not matter
        folder.write_part(condition, batch, part(condition, batch))
    return folder


def test_a_whole_folder_is_read_in_order_of_condition_and_item(tmp_path):
    filled(tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.missing == 0
    assert run.records["condition"].tolist() == ["plain"] * 4 + ["other audio"] * 4
    assert run.records["item"].tolist() == ["i0", "i1", "i2", "i3"] * 2
    assert run.records["correct"].tolist() == [True, False] * 4
    assert sorted(os.listdir(tmp_path / "run" / "parts")) == [
        f"{name}--0000{batch}.parquet" for name in ("other-audio", "plain") for batch in (0, 1)
    ]


def test_the_same_run_goes_on_and_what_does_not_matter_may_differ(tmp_path):
    filled(tmp_path / "run")
    again = {**MANIFEST, "created": "2027-01-01", "environment": {"threads": 2}}
    folder = RunFolder.start(tmp_path / "run", again)
    assert folder.manifest["created"] == "2026-01-01"
    done, damaged = folder.read_parts()
    assert (len(done), damaged) == (4, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "m", "weights_sha256": "v"}}, r"model\.weights_sha256 is 'w', here it is 'v'"),
        ({"data": {"sha256": "e"}}, r"data\.sha256 is 'd', here it is 'e'"),
        (
            {"conditions": {"plain": {"audio": "none"}}},
            r"conditions\.plain\.audio is 'own', here it is 'none'",
        ),
        ({"conditions": {"plain": {"audio": "own"}}}, r"conditions\.other audio is .*here it is None"),
        ({"seed": 1}, "seed is 0, here it is 1"),
        ({"batches": MANIFEST["batches"][:1]}, r"batches is \[.*here it is \["),
        ({"excluded": [{"item": "i9"}]}, "excluded is "),
    ],
)
def test_a_folder_of_another_run_is_refused_by_the_field_that_differs(tmp_path, change, message):
    filled(tmp_path / "run")
    with pytest.raises(RunError, match=message + r".*Choose another folder \(out="):
        RunFolder.start(tmp_path / "run", MANIFEST | change)


def test_the_first_difference_tells_true_from_one():
    assert first_difference({"a": [1, {"b": 1.0}]}, {"a": [1, {"b": 1.0}]}) is None
    assert first_difference({"a": [1, {"b": 1.0}]}, {"a": [1, {"b": 2.0}]}) == ("a[1].b", 1.0, 2.0)
    assert first_difference({"a": 1}, {"a": True}) == ("a", 1, True)


def test_condition_names_that_look_alike_keep_files_apart():
    names = ["a b", "a-b", "A B", "β", "γ", "mata α=0.1", "../up"]
    names_by_slug = slugs(names)
    assert len(set(names_by_slug.values())) == len(names)
    assert all(
        slug and slug.isascii() and "/" not in slug and slug == slug.lower()
        for slug in names_by_slug.values()
    )
    assert slugs(["mata on text"]) == {"mata on text": "mata-on-text"}


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(bytes(data))


def damage_empty(path):
    path.write_bytes(b"")


def damage_swap(path):
    path.write_bytes(path.with_name("plain--00000.parquet").read_bytes())


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_empty, damage_swap])
def test_a_damaged_part_is_named_and_its_rows_are_not_used(tmp_path, damage):
    folder = filled(tmp_path / "run")
    damage(folder.part_path("plain", 1))
    done, damaged = folder.read_parts()
    assert set(done) == set(folder.expected()) - {("plain", 1)}
    assert len(damaged) == 1
    assert damaged[0].startswith("plain--00001.parquet (")
    with pytest.warns(RunWarning, match=r"1 part\(s\) are missing \(1 of them damaged: plain--00001"):
        run = load_run(tmp_path / "run")
    assert (run.missing, len(run.records)) == (1, 6)


def test_leftovers_and_half_made_folders_are_no_obstacle(tmp_path):
    (tmp_path / "run" / "parts").mkdir(parents=True)
    (tmp_path / "run" / "parts").rmdir()
    (tmp_path / "run" / ".manifest.json.elsewhere.99.tmp").write_text("{half")
    folder = filled(tmp_path / "run")
    (tmp_path / "run" / "parts" / ".plain--00000.parquet.elsewhere.99.tmp").write_text("half")
    assert len(load_run(folder.path).records) == 8


def test_folders_that_are_not_ours_are_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(RunError, match=r"no manifest\.json but holds other things: \['chapter\.tex'\]"):
        RunFolder.start(tmp_path / "thesis", MANIFEST)
    with pytest.raises(RunError, match="is a file"):
        RunFolder.start(tmp_path / "thesis" / "chapter.tex", MANIFEST)
    with pytest.raises(RunError, match="cannot write"):
        RunFolder.start(tmp_path / "thesis" / "chapter.tex" / "run", MANIFEST)
    with pytest.raises(RunError, match="no run folder"):
        load_run(tmp_path / "thesis")
    (tmp_path / "thesis" / "manifest.json").write_text('{"title": "thesis"}')
    with pytest.raises(RunError, match="not a run's manifest"):
        RunFolder.start(tmp_path / "thesis", MANIFEST)
    assert sorted(os.listdir(tmp_path / "thesis")) == ["chapter.tex", "manifest.json"]


def test_any_flipped_bit_is_found_or_changes_nothing(tmp_path):
    folder = filled(tmp_path / "run")
    path, whole = folder.part_path("plain", 1), folder.part_path("plain", 1).read_bytes()
    good = json.dumps(folder.read_parts()[0]["plain", 1].to_pylist())
    names_by_slug, rng = 0, np.random.default_rng(0)
    for place in rng.choice(len(whole), 300, replace=False):
        data = bytearray(whole)
        data[place] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(data))
        parts, damaged = folder.read_parts()
        names_by_slug += len(damaged)
        assert damaged or json.dumps(parts["plain", 1].to_pylist()) == good
    assert names_by_slug > 150


@pytest.mark.parametrize("version", [1, 2, 99, None])
def test_a_folder_of_another_format_is_refused(tmp_path, version):
    folder = RunFolder.start(tmp_path / "run", MANIFEST)
    write_json(folder.path / "manifest.json", {**MANIFEST, "version": version})
    for read in (lambda: load_run(folder.path), lambda: RunFolder.start(folder.path, MANIFEST)):
        with pytest.raises(RunError, match=f"version {version or 'none'}, .* reads version 3"):
            read()


def test_whoever_comes_second_keeps_the_manifest_of_the_first(tmp_path, monkeypatch):
    """Two processes find no manifest; the other one writes its own a moment earlier."""

    def too_late(path, manifest, new):
        write_json(path, {**MANIFEST, "created": "2027-01-01"})
        write_json(path, manifest, new=new)

    monkeypatch.setattr("mata_interp.experiments.folder.write_json", too_late)
    assert RunFolder.start(tmp_path / "run", MANIFEST).manifest["created"] == "2027-01-01"
    with pytest.raises(RunError, match="seed is 0, here it is 1"):
        RunFolder.start(tmp_path / "other", {**MANIFEST, "seed": 1})
