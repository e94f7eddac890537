"""Intercepted attention calls: what on_call sees, what its answer changes, and which calls are refused."""

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
from mata_interp.lalm.calls import attention_calls as calls_file
from mata_interp.lalm.calls.attention_calls import Add, Replace, attention_calls
from mata_interp.lalm.calls.edited_calls import edited_calls
from tests import reference
from tests.tiny import tiny_qwen2_audio

ALL = (0, 1, 2, 3)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(params=["nnsight", "direct"])
def backend(request):
    return request.param


def intercepted(lalm, forward, layers, on_call, backend="nnsight", **options):
    with attention_calls(lalm.structure, layers, on_call, backend, **options) as run:
        return run(forward)


def run(lalm, prompt, layers, on_call):
    return intercepted(lalm, lambda: lalm.model(**prompt.inputs).logits, layers, on_call)


def test_the_model_stays_on_sdpa(tiny_lalm):
    assert tiny_lalm.model.config.text_config._attn_implementation == "sdpa"


def test_calls_come_in_order_with_the_models_own_tensors(tiny_lalm, prompt, eager):
    """The last row of each call, from its queries and keys alone, is that of eager attention."""
    calls, rows = [], []

    def look(layer, call, total):
        calls.append((layer, total, tuple(call.query.shape), tuple(call.key.shape)))
        rows.append(call.scores(slice(-1, None)).softmax(-1)[:, :, 0])

    logits = run(tiny_lalm, prompt, ALL, look)
    width = prompt.width
    assert calls == [(layer, width, (3, 4, width, 8), (3, 2, width, 8)) for layer in ALL]
    assert torch.equal(logits, tiny_lalm.model(**prompt.inputs).logits)
    for measured, expected in zip(rows, reference.last_row(eager, prompt.inputs), strict=True):
        torch.testing.assert_close(measured, expected, atol=1e-5, rtol=0)


def test_only_the_layers_asked_for(tiny_lalm, prompt):
    layers = []
    run(tiny_lalm, prompt, [3, 1], lambda layer, call, total: layers.append(layer))
    assert layers == [1, 3]
    with pytest.raises(RuntimeError, match="no layer, no visit"):
        run(tiny_lalm, prompt, [1], lambda layer, call, total: _fail("no layer, no visit"))
    run(tiny_lalm, prompt, [], lambda layer, call, total: _fail("no layer, no visit"))


def _fail(message):
    raise RuntimeError(message)


def test_every_pass_of_a_generation(tiny_lalm, prompt, backend):
    calls = []

    def look(layer, call, total):
        calls.append((layer, total, call.query.shape[2], call.length))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = intercepted(
            tiny_lalm,
            lambda: tiny_lalm.model.generate(**prompt.inputs, max_new_tokens=3, do_sample=False),
            [0, 2],
            look,
            backend,
        )
    width = prompt.width
    assert out.shape[1] == width + 3
    passes = [(width, width, width), (width + 1, 1, width + 1), (width + 2, 1, width + 2)]
    assert calls == [(layer, *sizes) for sizes in passes for layer in (0, 2)]


def test_what_visit_returns_is_added_to_those_rows_and_those_only(tiny_lalm, prompt, backend):
    """Seen right behind the site, by a hook of torch's own on the output projection."""
    module = tiny_lalm.structure.attention[2].o_proj
    delta = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0))

    def behind(visit):
        caught = []
        handle = module.register_forward_pre_hook(lambda _, args: caught.append(args[0].clone()))
        try:
            intercepted(tiny_lalm, lambda: tiny_lalm.model(**prompt.inputs), [2], visit, backend)
        finally:
            handle.remove()
        return caught[0].unflatten(-1, (4, 8))  # (B, T, H, D)

    plain = behind(lambda *_: None)
    edited = behind(lambda *_: Add(slice(5, 7), delta))
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
        run(half, prompt, [1], lambda *_: Add(slice(-1, None), shift))
    finally:
        handle.remove()
    assert torch.equal(caught[1], (caught[0] + 0.01).bfloat16().float())


