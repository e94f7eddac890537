"""Criteria under a baseline: the numbers of a model whose eager attention is edited in every forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import InterventionError
from mata_interp.fusion.criteria import CRITERIA, attribution, knockout, restoration
from mata_interp.fusion.item_context import ItemContext
from mata_interp.interventions import select_queries
from tests.fusion import reference
from tests.fusion.test_criteria import ITEMS, N, with_other
from tests.reference import Edit, edited, forward
from tests.tiny import tiny_qwen2_audio

BASELINES = {
    "all text": (mi.Mata(-3.0, [1, 2], "add", queries="text"),),
    "the last token": (mi.Mata(-3.0, [1, 2], "add"),),
    "two, some heads": (
        mi.Mata(0.7, [0, 2], "abs", heads=[1, 3], queries="text"),
        mi.Mata(1.0, [3], "knockout", phase="prefill"),
    ),
}


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


@pytest.fixture(scope="module")
def eager():
    return tiny_qwen2_audio(seed=3, attention="eager")[0]


@pytest.fixture(scope="module", params=list(BASELINES))
def parts(request) -> tuple[mi.AttentionEdit, ...]:
    return BASELINES[request.param]


@pytest.fixture(scope="module", params=range(2), ids=["different beginnings", "the same beginning"])
def healthy(lalm, request) -> ItemContext:
    return with_other(lalm, ITEMS[request.param])


@pytest.fixture(scope="module")
def case(lalm, healthy, parts) -> ItemContext:
    """Under the baseline; the deciding tokens stay those without it, so that both can be compared."""
    one = ItemContext(lalm, healthy.prompt, healthy.decision, healthy._other, parts)
    one.options = healthy.options
    return one


def edits(case: ItemContext) -> list[Edit]:
    audio = case.prompt.groups["audio"][0]
    found = []
    for part in case.baseline:
        queries = select_queries("text", case.prompt.groups)[0] if part.queries == "text" else None
        heads = None if part.heads == "all" else {layer: part.heads for layer in part.layers}
        found.append(Edit(part.alpha, part.layers, part.rule, audio, heads, part.phase, queries=queries))
    return found


def test_the_ending_is_that_of_the_edited_model(case, healthy, eager):
    with torch.no_grad(), edited(edits(case), case.prompt.width):
        wanted = float(reference.margin(case, eager(**reference.whole(case), use_cache=False).logits[0, -1]))
        states = reference.states(eager, case)
    assert case.watched.margin == pytest.approx(wanted, abs=2e-4)
    assert float(case.ending.margins(1, case.ending.past())[0]) == pytest.approx(wanted, abs=2e-4)
    for own, theirs in zip(case.watched.states, states, strict=True):
        torch.testing.assert_close(own, theirs[0, case.begin :], rtol=1e-4, atol=2e-4)
    assert abs(case.watched.margin - healthy.watched.margin) > 0.01


def test_what_the_options_get_is_that_of_the_edited_model(case, healthy, eager):
    """Alone, and with a knockout after it."""
    audio = case.prompt.groups["audio"][0]
    right, margins = case.item.choices.index(case.item.answer), []
    for layers in ([], [1, 3], [*range(N)]):
        more = [Edit(1.0, layers, "knockout", audio)] if layers else []
        wanted = []
        for option in case.options:
            logits = forward(eager, case.prompt.inputs, [*edits(case), *more], option)[:-1].double()
            wanted.append(float(logits.log_softmax(-1)[range(len(option)), option].sum()))
        np.testing.assert_allclose(case.told([mi.Mata(1.0, layers, "knockout")])[0], wanted, atol=2e-4)
        margins.append(wanted[right] - max(value for i, value in enumerate(wanted) if i != right))
    hidden = knockout.costs(case, "last")["order"].sum()
    assert hidden == pytest.approx(margins[0] - margins[-1], abs=3e-4)
    assert (
        np.abs(knockout.costs(case, "text")["order"] - knockout.costs(healthy, "text")["order"]).max() > 1e-3
    )


def test_saliency_is_that_of_autograd_through_the_edit(case, healthy, eager):
    rows = torch.arange(len(case.text)) + case.begin
    for name, queries in (("saliency_text", case.text), ("saliency_last", case.speaking)):
        with edited(edits(case), case.prompt.width):
            wanted = reference.saliency(eager, case, rows[queries].tolist())
        np.testing.assert_allclose(CRITERIA[name].measure(case), wanted, rtol=3e-3, atol=1e-4)
        assert np.abs(CRITERIA[name].measure(healthy) - wanted).max() > 1e-3


def test_restoration_is_patching_the_edited_model(case, eager):
    found, other = restoration.margins(case), case.corrupted
    assert other.baseline == case.baseline
    text = torch.cat([torch.zeros(case.begin, dtype=torch.bool), case.text | case.speaking])
    with edited(edits(case), case.prompt.width):
        clean, corrupted = reference.states(eager, case), reference.states(eager, other)
        for layer in range(N):
            wanted = reference.patched(eager, other, clean, case.audio, layer)
            assert found["sound"][layer] == pytest.approx(wanted, abs=3e-4)
            wanted = reference.patched(eager, case, corrupted, case.audio, layer)
            assert found["kept"][layer] == pytest.approx(wanted, abs=3e-4)
            wanted = reference.patched(eager, other, clean, text, layer)
            assert found["text"][layer] == pytest.approx(wanted, abs=3e-4)


@torch.no_grad()
def test_attention_and_its_values_are_those_of_the_edited_model(case, eager):
    with edited(edits(case), case.prompt.width):
        rows = [a[0, :, -1] for a in eager(**reference.whole(case), output_attentions=True).attentions]
    real = torch.arange(len(case.audio)) > 0  # the sink left out
    wanted = [float((r[:, case.audio].sum(1) / r[:, real].sum(1)).mean()) for r in rows]
    np.testing.assert_allclose(CRITERIA["change_point"].measure(case), wanted, atol=1e-5)
    parts = attribution.decomposition(case)
    told = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert told == pytest.approx(parts["margin"], abs=3e-4)


def test_an_edit_of_nothing_changes_nothing(lalm, healthy):
    nothing = ItemContext(
        lalm, healthy.prompt, healthy.decision, healthy._other, (mi.Mata(0.0, [0, 1], "add"),)
    )
    nothing.options = healthy.options
    for name, criterion in CRITERIA.items():
        told, wanted = criterion.measure(nothing), criterion.measure(healthy)
        np.testing.assert_allclose(told, wanted, rtol=2e-3, atol=2e-4, err_msg=name)


def test_half_precision_is_near(case):
    model, processor = tiny_qwen2_audio(seed=3)
    half = ItemContext(mi.LALM(model.bfloat16(), processor), case.prompt, case.decision, None, case.baseline)
    told = [CRITERIA["saliency_text"].measure(one) for one in (case, half)]
    np.testing.assert_allclose(told[1], told[0], rtol=0.3, atol=0.1)
    assert half.watched.margin == pytest.approx(case.watched.margin, abs=0.3)


def test_a_profile_says_what_was_in_force(lalm):
    ill = mi.Mata(-3.0, [1, 2], "add", queries="text")
    names = ("knockout_text", "saliency_last", "depth")
    found = mi.fusion_layers(lalm, ITEMS, criteria=names, baseline=ill, progress=False)
    plain = mi.fusion_layers(lalm, ITEMS, criteria=names, progress=False)
    assert found.baseline == (ill,)
    assert found.sentence.startswith("Under add -3 on audio in layers 1\u20132, text queries: ")
    assert mi.FusionProfile.from_dict(found.to_dict()).baseline == (ill,)
    old = {name: value for name, value in plain.to_dict().items() if name != "baseline"}
    assert mi.FusionProfile.from_dict(old).baseline == ()
    apart = abs(found.profiles - plain.profiles).max(["item", "layer"])
    assert (apart.sel(criterion=["knockout_text", "saliency_last"]) > 1e-3).all()
    assert float(apart.sel(criterion="depth")) == 0
    with pytest.raises(InterventionError, match="No attention in layer 9"):
        mi.fusion_layers(lalm, ITEMS, baseline=mi.Mata(1.0, [9]), progress=False)


def test_prompts_take_a_baseline_too(lalm):
    prompt = lalm.prompt(ITEMS[0])
    ill = (mi.Mata(-3.0, [1, 2], "add", queries="text"),)
    found = mi.fusion_layers(
        lalm, prompt, [(64, 87)], criteria=["knockout_last"], baseline=ill, progress=False
    )
    plain = lalm.logits(prompt, ill)[0]
    hidden = lalm.logits(prompt, (*ill, mi.Mata(1.0, range(N), "knockout")))[0]
    lost = (plain - hidden)[64] - (plain - hidden)[87]
    assert float(found.profiles.sum()) == pytest.approx(float(lost), abs=1e-4)
