"""Criteria under a baseline: the numbers of a model whose eager attention is edited in every forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import InterventionError
from mata_interp.fusion.criteria import CRITERIA, attribution, knockout, restoration
from mata_interp.fusion.item_context import Decision, ItemContext
from mata_interp.interventions import select_queries
from tests.fusion import reference
from tests.fusion.test_criteria import ITEMS, N, other_clip, with_counterfactual
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
def parts(request) -> tuple[mi.Mata, ...]:
    return BASELINES[request.param]


@pytest.fixture(scope="module", params=ITEMS, ids=["different beginnings", "the same beginning"])
def item(request) -> mi.Item:
    return request.param


@pytest.fixture(scope="module")
def intact(lalm, item) -> ItemContext:
    """The item on the model without an edit."""
    return with_counterfactual(lalm, item)


@pytest.fixture(scope="module")
def context(lalm, item, intact, parts) -> ItemContext:
    """Under the baseline. The deciding tokens stay those without it, so that both can be compared."""
    return under(lalm, item, intact, parts)


def under(lalm, item, intact, parts) -> ItemContext:
    decision, other = intact.decision, other_clip(item)
    return ItemContext(lalm, intact.prompt, decision, other, parts, options=intact.options)


def edits(context: ItemContext) -> list[Edit]:
    audio = context.prompt.groups["audio"][0]
    result = []
    for part in context.baseline:
        queries = select_queries("text", context.prompt.groups)[0] if part.queries == "text" else None
        heads = None if part.heads == "all" else {layer: part.heads for layer in part.layers}
        result.append(Edit(part.alpha, part.layers, part.rule, audio, heads, part.phase, queries=queries))
    return result


def test_suffix_runs_equal_the_edited_model(context, intact, eager):
    with torch.no_grad(), edited(edits(context), context.prompt.width):
        expected = float(
            reference.margin(context, eager(**reference.whole(context), use_cache=False).logits[0, -1])
        )
        states = reference.states(eager, context)
    assert context.suffix_trace.margin == pytest.approx(expected, abs=2e-4)
    assert float(
        context.suffix_runner.margins(1, context.suffix_runner.past_key_values())[0]
    ) == pytest.approx(expected, abs=2e-4)
    for state, expected in zip(context.suffix_trace.states, states, strict=True):
        torch.testing.assert_close(state, expected[0, context.first_text_token :], rtol=1e-4, atol=2e-4)
    assert abs(context.suffix_trace.margin - intact.suffix_trace.margin) > 0.01


def test_option_scores_equal_the_edited_model(context, intact, eager):
    """Alone, and with a knockout after it."""
    audio = context.prompt.groups["audio"][0]
    right, margins = context.item.choices.index(context.item.answer), []
    for layers in ([], [1, 3], [*range(N)]):
        more = [Edit(1.0, layers, "knockout", audio)] if layers else []
        expected = []
        for option in context.options:
            logits = forward(eager, context.prompt.inputs, [*edits(context), *more], option)[:-1].double()
            expected.append(float(logits.log_softmax(-1)[range(len(option)), option].sum()))
        extra = (mi.Mata(1.0, layers, "knockout"),) if layers else ()
        np.testing.assert_allclose(context.answer_scores([extra])[0], expected, atol=2e-4)
        margins.append(expected[right] - max(value for i, value in enumerate(expected) if i != right))
    hidden = knockout.costs(context, "last")["order"].sum()
    assert hidden == pytest.approx(margins[0] - margins[-1], abs=3e-4)
    assert (
        np.abs(knockout.costs(context, "text")["order"] - knockout.costs(intact, "text")["order"]).max()
        > 1e-3
    )


def test_saliency_equals_autograd_through_the_edit(context, intact, eager):
    rows = torch.arange(len(context.text_queries)) + context.first_text_token
    for name, queries in (("saliency_text", context.text_queries), ("saliency_last", context.answer_queries)):
        with edited(edits(context), context.prompt.width):
            expected = reference.saliency(eager, context, rows[queries].tolist())
        np.testing.assert_allclose(CRITERIA[name].measure(context), expected, rtol=3e-3, atol=1e-4)
        assert np.abs(CRITERIA[name].measure(intact) - expected).max() > 1e-3


def test_restoration_equals_patching_the_edited_model(context, eager):
    margins, other = restoration.margins(context), context.counterfactual
    assert other.baseline == context.baseline
    text = torch.cat(
        [
            torch.zeros(context.first_text_token, dtype=torch.bool),
            context.text_queries | context.answer_queries,
        ]
    )
    with edited(edits(context), context.prompt.width):
        clean, corrupted = reference.states(eager, context), reference.states(eager, other)
        for layer in range(N):
            expected = reference.patched(eager, other, clean, context.audio_keys, layer)
            assert margins["restored audio"][layer] == pytest.approx(expected, abs=3e-4)
            expected = reference.patched(eager, context, corrupted, context.audio_keys, layer)
            assert margins["corrupted audio"][layer] == pytest.approx(expected, abs=3e-4)
            expected = reference.patched(eager, other, clean, text, layer)
            assert margins["restored text"][layer] == pytest.approx(expected, abs=3e-4)


@torch.no_grad()
def test_attention_and_attribution_equal_the_edited_model(context, eager):
    with edited(edits(context), context.prompt.width):
        rows = [a[0, :, -1] for a in eager(**reference.whole(context), output_attentions=True).attentions]
    real = torch.arange(len(context.audio_keys)) > 0  # without the sink
    expected = [float((r[:, context.audio_keys].sum(1) / r[:, real].sum(1)).mean()) for r in rows]
    np.testing.assert_allclose(CRITERIA["change_point"].measure(context), expected, atol=1e-5)
    parts = attribution.decomposition(context)
    total = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert total == pytest.approx(parts["margin"], abs=3e-4)


def test_a_baseline_of_strength_zero_changes_nothing(lalm, item, intact):
    nothing = under(lalm, item, intact, (mi.Mata(0.0, [0, 1], "add"),))
    for name, criterion in CRITERIA.items():
        values, expected = criterion.measure(nothing), criterion.measure(intact)
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-4, err_msg=name)


def test_half_precision_is_near(context):
    model, processor = tiny_qwen2_audio(seed=3)
    lalm = mi.LALM(model.bfloat16(), processor)
    half = ItemContext(lalm, context.prompt, context.decision, None, context.baseline)
    exact, rounded = (CRITERIA["saliency_text"].measure(one) for one in (context, half))
    np.testing.assert_allclose(rounded, exact, rtol=0.3, atol=0.1)
    assert half.suffix_trace.margin == pytest.approx(context.suffix_trace.margin, abs=0.3)


def test_the_decision_under_a_baseline_is_taken_under_it(lalm, item, parts):
    """The rival is the wrong option that is most likely under the baseline."""
    context = ItemContext.from_item(lalm, item, baseline=parts)
    scores = lalm.score(context.prompt, [item.choices], parts).logprob[0].copy()
    right = item.choices.index(item.answer)
    scores[right] = -np.inf
    expected = Decision.between(context.options[right], context.options[int(scores.argmax())], None)
    assert context.decision == expected


def test_a_profile_names_its_baseline(lalm):
    suppressed = mi.Mata(-3.0, [1, 2], "add", queries="text")
    names = ("knockout_text", "saliency_last", "depth")
    profile = mi.fusion_layers(lalm, ITEMS, criteria=names, baseline=suppressed, progress=False)
    plain = mi.fusion_layers(lalm, ITEMS, criteria=names, progress=False)
    assert profile.baseline == (suppressed,)
    assert "add -3 on audio in layers 1\u20132, text queries" in profile.summary
    assert mi.FusionProfile.from_dict(profile.to_dict()).baseline == (suppressed,)
    apart = abs(profile.profiles - plain.profiles).max(["item", "layer"])
    assert (apart.sel(criterion=["knockout_text", "saliency_last"]) > 1e-3).all()
    assert float(apart.sel(criterion="depth")) == 0
    with pytest.raises(InterventionError, match="layer 9"):
        mi.fusion_layers(lalm, ITEMS, baseline=mi.Mata(1.0, [9]), progress=False)


def test_prompts_take_a_baseline_too(lalm):
    prompt = lalm.prompt(ITEMS[0])
    suppressed = (mi.Mata(-3.0, [1, 2], "add", queries="text"),)
    profile = mi.fusion_layers(
        lalm, prompt, [(64, 87)], criteria=["knockout_last"], baseline=suppressed, progress=False
    )
    plain = lalm.logits(prompt, suppressed)[0]
    hidden = lalm.logits(prompt, (*suppressed, mi.Mata(1.0, range(N), "knockout")))[0]
    lost = (plain - hidden)[64] - (plain - hidden)[87]
    assert float(profile.profiles.sum()) == pytest.approx(float(lost), abs=1e-4)
