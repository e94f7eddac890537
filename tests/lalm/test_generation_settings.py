"""Settings of a model's generation_config.json: the same with and without an edit, or refused by name.

The reference of an edited answer is the model's own ``generate`` inside the interception, and of an unedited
one the same without.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import StoppingCriteriaList, StopStringCriteria

import mata_interp as mi
from mata_interp import Mata
from mata_interp.errors import ModelError
from mata_interp.interventions import Editing
from mata_interp.lalm import LALM
from mata_interp.lalm.calls.edited_calls import edited_calls
from mata_interp.lalm.generation_settings import generation_arguments, settings_in_force
from tests.tiny import tiny_qwen2_audio

MATA = Mata(3.0, [1, 2], "add")
STEPS = 8


@pytest.fixture(scope="module")
def lalm() -> LALM:
    return LALM(*tiny_qwen2_audio(seed=0))


@pytest.fixture
def settings(lalm, monkeypatch):
    """``settings(name=value)`` puts generation settings on the model until the test ends."""

    def put(**values: Any) -> None:
        for name, value in values.items():
            monkeypatch.setattr(lalm.model.generation_config, name, value)

    return put


@pytest.fixture
def prompt(lalm, items):
    return lalm.prompt(items)


def own_generate(lalm: LALM, prompt, edit: Mata | None, **more: Any) -> torch.Tensor:
    """What the model's own greedy ``generate`` answers, under an edit or none."""

    def generate() -> torch.Tensor:
        with torch.inference_mode():
            greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
            out = lalm.model.generate(**prompt.inputs, max_new_tokens=STEPS, **greedy, **more)
        return out[:, prompt.width :]

    if edit is None:
        return generate()
    editing = Editing((edit,), prompt.groups, lalm.structure.heads)
    with edited_calls(lalm.structure, editing) as run:
        return run(generate)


