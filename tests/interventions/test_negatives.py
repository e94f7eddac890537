"""Negative prompts: made once for each prompt, and released with it."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.interventions.catalogue import Aad, negatives
from mata_interp.interventions.catalogue.steering import Steering


@pytest.fixture
def items():
    sounds = np.random.default_rng(0).normal(0, 0.1, (2, 8_000)).astype(np.float32)
    return [
        mi.Item((sound, 16_000), "Which?", ("no", "rain"), "no", id=f"q{n}") for n, sound in enumerate(sounds)
    ]


@pytest.fixture
def made(monkeypatch):
    """Weak references to the ids of all negative prompts that were made."""
    references = []
    make = negatives._make_prompt

    def _make_prompt(*arguments):
        negative = make(*arguments)
        references.append(weakref.ref(negative.inputs["input_ids"]))
        return negative

    monkeypatch.setattr(negatives, "_make_prompt", _make_prompt)
    return references


def alive(references):
    gc.collect()
    return sum(reference() is not None for reference in references)


CALLS = {
    "score": lambda lalm, items, edit, _: lalm.score(items, None, edit),
    "logits": lambda lalm, items, edit, _: lalm.logits(items, edit),
    "answer": lambda lalm, items, edit, _: lalm.answer(items, edit, max_new_tokens=2),
    "run": lambda lalm, items, edit, out: mi.run(lalm, items, {"a": None, "b": edit}, out, progress=False),
    "sweep": lambda lalm, items, edit, _: mi.sweep(lalm, items, {"a": None, "b": edit}, progress=False),
    "trace": lambda lalm, items, edit, _: mi.trace(
        lalm, items, "generated", intervention=edit, max_new_tokens=2, progress=False
    ),
}


@pytest.mark.parametrize("edit", [Aad(), Steering((1,))], ids=["contrast", "measured"])
@pytest.mark.parametrize("call", CALLS)
def test_released_at_the_end_of_the_call(tiny_lalm, items, made, tmp_path, call, edit):
    CALLS[call](tiny_lalm, items, edit, tmp_path / "run")
    assert made
    assert alive(made) == 0
    assert not negatives._made.get(tiny_lalm)


def test_made_once_for_several_strengths_of_one_prompt(tiny_lalm, items, made):
    prompt = tiny_lalm.prompt(items)
    for strength in (0.5, 1.0):
        tiny_lalm.score(prompt, None, Aad(strength))
    mi.sweep(tiny_lalm, prompt, {"weak": Aad(0.5), "strong": Aad(1.0)}, progress=False)
    assert len(made) == 1
    tiny_lalm.score(prompt, None, Aad(0.5, "silent"))
    assert len(made) == 2
    other = tiny_lalm.prompt(items)
    tiny_lalm.score(other, None, Aad(0.5))
    assert len(made) == alive(made) == 3
    del prompt
    assert alive(made) == 1


def test_the_conditions_of_a_run_share_them(tiny_lalm, items, made, tmp_path):
    conditions = {"baseline": None, "weak": Aad(0.5), "strong": Aad(1.0)}
    mi.run(tiny_lalm, items, conditions, tmp_path / "run", progress=False)
    assert len(made) == 1
