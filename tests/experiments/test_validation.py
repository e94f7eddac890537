"""Items are measured without building each prompt, and give the lengths of the prompts that are built."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mata_interp.benchmarks import Items
from mata_interp.errors import ItemError, RunWarning
from mata_interp.experiments import run
from mata_interp.experiments.validation import validate_items
from mata_interp.lalm import LALM
from tests.support.sounds import RATE, make_items


@pytest.fixture
def items(tmp_path):
    """Three items for each of three clips, and one clip longer than the model takes, with two items."""
    made = make_items(tmp_path, clips=3)
    long = (np.random.default_rng(0).normal(size=3 * RATE).astype(np.float32), RATE)
    return [*made, *(replace(item, id=f"long {item.id}", audio=long, source="long") for item in made[:2])]


@pytest.mark.parametrize("format", ["options", "letters"])
def test_lengths_are_those_of_the_prompts(tiny_lalm, items, format):
    validated = validate_items(tiny_lalm, items, progress=False, format=format)
    prompts = {item.id: tiny_lalm.prompt(item, format=format) for item in items}
    assert validated.lengths == {id: prompt.width for id, prompt in prompts.items()}
    assert len(set(validated.lengths.values())) > 3
    assert validated.truncated == {id for id, prompt in prompts.items() if prompt.truncated_seconds[0] > 0}
    assert len(validated.truncated) == 2
    assert [digest.split("-")[1] for digest in validated.digests.values()] == [
        item.load_audio(tiny_lalm.sampling_rate).sha256 for item in items
    ]


def test_one_prompt_is_built_for_each_length_of_audio(tiny_lalm, items, monkeypatch):
    built, build = [], LALM.prompt
    monkeypatch.setattr(LALM, "prompt", lambda *args, **kw: (built.append(args), build(*args, **kw))[1])
    validate_items(tiny_lalm, items, progress=False)
    assert len(built) == 4


def test_a_special_token_is_found_without_building_the_prompt(tiny_lalm, items):
    word = tiny_lalm.processor.tokenizer.convert_ids_to_tokens(tiny_lalm.structure.audio_token_id)
    spoilt = replace(items[1], question=f"What is {word}?")
    with pytest.warns(RunWarning, match=r"1 left out.*'question'"):
        validated = validate_items(tiny_lalm, [items[0], spoilt], progress=False)
    assert [row.field for row in validated.excluded] == ["question"]


def test_bad_items_are_left_out_or_raised(tiny_lalm, items):
    gone = replace(items[0], id="gone", audio="gone.wav")
    benchmark = Items.from_records([*items[:2], gone], "made")
    with pytest.warns(RunWarning, match=r"made: 2 items; 1 left out.*'gone'"):
        validated = validate_items(tiny_lalm, benchmark, progress=False)
    assert [(row.item, row.field) for row in validated.excluded] == [("gone", "audio")]
    with pytest.raises(ItemError, match="'gone'"):
        run(tiny_lalm, benchmark, {"baseline": None}, progress=False, strict=True)


def test_a_run_in_memory_is_saved_and_loaded(tiny_lalm, items, tmp_path):
    done = run(tiny_lalm, items[:4], {"baseline": None}, progress=False, batch_size=3)
    assert done.path is None
    again = type(done).load(done.save(tmp_path / "saved"))
    assert again.records.equals(done.records)
    assert (again.manifest, again.missing) == (done.manifest, 0)
    assert len(repr(again)) < 200