OF_COMPUTATION = {
    "no cache": {"use_cache": False},
    "a dictionary": {"return_dict_in_generate": True, "output_scores": True, "output_attentions": True},
    "several sequences": {"num_return_sequences": 2, "num_beams": 2},
    "beams": {"num_beams": 3, "length_penalty": 0.5, "early_stopping": True},
    "a static cache": {"cache_implementation": "static", "max_cache_len": 4096},
    "sampling": {"do_sample": True, "temperature": 2.0, "top_k": 5, "top_p": 0.5, "min_p": 0.1},
    "lengths and time": {"max_length": 3, "max_time": 1e-9},
    "chunks": {"prefill_chunk_size": 4},
    "guesses": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("name", OF_COMPUTATION)
def test_how_an_answer_is_searched_and_kept_changes_none(lalm, prompt, items, settings, name):
    plain, edited = own_generate(lalm, prompt, None), own_generate(lalm, prompt, MATA)
    assert not torch.equal(plain, edited), "an edit that changes no answer shows nothing"
    identity = lalm.fingerprint()
    settings(**OF_COMPUTATION[name])
    assert torch.equal(lalm.generate(prompt, max_new_tokens=STEPS), plain)
    assert torch.equal(lalm.generate(prompt, MATA, max_new_tokens=STEPS), edited)
    short = mi.Decoding(max_new_tokens=STEPS)
    swept = mi.sweep_generate(lalm, items, {"none": None, "mata": MATA}, decoding=short, progress=False)
    assert swept.attrs["looped"] == 0
    answers = [lalm.answer(prompt, edit, decoding=short).texts for edit in (None, MATA)]
    assert swept["text"].values.T.tolist() == [list(texts) for texts in answers]
    assert lalm.fingerprint() == identity, "the same answers, the same model"


def of_words(lalm: LALM, prompt) -> dict[str, dict[str, Any]]:
    """Settings that change the answers to these prompts."""
    output = own_generate(lalm, prompt, None)
    first, second = (int(token) for token in output[0, :2])
    return {
        "a penalty": {"repetition_penalty": 1.8},
        "no word twice": {"no_repeat_ngram_size": 1},
        "bad words": {"bad_words_ids": [[first]]},
        "suppressed tokens": {"suppress_tokens": [first], "begin_suppress_tokens": [second]},
        "a bias": {"sequence_bias": [[[first], -50.0]]},
        "a forced end": {"forced_eos_token_id": lalm.model.generation_config.eos_token_id},
        "an early end": {"eos_token_id": [second, 10**6]},
        "a least length": {"eos_token_id": first, "min_new_tokens": 3},
    }


@pytest.mark.parametrize(
    "name",
    ["a penalty", "no word twice", "bad words", "suppressed tokens", "a bias", "a forced end", "an early end",
     "a least length"],
)  # fmt: skip
def test_settings_of_words_hold_with_and_without_an_edit(lalm, prompt, items, settings, name):
    before, identity = own_generate(lalm, prompt, None), lalm.fingerprint()
    settings(**of_words(lalm, prompt)[name])
    plain, edited = own_generate(lalm, prompt, None), own_generate(lalm, prompt, MATA)
    assert not torch.equal(plain, before), "a setting that changes no answer shows nothing"
    assert torch.equal(lalm.generate(prompt, max_new_tokens=STEPS), plain)
    assert torch.equal(lalm.generate(prompt, MATA, max_new_tokens=STEPS), edited)
    short = mi.Decoding(max_new_tokens=STEPS)
    swept = mi.sweep_generate(lalm, items, {"none": None, "mata": MATA}, decoding=short, progress=False)
    texts = [lalm.answer(prompt, edit, decoding=short).texts for edit in (None, MATA)]
    assert swept["text"].values.T.tolist() == [list(output) for output in texts]
    assert lalm.fingerprint()["generation_sha256"] != identity["generation_sha256"]


@pytest.mark.parametrize("ends", [True, False], ids=["with an end token", "without"])
def test_stop_strings_end_rows_and_are_counted(lalm, prompt, items, settings, ends):
    tokenizer = lalm.processor.tokenizer
    if not ends:
        settings(eos_token_id=None)
    output = own_generate(lalm, prompt, MATA)
    string = next(
        text
        for token in output[0, 2:].tolist()
        if (text := tokenizer.decode([token])).isascii() and text.strip()
    )
    settings(stop_strings=[string])
    criteria = StoppingCriteriaList([StopStringCriteria(tokenizer, string)])
    expected = own_generate(lalm, prompt, MATA, stop_strings=None, stopping_criteria=criteria)
    result = lalm.answer(prompt, MATA, max_new_tokens=STEPS)
    for row, length in enumerate(result.lengths):
        assert result.tokens[row, :length].tolist() == expected[row, :length].tolist()
        stopped = string in tokenizer.decode(result.tokens[row, :length])
        assert stopped == bool(result.stopped[row]) or not stopped
        assert set(result.tokens[row, length:].tolist()) <= {tokenizer.pad_token_id}
    assert result.stopped[0]
    assert result.lengths[0] < STEPS
    assert result.texts[0].endswith(string)
    # a row that ended counts to its end: its dose and its trace are those of the row alone
    alone = lalm.answer(lalm.prompt(items[0]), MATA, max_new_tokens=STEPS)
    assert alone.tokens[0, : alone.lengths[0]].tolist() == result.tokens[0, : result.lengths[0]].tolist()
    assert alone.dose["kl"][0] == pytest.approx(result.dose["kl"][0], abs=1e-5)
    trace = mi.trace(lalm, prompt, "generated", max_new_tokens=STEPS, progress=False)
    assert trace["n_queries"].values.tolist() == lalm.answer(prompt, max_new_tokens=STEPS).lengths.tolist()


def test_stop_strings_need_a_tokenizer(lalm, prompt, settings):
    settings(stop_strings="x")
    bare = LALM(lalm.model)
    with pytest.raises(ModelError, match="stop_strings"):
        bare.generate(prompt, max_new_tokens=2)


@pytest.mark.parametrize(
    ("name", "value"), [("guidance_scale", 1.5), ("token_healing", True), ("dola_layers", "low")]
)
def test_what_cannot_be_edited_is_refused_by_name(lalm, prompt, settings, name, value):
    settings(**{name: value})
    for edit in (None, MATA):
        with pytest.raises(ModelError, match=name):
            lalm.generate(prompt, edit, max_new_tokens=2)
    assert lalm.logits(prompt).shape[0] == 3  # what generates nothing goes on


def test_values_that_change_nothing_are_not_refused(lalm, settings):
    settings(guidance_scale=1.0, token_healing=False)
    assert generation_arguments(lalm.model)["use_cache"] is True
    assert "guidance_scale" in settings_in_force(lalm.model)
