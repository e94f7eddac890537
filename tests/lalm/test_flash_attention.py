"""Everything on a model under FlashAttention: masks of keys or none, windows as keywords, its layout.

The kernels run on GPUs only. A stand-in under the same name receives what they would, and results are those
of the same model under SDPA.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers import modeling_flash_attention_utils as utils
from transformers.integrations.flash_attention import flash_attention_forward

import mata_interp as mi
from mata_interp import Mata
from mata_interp.lalm import LALM
from mata_interp.sweeps.canary import STEPS
from tests.support.flash_attention import NAME, flash_attention, kernel, varlen_kernel
from tests.tiny import tiny_qwen2_audio

EDITS = {
    "baseline": None,
    "zero": Mata(0.0, [1, 2]),
    "abs": Mata(1.0, [0, 1, 2, 3]),
    "heads": Mata(2.0, [0, 2], "add", heads=[0, 3]),
    "text": Mata(1.0, [1, 3], keys="text"),  # in the layers with a window, which ends after the audio
    "prefill": Mata(1.0, [1, 2], phase="prefill"),
    "decode": Mata(1.0, [1, 2], phase="decode"),
    "all text": Mata(0.7, [1, 2], queries="text"),
    "knockout": Mata(1.0, [1, 2], "knockout"),
}
WINDOW = 24


def make(attention: str, windowed: bool, dtype: torch.dtype) -> LALM:
    """The tiny model; every other layer has a sliding window if ``windowed``."""
    model, processor = tiny_qwen2_audio()
    config: Any = copy.deepcopy(model.config)
    if windowed:
        config.text_config.sliding_window = WINDOW
        config.text_config.layer_types = ["full_attention", "sliding_attention"] * 2
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    other.generation_config = model.generation_config
    other.config._attn_implementation = attention  # the check at loading wants a GPU
    return LALM(other.to(dtype), processor)


@pytest.fixture(scope="module", params=[False, True], ids=["full", "windowed"])
def windowed(request) -> bool:
    return request.param


@pytest.fixture(scope="module")
def plain(windowed):
    return make("sdpa", windowed, torch.float32)


@pytest.fixture(scope="module")
def flash(windowed):
    """The same under FlashAttention, in the encoder, too."""
    with flash_attention() as stand_in:
        lalm = make(NAME, windowed, torch.float32)
        assert lalm.fingerprint()["attention"] == NAME
        yield lalm
    assert stand_in.masks == {None, 2}
    assert stand_in.windows == ({None, WINDOW} if windowed else {None})


def close(result: Any, expected: Any, bound: float = 2e-5) -> None:
    np.testing.assert_allclose(np.asarray(result), np.asarray(expected), atol=bound, rtol=0)


@pytest.fixture(params=[1, 3], ids=["B=1", "left-padded B=3"])
def some(request, items):
    return items[: request.param]


def test_the_window_is_seen(plain, windowed, items):
    apart = plain.logits(items) - make("sdpa", not windowed, torch.float32).logits(items)
    assert float(apart.abs().max()) > 0.01


def test_the_stand_in_is_transformers_own_function_on_plain_kernels(windowed, items, monkeypatch):
    """In prefill, decode, and several tokens at once, with and without padding."""
    # transformers looks for the kernels when it needs them, and keeps them in its module
    for name, value in list(vars(utils).items()):
        if name.startswith(("_flash", "_process", "_loaded", "_pad_fn", "_unpad_fn")):
            monkeypatch.setattr(utils, name, value)
    kernels = (kernel, varlen_kernel, None, utils._pad_input, utils._unpad_input)
    monkeypatch.setattr(utils, "_lazy_imports", lambda *_, **__: kernels)
    lalm = make(NAME, windowed, torch.float32)
    with flash_attention() as stand_in:
        stand_in.original = flash_attention_forward
        for some in (items[:1], items):
            lalm.generate(some, max_new_tokens=3)
            lalm.score(some)
    assert stand_in.compared > 20
    assert stand_in.masks == {None, 2}


def test_logits_and_edits(plain, flash, some):
    unedited = plain.logits(some)
    for name, edit in EDITS.items():
        expected = plain.logits(some, edit)
        close(flash.logits(some, edit), expected)
        if name not in ("baseline", "zero", "decode"):
            assert float((expected - unedited).abs().max()) > 1e-3, name
    assert torch.equal(flash.logits(some, EDITS["zero"]), flash.logits(some))


@pytest.mark.parametrize("query", ["last", "text", "generated"])
def test_traces(plain, flash, some, query):
    settings = {"query": query, "progress": False} | ({"max_new_tokens": 4} if query == "generated" else {})
    close(mi.trace(flash, some, **settings)["mass"], mi.trace(plain, some, **settings)["mass"])


@pytest.mark.parametrize("name", ["baseline", "abs", "decode", "all text"])
def test_generation(plain, flash, some, name):
    result, expected = (
        lalm.answer(lalm.prompt(some), EDITS[name], max_new_tokens=6) for lalm in (flash, plain)
    )
    assert result.tokens.tolist() == expected.tokens.tolist()
    for part, values in expected.dose.items():
        close(result.dose[part], values)


def test_scores(plain, flash, some):
    for result, expected in zip(
        flash.score_each(some, None, list(EDITS.values())),
        plain.score_each(some, None, list(EDITS.values())),
        strict=True,
    ):
        close(result.logprob, expected.logprob, 1e-4)


def test_sweeps(plain, flash, some):
    result, expected = (mi.sweep(lalm, some, EDITS, progress=False) for lalm in (flash, plain))
    assert result.attrs["looped"] == expected.attrs["looped"]
    assert result.attrs["canary"] < STEPS[torch.float32]
    close(result, expected, 1e-4)


def test_layer_criteria(plain, flash, items, windowed):
    answered = [
        mi.Item(
            item.audio, item.question, item.choices, item.choices[0], id=f"i{number}", caption=item.caption
        )
        for number, item in enumerate(items)
    ]
    result, expected = (mi.fusion_layers(lalm, answered, progress=False) for lalm in (flash, plain))
    assert result.refused.keys() == expected.refused.keys()
    close(result.profiles, expected.profiles, 1e-3)


def test_the_check_passes(flash):
    report = mi.check(flash)
    assert report.ok, str(report)


@pytest.mark.parametrize("cache", [DynamicCache, StaticCache])
def test_continued_passes(plain, flash, items, cache):
    """Two tokens after a prompt in a cache, of which a static one has room behind."""
    prompt = plain.prompt(items)
    results = []
    for lalm in (flash, plain):
        config = lalm.structure.decoder.config
        room = {"max_cache_len": prompt.width + 2} if cache is StaticCache else {}
        past = cache(config=config, **room)
        with torch.inference_mode():
            first = lalm.model(**lalm.prompt(items).inputs, past_key_values=past, use_cache=True)
            tokens = first.logits[:, -2:].argmax(-1) * 0 + 5
            mask = torch.cat([prompt.inputs["attention_mask"], torch.ones_like(tokens)], 1)
            again = lalm.model(input_ids=tokens, attention_mask=mask, past_key_values=past, use_cache=True)
        results.append(again.logits)
    close(*results)


def test_16_bits(windowed, some):
    """In bfloat16 the two differ by rounding, and a strength of zero by nothing."""
    plain = make("sdpa", windowed, torch.bfloat16)
    with flash_attention():
        flash = make(NAME, windowed, torch.bfloat16)
        unedited = flash.logits(some)
        assert torch.equal(flash.logits(some, EDITS["zero"]), unedited)
        size = float(plain.logits(some).abs().max())
        for edit in (None, EDITS["abs"]):
            close(flash.logits(some, edit).float(), plain.logits(some, edit).float(), 0.03 * size)
        close(
            mi.trace(flash, some, progress=False)["mass"], mi.trace(plain, some, progress=False)["mass"], 0.03
        )
