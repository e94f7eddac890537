"""The instrument: what it serves, that it adds what it is told, and that it leaves no trace."""

from __future__ import annotations

import gc
import warnings
import weakref
from contextlib import contextmanager

import pytest
import torch
from nnsight import NNsight
from transformers import AttentionInterface

from mata_interp.errors import ModelError
from mata_interp.interventions import Editing, Mata
from mata_interp.lalm import LALM
from tests import reference
from tests.tiny import tiny_qwen2_audio

ALL = (0, 1, 2, 3)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(params=["run", "edit"])
def way(request):
    """By nnsight, and in the place of the attention function: ``way(lalm)(forward, layers, visit)``."""
    return lambda lalm: getattr(lalm.instrument, request.param)


def run(lalm, prompt, layers, visit):
    return lalm.instrument.run(lambda: lalm.model(**prompt.inputs).logits, layers, visit)


def test_the_model_stays_on_sdpa(tiny_lalm):
    assert tiny_lalm.model.config.text_config._attn_implementation == "sdpa"


def test_calls_come_in_order_with_the_models_own_tensors(tiny_lalm, prompt, eager):
    """The last row of each call, from its queries and keys alone, is that of eager attention."""
    seen, rows = [], []

    def look(layer, call, total):
        seen.append((layer, total, tuple(call.query.shape), tuple(call.key.shape)))
        rows.append(call.scores(slice(-1, None)).softmax(-1)[:, :, 0])

    logits = run(tiny_lalm, prompt, ALL, look)
    width = prompt.width
    assert seen == [(layer, width, (3, 4, width, 8), (3, 2, width, 8)) for layer in ALL]
    assert torch.equal(logits, tiny_lalm.model(**prompt.inputs).logits)
    for ours, theirs in zip(rows, reference.last_row(eager, prompt.inputs), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_only_the_layers_asked_for(tiny_lalm, prompt):
    seen = []
    run(tiny_lalm, prompt, [3, 1], lambda layer, call, total: seen.append(layer))
    assert seen == [1, 3]
    with pytest.raises(RuntimeError, match="no layer, no visit"):
        run(tiny_lalm, prompt, [1], lambda layer, call, total: _fail("no layer, no visit"))
    run(tiny_lalm, prompt, [], lambda layer, call, total: _fail("no layer, no visit"))


def _fail(said):
    raise RuntimeError(said)


def test_every_pass_of_a_generation(tiny_lalm, prompt, way):
    seen = []

    def look(layer, call, total):
        seen.append((layer, total, call.query.shape[2], call.length))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = way(tiny_lalm)(
            lambda: tiny_lalm.model.generate(**prompt.inputs, max_new_tokens=3, do_sample=False),
            [0, 2],
            look,
        )
    width = prompt.width
    assert out.shape[1] == width + 3
    passes = [(width, width, width), (width + 1, 1, width + 1), (width + 2, 1, width + 2)]
    assert seen == [(layer, *sizes) for sizes in passes for layer in (0, 2)]


def test_what_visit_returns_is_added_to_those_rows_and_those_only(tiny_lalm, prompt, way):
    """Seen right behind the site, by a hook of torch's own on the output projection."""
    module = tiny_lalm.structure.attention[2].o_proj
    delta = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0))

    def behind(visit):
        caught = []
        handle = module.register_forward_pre_hook(lambda _, args: caught.append(args[0].clone()))
        try:
            way(tiny_lalm)(lambda: tiny_lalm.model(**prompt.inputs), [2], visit)
        finally:
            handle.remove()
        return caught[0].unflatten(-1, (4, 8))  # (B, T, H, D)

    plain = behind(lambda *_: None)
    edited = behind(lambda *_: (slice(5, 7), delta))
    assert torch.equal(edited[:, 5:7], plain[:, 5:7] + delta)
    edited[:, 5:7] = plain[:, 5:7]
    assert torch.equal(edited, plain)


def test_the_sum_is_made_in_float32(half, items):
    """A bfloat16 output and a float32 change give their float32 sum, rounded once."""
    prompt = half.prepare(half.prompt(items))
    module = half.structure.attention[1].o_proj
    caught = []
    handle = module.register_forward_pre_hook(lambda _, args: caught.append(args[0][:, -1].float()))
    shift = torch.full((3, 1, 4, 8), 0.01)
    try:
        run(half, prompt, [1], lambda *_: None)
        run(half, prompt, [1], lambda *_: (slice(-1, None), shift))
    finally:
        handle.remove()
    assert torch.equal(caught[1], (caught[0] + 0.01).bfloat16().float())


