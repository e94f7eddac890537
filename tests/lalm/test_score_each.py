"""One reading of a prompt serves any number of interventions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mata_interp.interventions import Mata
from mata_interp.lalm.scoring import option_logprobs, read

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
def test_a_prompt_that_cannot_be_stepped_back_in_is_read_whole_for_each(
    tiny_lalm, prompt, items, monkeypatch
):
    from transformers.cache_utils import DynamicLayer

    choices = [item.choices for item in items]
    shared = tiny_lalm.score_each(prompt, choices, EDITS)
    assert read(tiny_lalm.model, tiny_lalm.prepare(prompt)) is not None
    monkeypatch.setattr(DynamicLayer, "is_croppable", False)
    assert read(tiny_lalm.model, tiny_lalm.prepare(prompt)) is None
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