def test_stopping_early_leaves_the_model_after_the_last_layer(tiny_lalm, prompt, backend):
    finished = []
    handle = tiny_lalm.structure.decoder.layers[2].register_forward_hook(lambda *_: finished.append(2))
    layers = []
    try:
        intercepted(
            tiny_lalm,
            lambda: tiny_lalm.model(**prompt.inputs),
            [0, 1],
            lambda layer, call, total: layers.append(layer),
            backend,
            stop_early=True,
        )
    finally:
        handle.remove()
    assert layers == [0, 1]
    assert finished == []
    # and the model is as it was
    assert torch.isfinite(tiny_lalm.logits(prompt)).all()


def test_an_error_in_a_visit_comes_out_and_does_no_harm(tiny_lalm, prompt, backend):
    before = tiny_lalm.logits(prompt)
    with pytest.raises(RuntimeError, match="mine"):
        intercepted(
            tiny_lalm, lambda: tiny_lalm.model(**prompt.inputs), ALL, lambda *_: _fail("mine"), backend
        )
    assert torch.equal(tiny_lalm.logits(prompt), before)


@contextmanager
def extra_terms(lalm, layer, **terms):
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
        extra_terms(tiny_lalm, 1, s_aux=torch.zeros(4)),
        pytest.raises(ModelError, match="The attention of layer 1 has s_aux, which is not understood"),
    ):
        run(tiny_lalm, prompt, [1], lambda *_: None)


def test_a_bias_among_the_keywords_is_added_to_the_scores(tiny_lalm, prompt, eager, monkeypatch):
    """SDPA adds ``position_bias`` to the scores, whatever its shape; the eager twin has it in its mask."""
    width = prompt.width
    bias = torch.randn(1, 4, width, width, generator=torch.Generator().manual_seed(0))
    expected = eager.model.language_model.layers[1].self_attn
    forward = expected.forward

    def masked(hidden_states, attention_mask, **kwargs):
        return forward(hidden_states=hidden_states, attention_mask=attention_mask + bias, **kwargs)

    monkeypatch.setattr(expected, "forward", masked)
    rows = {}

    def look(layer, call, total):
        rows[layer] = call.scores(slice(-1, None)).softmax(-1)[:, :, 0]

    with extra_terms(tiny_lalm, 1, position_bias=bias):
        run(tiny_lalm, prompt, ALL, look)
    for layer, weights in enumerate(reference.last_row(eager, prompt.inputs)):
        torch.testing.assert_close(rows[layer], weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("term", "message"), [
    ({"position_bias": torch.zeros(4, 3)}, r"a bias of shape torch.Size\(\[4, 3\]\)"),
    ({"is_causal": False}, None),
    ({"indices": torch.zeros(3, 2, dtype=torch.long)}, "indices"),
    ({"gate": 0.5}, "gate"),
])  # fmt: skip
def test_what_cannot_be_right_is_refused(tiny_lalm, prompt, backend, term, message):
    lalm = tiny_lalm
    with extra_terms(lalm, 1, **term):
        if message is None:  # a mask says itself who sees what
            intercepted(lalm, lambda: lalm.model(**prompt.inputs), [1], lambda *_: None, backend)
            return
        with pytest.raises(
            ModelError, match=f"The attention of layer 1 has {message}, which is not understood"
        ):
            intercepted(lalm, lambda: lalm.model(**prompt.inputs), [1], lambda *_: None, backend)


def test_attention_that_sees_what_is_to_come_is_refused(tiny_lalm, prompt, monkeypatch):
    lone = tiny_lalm.prompt(prompt.items[:1])  # without padding SDPA gets no mask
    module = tiny_lalm.structure.attention[1]
    monkeypatch.setattr(module, "is_causal", False)
    with pytest.raises(ModelError, match="layer 1 has no mask and sees the tokens to come"):
        run(tiny_lalm, lone, [1], lambda *_: None)