def test_look_leaves_the_model_once_all_was_seen(tiny_lalm, prompt):
    finished = []
    handle = tiny_lalm.structure.decoder.layers[2].register_forward_hook(lambda *_: finished.append(2))
    seen = []
    try:
        tiny_lalm.instrument.look(
            lambda: tiny_lalm.model(**prompt.inputs), [0, 1], lambda layer, call, total: seen.append(layer)
        )
    finally:
        handle.remove()
    assert seen == [0, 1]
    assert finished == []
    # and the model is as it was
    assert torch.isfinite(tiny_lalm.logits(prompt)).all()


def test_an_error_in_a_visit_comes_out_and_does_no_harm(tiny_lalm, prompt, way):
    before = tiny_lalm.logits(prompt)
    with pytest.raises(RuntimeError, match="mine"):
        way(tiny_lalm)(lambda: tiny_lalm.model(**prompt.inputs), ALL, lambda *_: _fail("mine"))
    assert torch.equal(tiny_lalm.logits(prompt), before)


@contextmanager
def given(lalm, layer, **terms):
    """Inside, the attention function of this layer is given these keywords, too."""
    module = lalm.structure.attention[layer]
    hook = lambda _, args, kwargs: (args, kwargs | terms)  # noqa: E731
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def test_a_term_that_is_not_understood_is_refused(tiny_lalm, prompt):
    with (
        given(tiny_lalm, 1, s_aux=torch.zeros(4)),
        pytest.raises(ModelError, match="The attention of layer 1 has s_aux, which is not understood"),
    ):
        run(tiny_lalm, prompt, [1], lambda *_: None)


def test_a_bias_among_the_keywords_is_added_to_the_scores(tiny_lalm, prompt, eager, monkeypatch):
    """SDPA adds ``position_bias`` to the scores, whatever its shape; the eager twin has it in its mask."""
    width = prompt.width
    bias = torch.randn(1, 4, width, width, generator=torch.Generator().manual_seed(0))
    theirs = eager.model.language_model.layers[1].self_attn
    own = theirs.forward

    def masked(hidden_states, attention_mask, **kwargs):
        return own(hidden_states=hidden_states, attention_mask=attention_mask + bias, **kwargs)

    monkeypatch.setattr(theirs, "forward", masked)
    rows = {}

    def look(layer, call, total):
        rows[layer] = call.scores(slice(-1, None)).softmax(-1)[:, :, 0]

    with given(tiny_lalm, 1, position_bias=bias):
        run(tiny_lalm, prompt, ALL, look)
    for layer, weights in enumerate(reference.last_row(eager, prompt.inputs)):
        torch.testing.assert_close(rows[layer], weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("term", "said"), [
    ({"position_bias": torch.zeros(4, 3)}, r"a bias of shape torch.Size\(\[4, 3\]\)"),
    ({"is_causal": False}, None),
    ({"indices": torch.zeros(3, 2, dtype=torch.long)}, "indices"),
    ({"gate": 0.5}, "gate"),
])  # fmt: skip
def test_what_cannot_be_right_is_refused(tiny_lalm, prompt, way, term, said):
    lalm = tiny_lalm
    with given(lalm, 1, **term):
        if said is None:  # a mask says itself who sees what
            way(lalm)(lambda: lalm.model(**prompt.inputs), [1], lambda *_: None)
            return
        with pytest.raises(ModelError, match=f"The attention of layer 1 has {said}, which is not understood"):
            way(lalm)(lambda: lalm.model(**prompt.inputs), [1], lambda *_: None)


def test_attention_that_sees_what_is_to_come_is_refused(tiny_lalm, prompt, monkeypatch):
    lone = tiny_lalm.prompt(prompt.items[:1])  # without padding SDPA gets no mask
    module = tiny_lalm.structure.attention[1]
    monkeypatch.setattr(module, "is_causal", False)
    with pytest.raises(ModelError, match="layer 1 has no mask and sees the tokens to come"):
        run(tiny_lalm, lone, [1], lambda *_: None)


