"""One reading of a prompt serves any number of interventions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mata_interp.interventions import Mata
from mata_interp.interventions.catalogue import Vaf, ValueScaling
from mata_interp.lalm import LALM
from mata_interp.lalm.scoring import _read_and_score, option_logprobs, read
from tests.support.decoder_passes import tokens_of_passes
from tests.tiny import tiny_qwen2_audio

EDITS = [
    None,
    Mata(0.7, [1, 2]),
    (Mata(1.0, [0]), Mata(0.5, [0, 3], keys="text")),
    Mata(2.0, [1], phase="decode"),
]


def bits(scores):
    return scores.logprob.tobytes(), {name: dose.tobytes() for name, dose in scores.dose.items()}


def test_each_is_bit_for_bit_what_it_is_alone_and_in_any_order(tiny_lalm, prompt, items):
    choices = [item.choices for item in items]
    together = [bits(scores) for scores in tiny_lalm.score_each(prompt, choices, EDITS)]
    assert len(set(map(str, together))) == len(EDITS)
    assert [bits(tiny_lalm.score(prompt, choices, edit)) for edit in EDITS] == together
    assert [bits(scores) for scores in tiny_lalm.score_each(prompt, choices, EDITS[::-1])] == together[::-1]


@torch.inference_mode()
def test_a_prompt_that_cannot_be_stepped_back_in_is_read_without_its_last_token(
    tiny_lalm, prompt, items, monkeypatch
):
    from transformers.cache_utils import DynamicLayer

    choices = [item.choices for item in items]
    shared = tiny_lalm.score_each(prompt, choices, EDITS)
    monkeypatch.setattr(DynamicLayer, "is_croppable", False)
    back = read(tiny_lalm.model, tiny_lalm.prepare(prompt))
    assert back.get_seq_length() == prompt.width - 1
    for whole, short in zip(tiny_lalm.score_each(prompt, choices, EDITS), shared, strict=True):
        np.testing.assert_allclose(whole.logprob, short.logprob, atol=1e-5)
        for name, dose in whole.dose.items():
            np.testing.assert_allclose(dose, short.dose[name], atol=1e-5)


@torch.inference_mode()
def test_a_prompt_that_ends_in_audio_is_read_whole(tiny_lalm, prompt):
    audio = prompt.groups["audio"].clone()
    audio[1, -1] = True
    ending = replace(prompt, groups={**prompt.groups, "audio": audio})
    assert read(tiny_lalm.model, tiny_lalm.prepare(ending)) is None


@torch.inference_mode()
def test_a_reading_is_left_as_it_was(tiny_lalm, prompt, items):
    prompt = tiny_lalm.prepare(prompt)
    options = [[[7, 8, 9], [10]]] * prompt.size
    cache = read(tiny_lalm.model, prompt)
    first = option_logprobs(tiny_lalm.model, prompt, options, cache)
    assert cache.get_seq_length() == prompt.width - 1
    assert option_logprobs(tiny_lalm.model, prompt, options, cache).tobytes() == first.tobytes()


TEXT_EDITS = [
    Mata(0.8, [1, 2], queries="text"),
    Mata(1.0, [0, 2], "add", phase="prefill", queries="text"),
    Mata(1.0, [1], "knockout", heads=[0, 2], queries="text"),
    (Mata(0.5, [1], queries="text"), Mata(1.0, [2], "add", keys="text")),
    Vaf([1, 2], 1.5, 0.8),
    ValueScaling([1], 2.0, "question", queries="text"),
]


@torch.inference_mode()
def test_tokens_that_are_read_twice_enter_the_dose_once(tiny_lalm, prompt, items, monkeypatch):
    """Rows with audio beside the text of others, so that edits of text read the prompt under the edit."""
    from transformers.cache_utils import DynamicLayer

    choices = [item.choices for item in items]
    shared = tiny_lalm.score_each(prompt, choices, TEXT_EDITS)
    monkeypatch.setattr(DynamicLayer, "is_croppable", False)
    for whole, short in zip(tiny_lalm.score_each(prompt, choices, TEXT_EDITS), shared, strict=True):
        np.testing.assert_allclose(whole.logprob, short.logprob, atol=1e-5)
        for name, dose in whole.dose.items():
            np.testing.assert_allclose(dose, short.dose[name], atol=1e-5)


@torch.inference_mode()
def test_edits_of_text_read_the_text_alone_again(tiny_lalm, items):
    """On the prefix of a prompt; what each scores, and its dose, are those of a prefill of its own."""
    one = items[:1]
    prompt, choices = tiny_lalm.prepare(tiny_lalm.prompt(one)), [item.choices for item in one]
    edits = [None, *TEXT_EDITS]
    tokens = tokens_of_passes(tiny_lalm, lambda: tiny_lalm.score_each(prompt, choices, edits))
    audio = prompt.groups["audio"][0]
    text = prompt.width - 1 - int(audio.nonzero().max())
    assert tokens.count(prompt.width) == 1
    assert 0 < max(size for size in tokens if size < prompt.width) < text
    shared = tiny_lalm.score_each(prompt, choices, edits)
    for edit, scores in zip(TEXT_EDITS, shared[1:], strict=True):
        bound = tiny_lalm._bind(prompt, edit)
        alone = tiny_lalm._run(
            partial(_read_and_score, tiny_lalm.model, prompt,
                    [tiny_lalm.option_tokens(item, item.choices) for item in one], bound, 32, None, None),
            bound,
        )  # fmt: skip
        np.testing.assert_allclose(scores.logprob, alone, atol=1e-5, rtol=1e-6)
        assert np.abs(scores.logprob - shared[0].logprob).max() > 1e-3
        dose = bound.dose()
        assert list(dose) == list(scores.dose)
        for name, values in dose.items():
            np.testing.assert_allclose(scores.dose[name], values, atol=1e-6, rtol=1e-5)


def test_where_text_cannot_be_read_alone_the_prompt_is_read_again(tiny_lalm, items, prompt):
    """Rows with audio beside the text of others, and half precision, as before to the bit."""
    choices, edits = [item.choices for item in items], [None, TEXT_EDITS[0]]
    prompt = tiny_lalm.prepare(prompt)
    first = int((prompt.groups["audio"].cumsum(1) == 0).int().argmin(1).min())
    assert prompt.groups["audio"][:, first:].any()
    assert (
        tokens_of_passes(tiny_lalm, lambda: tiny_lalm.score_each(prompt, choices, edits)).count(prompt.width)
        == 2
    )
    model, processor = tiny_qwen2_audio(seed=0)
    half = LALM(model.to(torch.bfloat16), processor)
    one = half.prepare(half.prompt(items[:1]))
    assert tokens_of_passes(half, lambda: half.score_each(one, choices[:1], edits)).count(one.width) == 2
