"""Every criterion against a plain reference: autograd with T x T weights, loops of whole forwards."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ItemError, ModelError
from mata_interp.fusion.criteria import CRITERIA, attribution, knockout, restoration
from mata_interp.fusion.item_context import Decision, ItemContext
from tests.fusion import reference
from tests.sweeps.test_sweep import item
from tests.tiny import RATE, tiny_qwen2_audio

ALIKE = ("a bell", "a crow", "a siren")  # begin with the same two tokens
ITEMS = [
    item(0.9, "Which sound is heard first?"),
    item(0.5, "What is it?", ALIKE, seed=1),
]
N = 4


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


@pytest.fixture(scope="module")
def eager():
    return tiny_qwen2_audio(seed=3, attention="eager")[0]


def with_other(lalm: mi.LALM, one: mi.Item) -> ItemContext:
    length = len(one.load_audio(RATE).samples)
    sound = np.random.default_rng(9).normal(0, 0.3, length).astype(np.float32)
    return ItemContext.of_item(lalm, one, one.with_audio((sound, RATE)))


@pytest.fixture(scope="module", params=range(2), ids=["different beginnings", "the same beginning"])
def case(lalm, request) -> ItemContext:
    return with_other(lalm, ITEMS[request.param])


def test_the_deciding_token_is_where_options_part(lalm):
    assert ItemContext.of_item(lalm, ITEMS[0]).decision.forced == ()
    decision = ItemContext.of_item(lalm, ITEMS[1]).decision
    assert lalm.processor.tokenizer.decode(decision.forced) == "a "
    assert Decision.between([5, 6], [5, 6, 7], end=2) == Decision(2, 7, (5, 6))
    assert Decision.between([5], [5], end=2) is None


@torch.no_grad()
def test_the_ending_run_again_is_the_whole_run(case, eager):
    logits = eager(**reference.whole(case), use_cache=False).logits[0, -1]
    wanted = float(reference.margin(case, logits))
    assert case.watched.margin == pytest.approx(wanted, abs=1e-4)
    assert case.ending.margins(1, case.ending.past())[0] == pytest.approx(wanted, abs=1e-4)
    for own, theirs in zip(case.watched.states, reference.states(eager, case), strict=True):
        torch.testing.assert_close(own, theirs[0, case.begin :], rtol=1e-4, atol=1e-4)


def test_saliency_is_that_of_autograd(case, eager):
    rows = torch.arange(len(case.text)) + case.begin
    for name, queries in (("saliency_text", case.text), ("saliency_last", case.speaking)):
        wanted = reference.saliency(eager, case, rows[queries].tolist())
        np.testing.assert_allclose(CRITERIA[name].measure(case), wanted, rtol=2e-3, atol=1e-5)
        assert max(wanted) > 0.05


@pytest.mark.parametrize("queries", ["last", "text"])
def test_knockouts_are_a_loop_of_forwards(case, eager, queries):
    found = knockout.costs(case, queries)

    @functools.cache
    def margin(layers: tuple) -> float:
        return reference.knocked_out(eager, case, layers, queries == "text")

    def cost(layers) -> float:
        return margin(()) - margin(tuple(layers))

    np.testing.assert_allclose(found["single"], [cost([i]) for i in range(N)], atol=2e-4)
    np.testing.assert_allclose(
        found["windows"], [cost([i, i + 1]) for i in range(N - 1)] + [cost([N - 1])], atol=2e-4
    )
    wanted = [
        (cost(range(i + 1)) - cost(range(i)) + cost(range(i, N)) - cost(range(i + 1, N))) / 2
        for i in range(N)
    ]
    np.testing.assert_allclose(found["order"], wanted, atol=2e-4)
    assert found["order"].sum() == pytest.approx(cost(range(N)), abs=2e-4)
    assert np.abs(found["order"]).max() > 0.05


def test_restoration_is_patching_the_residual_stream(case, eager):
    found, other = restoration.margins(case), case.corrupted
    clean, corrupted = reference.states(eager, case), reference.states(eager, other)
    sound = case.audio
    text = torch.cat([torch.zeros(case.begin, dtype=torch.bool), case.text | case.speaking])
    last = torch.cat([torch.zeros(case.begin, dtype=torch.bool), case.speaking])
    for layer in range(N):
        wanted = reference.patched(eager, other, clean, sound, layer)
        assert found["sound"][layer] == pytest.approx(wanted, abs=2e-4)
        wanted = reference.patched(eager, case, corrupted, sound, layer)
        assert found["kept"][layer] == pytest.approx(wanted, abs=2e-4)
    for layer in range(N + 1):
        wanted = reference.patched(eager, other, clean, text, layer)
        assert found["text"][layer] == pytest.approx(wanted, abs=2e-4)
        wanted = reference.patched(eager, other, clean, last, layer)
        assert found["last"][layer] == pytest.approx(wanted, abs=2e-4)
    whole = found["sound"][0] - found["sound"][-1]
    for name in ("restoration_audio", "restoration_text", "restoration_last"):
        assert CRITERIA[name].measure(case).sum() == pytest.approx(whole, abs=2e-4)
    assert np.abs(np.diff(found["sound"])).max() > 1e-3


def test_direct_attributions_and_the_rest_are_the_margin(case):
    parts = attribution.decomposition(case)
    told = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert told == pytest.approx(parts["margin"], abs=2e-4)
    assert max(map(abs, parts["audio"])) > 0.05


@torch.no_grad()
def test_attribution_and_norm_are_those_of_the_weights(case, eager):
    """Head by head from eager weights, values and W_O, the last norm's scale by hand."""
    decoder = eager.model.language_model
    values: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(lambda _, __, out: values.append(out[0]))
        for layer in decoder.layers
    ]
    out = eager(**reference.whole(case), output_attentions=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    last = reference.states(eager, case)[-1][0, -1]
    scale = decoder.norm.weight / (last.pow(2).mean() + decoder.norm.variance_epsilon).sqrt()
    direction = scale * (
        eager.lm_head.weight[case.decision.right] - eager.lm_head.weight[case.decision.wrong]
    )
    audio = case.audio.nonzero()[:, 0]
    found, norms = attribution.attributed(case), attribution.written(case)
    for layer in range(N):
        w_o = decoder.layers[layer].self_attn.o_proj.weight  # (d, H * Dv)
        for head in range(4):
            v = values[layer][audio, (head // 2) * 8 : (head // 2 + 1) * 8]
            wrote = w_o[:, head * 8 : (head + 1) * 8] @ (out.attentions[layer][0, head, -1, audio] @ v)
            assert float(found[layer][head]) == pytest.approx(float(direction @ wrote), abs=1e-4)
            assert float(norms[layer][head]) == pytest.approx(float(wrote.norm()), abs=1e-4)


@torch.no_grad()
def test_the_lens_is_norm_and_head_on_the_states(case, eager):
    decoder = eager.model.language_model
    states = reference.states(eager, case)
    where = {
        "lens_audio": case.audio,
        "lens_text": torch.cat([torch.zeros(case.begin, dtype=torch.bool), case.text]),
        "lens_last": torch.arange(len(case.audio)) == len(case.audio) - 1,
    }
    for name, chosen in where.items():
        told = [
            float(reference.margin(case, eager.lm_head(decoder.norm(s[0, chosen]))).mean()) for s in states
        ]
        np.testing.assert_allclose(CRITERIA[name].measure(case), np.diff(told), atol=2e-4)


@torch.no_grad()
def test_attention_is_that_of_the_eager_model(case, eager):
    rows = [a[0, :, -1] for a in eager(**reference.whole(case), output_attentions=True).attentions]
    real = torch.arange(len(case.audio)) > 0  # the sink left out
    wanted = [float((r[:, case.audio].sum(1) / r[:, real].sum(1)).mean()) for r in rows]
    np.testing.assert_allclose(CRITERIA["change_point"].measure(case), wanted, atol=1e-5)
    even = float(case.audio.sum()) / float(real.sum())
    np.testing.assert_allclose(CRITERIA["deficit"].measure(case), np.array(wanted) / even, atol=1e-4)


def test_the_last_tokens_alone_tell_the_same(lalm, case):
    """What the last query reads needs no text run again."""
    alone = ItemContext(lalm, case.prompt, case.decision)
    for name in ("saliency_last", "attribution", "value_norm", "deficit", "change_point", "lens_last"):
        told = CRITERIA[name].measure(alone)
        assert "watched" not in alone.__dict__
        _ = case.watched
        np.testing.assert_allclose(told, CRITERIA[name].measure(case), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("n", "wanted"), [(28, range(10, 21)), (8, range(3, 6)), (32, range(10, 21))])
def test_depth_is_the_papers(n, wanted):
    layers: Any = SimpleNamespace(layers=tuple(range(n)))
    assert np.flatnonzero(CRITERIA["depth"].measure(layers)).tolist() == list(wanted)


def test_half_precision_is_near(case):
    model, processor = tiny_qwen2_audio(seed=3)
    half = mi.LALM(model.bfloat16(), processor)
    other = ItemContext(half, case.prompt, case.decision)
    exact, rough = (CRITERIA["saliency_last"].measure(one) for one in (case, other))
    np.testing.assert_allclose(rough, exact, rtol=0.3, atol=0.05)
    parts = attribution.decomposition(other)
    told = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert told == pytest.approx(parts["margin"], abs=0.1)


def test_the_model_is_left_as_it_was(lalm, case):
    before = lalm.logits(case.prompt)
    wanted = [parameter.requires_grad for parameter in tiny_qwen2_audio(seed=3)[0].parameters()]
    assert [parameter.requires_grad for parameter in lalm.model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in lalm.model.parameters())
    _ = ItemContext.of_item(lalm, ITEMS[0]).watched
    assert torch.equal(lalm.logits(case.prompt), before)


def test_a_norm_behind_the_attention_is_refused(case, monkeypatch):
    states = [state * 1.5 for state in case.said.states]
    monkeypatch.setitem(case.said.__dict__, "states", states[:-1] + case.said.states[-1:])
    with pytest.raises(ModelError, match="a norm or factor stands behind the attention of layer 0"):
        attribution.attributed(case)


def test_a_cap_behind_the_head_is_refused(case, monkeypatch):
    monkeypatch.setitem(case.said.__dict__, "margin", case.said.margin / 2 + 40)
    with pytest.raises(ModelError, match="something stands behind the output head"):
        attribution.direction(case)


def test_items_that_cannot_be_asked_are_named(lalm):
    lost = mi.Item(audio=ITEMS[0].audio, question="What?", choices=("a", "b"), id="lost")
    with pytest.raises(ItemError, match="'lost', field 'answer'"):
        ItemContext.of_item(lalm, lost)
    with pytest.raises(ItemError, match="no other sound"):
        _ = ItemContext.of_item(lalm, ITEMS[0]).corrupted
    short = ITEMS[0].with_audio((ITEMS[0].load_audio(RATE).samples[:8000], RATE))
    with pytest.raises(ItemError, match="another number of tokens"):
        _ = ItemContext.of_item(lalm, ITEMS[0], short).corrupted