def test_the_empty_end_of_a_static_cache_is_no_key(tiny_lalm, prompt, way):
    seen = []

    def look(layer, call, total):
        seen.append((total, call.length))
        rows.append(call.scores(slice(-1, None)).softmax(-1))

    said = []
    for kind in (None, "static"):
        rows: list[torch.Tensor] = []
        settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        settings |= {} if kind is None else {"cache_implementation": kind, "disable_compile": True}
        way(tiny_lalm)(lambda s=settings: tiny_lalm.model.generate(**prompt.inputs, **s), [2], look)
        said.append(rows)
    assert all(total == length for total, length in seen)
    for ours, theirs in zip(*said, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("good", [0, 1])
def test_an_attention_that_is_not_called(tiny_lalm, prompt, monkeypatch, good, way):
    """In the decoder's first pass or a later one: an edit that did not happen is never passed over."""
    config, seen = tiny_lalm.structure.decoder.config, []

    def forward():
        for _ in range(good):
            tiny_lalm.model(**prompt.inputs)
        monkeypatch.setattr(config, "num_hidden_layers", 2)  # the decoder runs as many layers as this says
        tiny_lalm.model(**prompt.inputs)
        return tiny_lalm.model(**prompt.inputs)

    with pytest.raises(ModelError, match="without calling the attention of decoder layer 2"):
        way(tiny_lalm)(forward, [0, 2], lambda layer, call, total: seen.append(layer))
    assert seen == [0, 2] * good + [0]


def test_a_decoder_that_never_runs(tiny_lalm, way):
    with pytest.raises(ModelError, match="without calling the attention of decoder layer 1"):
        way(tiny_lalm)(lambda: "nothing", [1, 3], lambda *_: None)


def test_many_runs_hold_on_to_nothing(tiny_lalm, prompt, way):
    held = []

    def look(layer, call, total):
        held.append(weakref.ref(call.query))

    for _ in range(3):
        way(tiny_lalm)(lambda: tiny_lalm.model(**prompt.inputs), ALL, look)
    gc.collect()
    assert not any(ref() is not None for ref in held)


def test_two_wrappers_of_one_model(prompt, way):
    model, processor = tiny_qwen2_audio(seed=0)
    one, two = LALM(model, processor), LALM(model, processor)
    seen = []
    for lalm in (one, two, one):
        visit = lambda layer, call, total: seen.append(layer)  # noqa: E731
        way(lalm)(lambda: model(**prompt.inputs), [1], visit)
    assert seen == [1, 1, 1]


def test_between_uses_the_model_is_as_it_came(prompt):
    """nothing of nnsight's is left on it, and whoever wraps it with nnsight, before or after, still can."""
    model, processor = tiny_qwen2_audio(seed=0)
    came = [set(vars(part)) for part in model.modules()]
    lalm = LALM(model, processor)
    seen = []
    visit = lambda layer, call, total: seen.append(layer)  # noqa: E731
    for _ in range(2):
        run(lalm, prompt, [1], visit)
        assert [set(vars(part)) for part in model.modules()] == came
    with pytest.raises(RuntimeError, match="mine"):
        run(lalm, prompt, [1], lambda *_: _fail("mine"))
    assert [set(vars(part)) for part in model.modules()] == came
    theirs = NNsight(model)
    for _ in range(2):
        with theirs.trace(**prompt.inputs):
            found = theirs.lm_head.output.save()
        assert torch.equal(found, model(**prompt.inputs).logits)
        run(lalm, prompt, [2], visit)
    assert seen == [1, 1, 2, 2]


def test_standing_in_for_the_attention_function_is_nnsights_visit_to_the_bit(tiny_lalm, half, items):
    """In a batch with left padding, in prefill and decode; and the table of functions is as it was."""
    before = dict(AttentionInterface._global_mapping)
    for lalm in (tiny_lalm, half):
        prompt = lalm.prepare(lalm.prompt(items))
        settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        settings |= {"output_logits": True, "return_dict_in_generate": True}

        def generate(lalm=lalm, prompt=prompt, settings=settings):
            return torch.stack(lalm.model.generate(**prompt.inputs, **settings).logits)

        told = []
        for way in (lalm.instrument.run, lalm.instrument.edit):
            editing = Editing([Mata(1.5, [1, 2], "add")], prompt.groups, lalm.structure.heads)
            told.append((way(generate, editing.layers, editing), editing.dose()))
        (ours, dose), (theirs, other) = told
        assert torch.equal(ours, theirs)
        assert (ours - generate()).abs().max() > 0.01
        for name, values in dose.items():
            assert (values == other[name]).all(), name
    assert dict(AttentionInterface._global_mapping) == before


def test_eager_attention_has_no_name_and_is_edited_by_nnsight(eager, prompt, monkeypatch):
    lalm = LALM(eager)
    by = []
    plain = lalm.instrument.run
    monkeypatch.setattr(lalm.instrument, "run", lambda *given: by.append("nnsight") or plain(*given))
    edited = lalm.logits(prompt, Mata(1.5, [1], "add"))
    assert by == ["nnsight"]
    assert (edited - lalm.logits(prompt)).abs().max() > 0.01


def test_an_attention_that_is_called_twice_is_refused(tiny_lalm, prompt):
    """nnsight would see the first call alone."""
    module = tiny_lalm.structure.attention[1]
    again = []

    def twice(_, args, kwargs, out):
        if not again:
            again.append(True)
            module(*args, **kwargs)

    handle = module.register_forward_hook(twice, with_kwargs=True)
    try:
        with pytest.raises(ModelError, match="attention of layer 1 is called twice"):
            tiny_lalm.instrument.edit(lambda: tiny_lalm.model(**prompt.inputs), [1], lambda *_: None)
    finally:
        handle.remove()
