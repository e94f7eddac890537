"""A model computes the same whatever was done with it before: training mode, torch.compile, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import Mata
from mata_interp.lalm import LALM
from tests.tiny import tiny_qwen2_audio

MATA = Mata(1.5, [1, 2], "add")


def measured(lalm: LALM, items: list[mi.Item]) -> dict[str, np.ndarray]:
    """What every kind of call gives on these items."""
    prompt = lalm.prompt(items)
    answered = [
        mi.Item(audio=item.audio, question=item.question, choices=item.choices, answer=item.choices[0])
        for item in items[:1]
    ]
    return {
        "logits": lalm.logits(prompt, MATA).numpy(),
        "generate": lalm.generate(prompt, MATA, max_new_tokens=4).numpy(),
        "score": lalm.score(prompt, None, MATA).logprob,
        "trace": mi.trace(lalm, prompt, progress=False)["mass"].values,
        "sweep": mi.sweep(lalm, prompt, [None, MATA], progress=False).values,
        "fusion": mi.fusion_layers(
            lalm, answered, criteria=["saliency_last", "lens_last"], progress=False
        ).profiles.values,
        "entry": lalm.audio_alignment(prompt).moved.numpy(),
    }


def assert_same(result: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(result[name], values, err_msg=name)


@pytest.fixture(scope="module")
def with_dropout() -> LALM:
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    for module in lalm.model.modules():
        for name in ("attention_dropout", "dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.3)
    return lalm


@pytest.mark.parametrize("part", ["", "language_model", "audio_tower"])
def test_training_mode_is_off_while_the_model_is_used_and_put_back(with_dropout, items, part):
    lalm = with_dropout
    expected = measured(lalm, items)
    prompt = lalm.prompt(items)
    module = next(m for name, m in lalm.model.named_modules() if name.rsplit(".", 1)[-1] == part)
    module.train()
    modes = [m.training for m in lalm.model.modules()]
    try:
        with torch.no_grad():
            noisy = lalm.model(**prompt.inputs).logits[:, -1]
        assert (noisy - lalm.logits(prompt)).abs().max() > 1e-3, "a dropout that does nothing shows nothing"
        assert_same(measured(lalm, items), expected)
        assert part or mi.check(lalm).ok
        assert [m.training for m in lalm.model.modules()] == modes
    finally:
        lalm.model.eval()


def compile_around(model: Any, backend: Any) -> Any:
    return torch.compile(model, backend=backend)


def compile_in_place(model: Any, backend: Any) -> Any:
    model.compile(backend=backend)
    return model


def compile_forward(model: Any, backend: Any) -> Any:
    model.forward = torch.compile(model.forward, backend=backend)
    return model


def compile_decoder(model: Any, backend: Any) -> Any:
    model.model.language_model = torch.compile(model.model.language_model, backend=backend)
    return model


def compile_layers(model: Any, backend: Any) -> Any:
    for layer in model.model.language_model.layers:
        layer.compile(backend=backend)
    return model


def compile_attention_forwards(model: Any, backend: Any) -> Any:
    for layer in model.model.language_model.layers:
        layer.self_attn.forward = torch.compile(layer.self_attn.forward, backend=backend)
    return model


WAYS: tuple[Callable[[Any, Any], Any], ...] = (
    compile_around,
    compile_in_place,
    compile_forward,
    compile_decoder,
    compile_layers,
    compile_attention_forwards,
)


def refuse_to_compile(graph: Any, inputs: Any) -> Any:
    raise AssertionError("Something was compiled.")


@pytest.fixture(scope="module")
def expected(tiny_lalm, items) -> dict[str, np.ndarray]:
    return measured(tiny_lalm, items)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_compiled_model_is_read_and_edited_as_it_was_written(tiny_lalm, items, expected, way):
    model, processor = tiny_qwen2_audio(seed=0)
    compiled = way(model, refuse_to_compile)
    before = [vars(module).get("forward") for module in compiled.modules()]
    lalm = LALM(compiled, processor)
    assert_same(measured(lalm, items), expected)
    assert [vars(module).get("forward") for module in compiled.modules()] == before
    here, there = lalm.fingerprint(), tiny_lalm.fingerprint()
    assert here["weights_sha256"] == there["weights_sha256"]
    assert here["changes"] == there["changes"]


@pytest.mark.acceptance
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_model_that_ran_compiled_is_read_all_the_same(tiny_lalm, items, expected, way):
    model, processor = tiny_qwen2_audio(seed=0)
    compiled = way(model, "eager")
    prompt = tiny_lalm.prompt(items)
    with torch.no_grad():
        compiled(**prompt.inputs)  # what is compiled is compiled without the hooks of this package
    lalm = LALM(compiled, processor)
    assert_same(measured(lalm, items), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**prompt.inputs).logits[:, -1], lalm.logits(prompt))


def test_copies_are_models_of_their_own(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    expected = tiny_lalm.logits(prompt, MATA)
    for copied in (copy.deepcopy(tiny_lalm), pickle.loads(pickle.dumps(tiny_lalm))):
        assert torch.equal(copied.logits(copied.prompt(items), MATA), expected)
        assert copied.fingerprint() == tiny_lalm.fingerprint()
        assert copied.structure.decoder is not tiny_lalm.structure.decoder
        with torch.no_grad():
            copied.model.lm_head.weight.mul_(2)
        assert torch.equal(tiny_lalm.logits(prompt, MATA), expected)
    shallow = copy.copy(tiny_lalm)
    assert shallow.model is tiny_lalm.model
    assert torch.equal(shallow.logits(prompt, MATA), expected)