def test_the_empty_end_of_a_static_cache_is_no_key(tiny_lalm, prompt, backend):
    lengths = []

    def look(layer, call, total):
        lengths.append((total, call.length))
        rows.append(call.scores(slice(-1, None)).softmax(-1))

    message = []
    for kind in (None, "static"):
        rows: list[torch.Tensor] = []
        settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        settings |= {} if kind is None else {"cache_implementation": kind, "disable_compile": True}
        intercepted(
            tiny_lalm, lambda s=settings: tiny_lalm.model.generate(**prompt.inputs, **s), [2], look, backend
        )
        message.append(rows)
    assert all(total == length for total, length in lengths)
    for measured, expected in zip(*message, strict=True):
        torch.testing.assert_close(measured, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("good", [0, 1])
def test_an_attention_that_is_not_called(tiny_lalm, prompt, monkeypatch, good, backend):
    """In the decoder's first pass or a later one: an edit that did not happen is never passed over."""
    config, layers = tiny_lalm.structure.decoder.config, []

    def forward():
        for _ in range(good):
            tiny_lalm.model(**prompt.inputs)
        monkeypatch.setattr(config, "num_hidden_layers", 2)  # the decoder runs as many layers as this says
        tiny_lalm.model(**prompt.inputs)
        return tiny_lalm.model(**prompt.inputs)

    with pytest.raises(ModelError, match="without calling the attention of decoder layer 2"):
        intercepted(tiny_lalm, forward, [0, 2], lambda layer, call, total: layers.append(layer), backend)
    assert layers == [0, 2] * good + [0]


def test_a_decoder_that_never_runs(tiny_lalm, backend):
    with pytest.raises(ModelError, match="without calling the attention of decoder layer 1"):
        intercepted(tiny_lalm, lambda: "nothing", [1, 3], lambda *_: None, backend)


def test_many_runs_hold_on_to_nothing(tiny_lalm, prompt, backend):
    held = []

    def look(layer, call, total):
        held.append(weakref.ref(call.query))

    for _ in range(3):
        intercepted(tiny_lalm, lambda: tiny_lalm.model(**prompt.inputs), ALL, look, backend)
    gc.collect()
    assert not any(ref() is not None for ref in held)


def test_two_wrappers_of_one_model(prompt, backend):
    model, processor = tiny_qwen2_audio(seed=0)
    one, two = LALM(model, processor), LALM(model, processor)
    layers = []
    for lalm in (one, two, one):
        visit = lambda layer, call, total: layers.append(layer)  # noqa: E731
        intercepted(lalm, lambda: model(**prompt.inputs), [1], visit, backend)
    assert layers == [1, 1, 1]


def test_between_uses_the_model_is_as_it_came(prompt):
    """nothing of nnsight's is left on it, and whoever wraps it with nnsight, before or after, still can."""
    model, processor = tiny_qwen2_audio(seed=0)
    came = [set(vars(part)) for part in model.modules()]
    lalm = LALM(model, processor)
    layers = []
    visit = lambda layer, call, total: layers.append(layer)  # noqa: E731
    for _ in range(2):
        run(lalm, prompt, [1], visit)
        assert [set(vars(part)) for part in model.modules()] == came
    with pytest.raises(RuntimeError, match="mine"):
        run(lalm, prompt, [1], lambda *_: _fail("mine"))
    assert [set(vars(part)) for part in model.modules()] == came
    expected = NNsight(model)
    for _ in range(2):
        with expected.trace(**prompt.inputs):
            result = expected.lm_head.output.save()
        assert torch.equal(result, model(**prompt.inputs).logits)
        run(lalm, prompt, [2], visit)
    assert layers == [1, 1, 2, 2]


def test_both_backends_give_the_same_bits(tiny_lalm, half, items):
    """In a batch with left padding, in prefill and decode; and the table of functions is as it was."""
    before = dict(AttentionInterface._global_mapping)
    for lalm in (tiny_lalm, half):
        prompt = lalm.prepare(lalm.prompt(items))
        settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        settings |= {"output_logits": True, "return_dict_in_generate": True}

        def generate(lalm=lalm, prompt=prompt, settings=settings):
            return torch.stack(lalm.model.generate(**prompt.inputs, **settings).logits)

        results = []
        for backend in ("nnsight", "direct"):
            editing = Editing([Mata(1.5, [1, 2], "add")], prompt.groups, lalm.structure.heads)
            with edited_calls(lalm.structure, editing, backend) as run:
                results.append((run(generate), editing.dose()))
        (measured, dose), (expected, other) = results
        assert torch.equal(measured, expected)
        assert (measured - generate()).abs().max() > 0.01
        for name, values in dose.items():
            assert (values == other[name]).all(), name
    assert dict(AttentionInterface._global_mapping) == before


def test_eager_attention_has_no_name_and_is_edited_by_nnsight(eager, prompt, monkeypatch):
    lalm = LALM(eager)
    backends = []
    plain = calls_file.traced_calls
    monkeypatch.setattr(calls_file, "traced_calls", lambda *args: backends.append("nnsight") or plain(*args))
    edited = lalm.logits(prompt, Mata(1.5, [1], "add"))
    assert backends == ["nnsight"]
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
        with pytest.raises(ModelError, match="layer 1 is called twice"):
            intercepted(tiny_lalm, lambda: tiny_lalm.model(**prompt.inputs), [1], lambda *_: None, "direct")
    finally:
        handle.remove()


def test_replace_is_used_in_place_of_the_models_attention(tiny_lalm, eager, prompt):
    """The formula in place of SDPA and of eager attention, which are then not computed."""

    def formula(layer, call, total):
        scores = call.scores(slice(None)).nan_to_num(neginf=-1e30)  # padding sees nothing
        return Replace(call.mix(scores.softmax(-1)).transpose(1, 2).contiguous())

    real = prompt.inputs["attention_mask"].bool()
    for lalm in (tiny_lalm, LALM(eager)):
        plain = lalm.model(**prompt.inputs).logits
        replaced = intercepted(
            lalm, lambda m=lalm.model: m(**prompt.inputs).logits, ALL, formula, "direct", replaces=True
        )
        torch.testing.assert_close(replaced[real], plain[real], atol=1e-4, rtol=0)
        half = intercepted(
            lalm,
            lambda m=lalm.model: m(**prompt.inputs).logits,
            ALL,
            lambda *args: Replace(0.5 * formula(*args).output),
            "direct",
            replaces=True,
        )
        assert (half - plain)[real].abs().max() > 0.01


def test_replace_where_it_cannot_be(tiny_lalm, prompt):
    replace = lambda layer, call, total: Replace(call.query.transpose(1, 2))  # noqa: E731
    forward = lambda: tiny_lalm.model(**prompt.inputs)  # noqa: E731
    with pytest.raises(ModelError, match="backend='direct'"):
        intercepted(tiny_lalm, forward, ALL, replace)
    with pytest.raises(ModelError, match="backend='direct'"):
        intercepted(tiny_lalm, forward, ALL, replace, "nnsight", replaces=True)
    with pytest.raises(ModelError, match="layer 0 is not replaced"):
        intercepted(tiny_lalm, forward, ALL, lambda *_: None, "direct", replaces=True)
    with pytest.raises(ModelError, match="'other'"):
        intercepted(tiny_lalm, forward, ALL, replace, "other")


def test_only_what_run_runs_is_intercepted(tiny_lalm, prompt, backend):
    layers = []
    on_call = lambda layer, call, total: layers.append(layer)  # noqa: E731
    forward = lambda: tiny_lalm.model(**prompt.inputs)  # noqa: E731
    with attention_calls(tiny_lalm.structure, [1], on_call, backend) as run:
        forward()
        assert layers == []
        run(forward)
        run(forward)
        assert layers == [1, 1]
        forward()
    assert layers == [1, 1]


def test_one_interception_inside_another(tiny_lalm, prompt):
    """Both add to the output; nnsight alone cannot be inside itself."""
    delta = torch.randn(3, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    forward = lambda: tiny_lalm.model(**prompt.inputs).logits[:, -1]  # noqa: E731

    def add(factor):
        return lambda *_: Add(slice(-1, None), factor * delta)

    def nested(outer, inner):
        with (
            attention_calls(tiny_lalm.structure, [2], add(1.0), outer) as run_outer,
            attention_calls(tiny_lalm.structure, [2], add(2.0), inner) as run_inner,
        ):
            return run_outer(lambda: run_inner(forward))

    both = intercepted(tiny_lalm, forward, [2], add(3.0), "direct")
    assert (both - forward()).abs().max() > 0.01
    for outer, inner in (("direct", "direct"), ("direct", "nnsight"), ("nnsight", "direct")):
        torch.testing.assert_close(nested(outer, inner), both, atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="nnsight traces this model already"):
        nested("nnsight", "nnsight")


def test_a_replaced_attention_is_intercepted_by_nobody_else(tiny_lalm, prompt):
    def intercept(**options):
        return attention_calls(tiny_lalm.structure, ALL, lambda *_: None, "direct", **options)

    for first, second in (({"replaces": True}, {"replaces": True}), ({}, {"replaces": True})):
        with intercept(**first), pytest.raises(ModelError, match="intercepted already"), intercept(**second):
            pass


def test_the_model_inside_on_call_is_refused(tiny_lalm, prompt, backend):
    def on_call(layer, call, total):
        tiny_lalm.model(**prompt.inputs)

    with pytest.raises(ModelError, match="inside on_call"):
        intercepted(tiny_lalm, lambda: tiny_lalm.model(**prompt.inputs), [1], on_call, backend)
    assert torch.isfinite(tiny_lalm.logits(prompt)).all()


@pytest.mark.parametrize("layers", [(0, 1), (2, 3), (1, 1)])
def test_interceptions_end_in_any_order(tiny_lalm, prompt, layers):
    """A on, B on, A off, B off: of one model and of two."""
    model, processor = tiny_qwen2_audio(seed=1)
    table = dict(AttentionInterface._global_mapping)
    for other in (tiny_lalm, LALM(model, processor)):
        calls = []
        first, second = (
            attention_calls(
                lalm.structure, [layer], lambda *args, n=n, calls=calls: calls.append((n, args[0])), "direct"
            )
            for n, (lalm, layer) in enumerate(zip((tiny_lalm, other), layers, strict=True))
        )
        first.__enter__()
        run = second.__enter__()
        first.__exit__(None, None, None)
        run(lambda m=other.model: m(**prompt.inputs))
        second.__exit__(None, None, None)
        assert calls == [(1, layers[1])]
        assert dict(AttentionInterface._global_mapping) == table
        assert list(AttentionInterface._global_mapping) == list(table)


def test_a_function_registered_meanwhile_stays(tiny_lalm, prompt):
    table, original = AttentionInterface._global_mapping, AttentionInterface._global_mapping["sdpa"]
    expected = []

    def registered(*args, **kwargs):
        expected.append(1)
        return below(*args, **kwargs)

    try:
        with attention_calls(tiny_lalm.structure, [1], lambda *_: None, "direct"):
            below = table["sdpa"]
            AttentionInterface.register("sdpa", registered)
        assert table["sdpa"] is registered
        plain = tiny_lalm.logits(prompt)
        intercepted_layers = []
        intercepted(
            tiny_lalm,
            lambda: tiny_lalm.model(**prompt.inputs),
            [1],
            lambda layer, *_: intercepted_layers.append(layer),
            "direct",
        )
        assert intercepted_layers == [1]
        assert table["sdpa"] is registered
        assert torch.equal(tiny_lalm.logits(prompt), plain)
        assert expected
    finally:
        AttentionInterface.register("sdpa", original)
