"""On a plain model of each family, an attached intervention gives the tokens of `LALM.generate`."""

from __future__ import annotations

import pytest
import torch

import mata_interp as mi

NEW = 6
MATA = mi.Mata(1.5, [0, 1], "add")


def test_attached(built):
    lalm, prompt, mata = built.lalm, built.prompt, built.placed(MATA)
    expected = lalm.answer(prompt, mata, max_new_tokens=NEW)
    with mi.attach(lalm.model, mata) as attached:
        tokens = lalm.model.generate(**prompt.inputs, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(tokens[:, prompt.width :], expected.tokens)
    for name, values in expected.dose.items():
        assert attached.dose[name] == pytest.approx(values, rel=1e-3, abs=1e-5)


def test_attached_with_a_static_cache(built):
    """Where the family itself can use one, with sliding windows and without."""
    lalm, prompt, mata = built.lalm, built.prompt, built.placed(MATA)
    how = {"max_new_tokens": NEW, "do_sample": False, "cache_implementation": "static"}
    try:
        plain = lalm.model.generate(**prompt.inputs, **how, disable_compile=True)
    except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        pytest.skip(f"the family has no static cache: {error}")
    if not torch.equal(plain[:, prompt.width :], lalm.generate(prompt, max_new_tokens=NEW)):
        pytest.skip("the family answers otherwise with a static cache")
    expected = lalm.generate(prompt, mata, max_new_tokens=NEW)
    with mi.attach(lalm.model, mata):
        tokens = lalm.model.generate(**prompt.inputs, **how)
    assert torch.equal(tokens[:, prompt.width :], expected)


def test_attached_with_beams(built):
    """Beams with a cache are those without one."""
    lalm, prompt, mata = built.lalm, built.prompt, built.placed(MATA)
    how = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 2}
    with mi.attach(lalm.model, mata):
        tokens = lalm.model.generate(**prompt.inputs, **how)
        assert torch.equal(tokens, lalm.model.generate(**prompt.inputs, **how, use_cache=False))
