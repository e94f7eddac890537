"""Edits of reasoning or answers: an attached intervention gives the logits of `LALM.answer`, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ArgumentError
from tests.lalm.test_thinking import SAID, scripted, thinking_lalm
from tests.tiny import RATE


@pytest.fixture(scope="module")
def questions() -> list[mi.Item]:
    noise = np.random.default_rng(3)
    sounds = [noise.normal(0, 0.1, round(s * RATE)).astype(np.float32) for s in (1.0, 0.5)]
    return [
        mi.Item((sounds[0], RATE), "Which?", choices=("dog", "a bell"), answer="dog", id="q0"),
        mi.Item((sounds[1], RATE), "How many are there?", choices=("1", "two"), answer="1", id="q1"),
    ]


@pytest.mark.parametrize(
    ("keys", "phase"),
    [("audio", "reasoning"), ("audio", "answer"), ("reasoning", "both"), ("answer", "answer")],
)
def test_edits_of_reasoning_or_answer(questions, keys, phase):
    lalm = thinking_lalm()
    mata = mi.Mata(1.5, [1, 2], "add", keys=keys, phase=phase)
    with scripted(lalm, SAID) as expected:
        answer = lalm.answer(questions, mata, max_new_tokens=30)
    inputs = lalm.prompt(questions).inputs
    with mi.attach(lalm.model, mata, lalm.processor) as attached, scripted(lalm, SAID) as steps:
        lalm.model.generate(**inputs, max_new_tokens=30, do_sample=False)
    with scripted(lalm, SAID) as plain:
        lalm.model.generate(**inputs, max_new_tokens=30, do_sample=False)
    assert len(steps) == len(expected) == len(plain)
    for row, text in enumerate(SAID):
        read = len(lalm.processor.tokenizer(text)["input_ids"]) + 1
        for step in range(read):
            torch.testing.assert_close(steps[step][row], expected[step][row])
        assert max((steps[step][row] - plain[step][row]).abs().max() for step in range(read)) > 1e-3
    for name, values in answer.dose.items():
        np.testing.assert_allclose(attached.dose[name], values, rtol=1e-4, atol=1e-6)


def test_the_tokenizer_is_needed(questions):
    lalm = thinking_lalm()
    mata = mi.Mata(1.5, [1], phase="reasoning")
    with pytest.raises(ArgumentError, match="processor"), mi.attach(lalm.model, mata):
        lalm.model.generate(**lalm.prompt(questions).inputs, max_new_tokens=2)
