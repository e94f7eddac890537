"""Every criterion against a plain reference: autograd with T x T weights, loops of whole forwards."""

from __future__ import annotations

import functools
import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ItemError, MataError, ModelError
from mata_interp.fusion import audio_swaps
from mata_interp.fusion.criteria import (
    CRITERIA,
    Criterion,
    attribution,
    criteria_named,
    knockout,
    restoration,
)
from mata_interp.fusion.criteria.layer_parts import (
    BLOCKS,
    LEAST,
    SMALL,
    costs_and_gains,
    layer_parts,
    starts_at_last,
)
from mata_interp.fusion.item_context import Decision, ItemContext
from mata_interp.fusion.recommend import DECIDING, IN_ORDER, STAND_INS
from mata_interp.fusion.windows import WINDOW_RULES
from mata_interp.lalm import PrefillCache
from mata_interp.statistics import margin as option_margin
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


def other_clip(one: mi.Item) -> mi.Item:
    """The same question about noise of the same length."""
    length = len(one.load_audio(RATE).samples)
    samples = np.random.default_rng(9).normal(0, 0.3, length).astype(np.float32)
    return one.with_audio((samples, RATE))


def with_counterfactual(lalm: mi.LALM, one: mi.Item) -> ItemContext:
    return ItemContext.from_item(lalm, one, other_clip(one))


def in_prompt(context: ItemContext, tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of the suffix, bool [S], among all tokens: bool [T + F]."""
    return torch.cat([torch.zeros(context.first_text_token, dtype=torch.bool), tokens])


@pytest.fixture(scope="module", params=ITEMS, ids=["different beginnings", "the same beginning"])
def context(lalm, request) -> ItemContext:
    return with_counterfactual(lalm, request.param)


def test_the_deciding_token_is_where_options_differ(lalm):
    assert ItemContext.from_item(lalm, ITEMS[0]).decision.forced == ()
    decision = ItemContext.from_item(lalm, ITEMS[1]).decision
    assert lalm.processor.tokenizer.decode(decision.forced) == "a "
    assert Decision.between([5, 6], [5, 6, 7], end=2) == Decision(2, 7, (5, 6))
    assert Decision.between([5], [5], end=2) is None


@torch.no_grad()
def test_suffix_runs_equal_the_whole_run(context, eager):
    logits = eager(**reference.whole(context), use_cache=False).logits[0, -1]
    expected = float(reference.margin(context, logits))
    assert context.suffix_trace.margin == pytest.approx(expected, abs=1e-4)
    assert context.suffix_runner.margins(1, context.suffix_runner.past_key_values())[0] == pytest.approx(
        expected, abs=1e-4
    )
    for state, expected in zip(context.suffix_trace.states, reference.states(eager, context), strict=True):
        torch.testing.assert_close(state, expected[0, context.first_text_token :], rtol=1e-4, atol=1e-4)


def test_saliency_equals_autograd(context, eager):
    rows = torch.arange(len(context.text_queries)) + context.first_text_token
    for name, queries in (("saliency_text", context.text_queries), ("saliency_last", context.answer_queries)):
        expected = reference.saliency(eager, context, rows[queries].tolist())
        np.testing.assert_allclose(CRITERIA[name].measure(context), expected, rtol=2e-3, atol=1e-5)
        assert max(expected) > 0.05


@pytest.mark.parametrize("queries", ["last", "text"])
def test_knockouts_equal_a_loop_of_forwards(context, eager, queries):
    costs = knockout.costs(context, queries)

    @functools.cache
    def margin(layers: tuple) -> float:
        return reference.knocked_out(eager, context, layers, queries == "text")

    def cost(layers) -> float:
        return margin(()) - margin(tuple(layers))

    np.testing.assert_allclose(costs["single"], [cost([i]) for i in range(N)], atol=2e-4)
    others = [[j for j in range(N) if j != i] for i in range(N)]
    np.testing.assert_allclose(costs["others"], [cost(range(N)) - cost(some) for some in others], atol=2e-4)
    np.testing.assert_allclose(
        costs["windows"], [cost([i, i + 1]) for i in range(N - 1)] + [cost([N - 1])], atol=2e-4
    )
    expected = [
        (cost(range(i + 1)) - cost(range(i)) + cost(range(i, N)) - cost(range(i + 1, N))) / 2
        for i in range(N)
    ]
    np.testing.assert_allclose(costs["order"], expected, atol=2e-4)
    assert costs["order"].sum() == pytest.approx(cost(range(N)), abs=2e-4)
    assert np.abs(costs["order"]).max() > 0.05


@pytest.mark.parametrize("rows", ["right", "wrong"])
@pytest.mark.parametrize("from_last", [False, True])
def test_knockouts_of_deep_models_equal_a_loop(monkeypatch, rows, from_last):
    """Measured block by block, from either end. Rows that are off are not used, in later calls either."""
    id = next(id for id in map(str, range(20)) if starts_at_last(id) == from_last)
    one, asked = mi.LALM(*tiny_qwen2_audio(seed=2, layers=14)), replace(ITEMS[0], id=id)
    context = ItemContext.from_item(one, asked)

    def loop(sets):
        edits = [(mi.Knockout(some, queries="text"),) if len(some) else () for some in sets]
        scores = one.score_each(context.prompt, [list(asked.choices)], edits)
        answer = asked.choices.index(asked.answer)
        return np.array([option_margin(score.logprob[0], answer) for score in scores])

    parts = layer_parts(loop, 14, from_last)
    alone, gains = costs_and_gains(loop, 14)
    if rows == "wrong":
        run = PrefillCache.rows
        monkeypatch.setattr(PrefillCache, "rows", lambda self, *args, **more: 1.5 * run(self, *args, **more))
    names = ("knockout_text", "knockout_text_single", "knockout_text_others")
    for name, expected in zip(names, (parts, alone, gains), strict=True):
        np.testing.assert_allclose(CRITERIA[name].measure(context), expected, atol=2e-4)
        assert np.abs(expected).max() > 1e-2
    assert knockout.whole_effect(context) == pytest.approx(parts.sum(), abs=2e-4)
    assert (parts != alone).any()
    assert (alone != gains).any()


def by_ablation(one: mi.LALM) -> np.ndarray:
    """Costs and gains from whole forwards of all items in one batch, padded on the left: [item, 2, N]."""
    prompt = one.prompt(ITEMS)
    assert prompt.inputs["attention_mask"].min() == 0
    every = [*range(N)]
    sets = [[], every, *([i] for i in every), *([j for j in every if j != i] for i in every)]
    edits = [(mi.Knockout(some, queries="text"),) if some else () for some in sets]
    scores = one.score_each(prompt, [list(item.choices) for item in ITEMS], edits)
    margins = np.array(
        [
            [option_margin(score.logprob[row], item.choices.index(item.answer)) for score in scores]
            for row, item in enumerate(ITEMS)
        ]
    )
    without, with_all, alone, others = np.split(margins, [1, 2, 2 + N], axis=1)
    return np.stack([without - alone, others - with_all], axis=1)


def by_criteria(one: mi.LALM) -> np.ndarray:
    """The same by the deciding criteria: [item, 2, N]."""
    contexts = [ItemContext.from_item(one, item) for item in ITEMS]
    return np.array([[CRITERIA[name].measure(context) for name in DECIDING] for context in contexts])


def test_deciding_criteria_equal_a_padded_batch_of_ablations(lalm):
    expected = by_ablation(lalm)
    np.testing.assert_allclose(by_criteria(lalm), expected, atol=2e-4)
    assert np.abs(expected).max(axis=(1, 2)).min() > 0.5


def test_deciding_criteria_in_half_precision_are_as_near_as_the_ablations(lalm):
    """Rounding moves both; the criteria are at most twice as far from single precision as whole forwards."""
    model, processor = tiny_qwen2_audio(seed=3)
    half, exact = mi.LALM(model.bfloat16(), processor), by_ablation(lalm)
    error = np.abs(by_ablation(half) - exact).max()
    assert 0 < error < 0.1 * np.ptp(exact)
    assert np.abs(by_criteria(half) - exact).max() < 2 * error


def test_restoration_equals_patching_the_residual_stream(context, eager):
    margins, other = restoration.margins(context), context.counterfactual
    clean, corrupted = reference.states(eager, context), reference.states(eager, other)
    audio = context.audio_keys
    text = torch.cat(
        [
            torch.zeros(context.first_text_token, dtype=torch.bool),
            context.text_queries | context.answer_queries,
        ]
    )
    last = in_prompt(context, context.answer_queries)
    for layer in range(N):
        expected = reference.patched(eager, other, clean, audio, layer)
        assert margins["restored audio"][layer] == pytest.approx(expected, abs=2e-4)
        expected = reference.patched(eager, context, corrupted, audio, layer)
        assert margins["corrupted audio"][layer] == pytest.approx(expected, abs=2e-4)
    for layer in range(N + 1):
        expected = reference.patched(eager, other, clean, text, layer)
        assert margins["restored text"][layer] == pytest.approx(expected, abs=2e-4)
        expected = reference.patched(eager, other, clean, last, layer)
        assert margins["restored last"][layer] == pytest.approx(expected, abs=2e-4)
    whole = margins["restored audio"][0] - margins["restored audio"][-1]
    for name in ("restoration_audio", "restoration_text", "restoration_last"):
        assert CRITERIA[name].measure(context).sum() == pytest.approx(whole, abs=2e-4)
    assert np.abs(np.diff(margins["restored audio"])).max() > 1e-3


def test_direct_attributions_and_the_rest_add_up_to_the_margin(context):
    parts = attribution.decomposition(context)
    total = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert total == pytest.approx(parts["margin"], abs=2e-4)
    assert max(map(abs, parts["audio"])) > 0.05


@torch.no_grad()
def test_attribution_and_norm_equal_those_computed_from_weights(context, eager):
    """Head by head from eager weights, values and W_O, with the scale of the last norm written out."""
    decoder = eager.model.language_model
    values: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(lambda _, __, out: values.append(out[0]))
        for layer in decoder.layers
    ]
    out = eager(**reference.whole(context), output_attentions=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    last = reference.states(eager, context)[-1][0, -1]
    scale = decoder.norm.weight / (last.pow(2).mean() + decoder.norm.variance_epsilon).sqrt()
    direction = scale * (
        eager.lm_head.weight[context.decision.right] - eager.lm_head.weight[context.decision.wrong]
    )
    audio = context.audio_keys.nonzero()[:, 0]
    attributions, norms = attribution.head_attributions(context), attribution.head_norms(context)
    for layer in range(N):
        w_o = decoder.layers[layer].self_attn.o_proj.weight  # (d, H * Dv)
        for head in range(4):
            v = values[layer][audio, (head // 2) * 8 : (head // 2 + 1) * 8]
            wrote = w_o[:, head * 8 : (head + 1) * 8] @ (out.attentions[layer][0, head, -1, audio] @ v)
            assert float(attributions[layer][head]) == pytest.approx(float(direction @ wrote), abs=1e-4)
            assert float(norms[layer][head]) == pytest.approx(float(wrote.norm()), abs=1e-4)


@torch.no_grad()
def test_the_lens_equals_norm_and_head_on_states(context, eager):
    decoder = eager.model.language_model
    states = reference.states(eager, context)
    where = {
        "lens_audio": context.audio_keys,
        "lens_text": torch.cat(
            [torch.zeros(context.first_text_token, dtype=torch.bool), context.text_queries]
        ),
        "lens_last": torch.arange(len(context.audio_keys)) == len(context.audio_keys) - 1,
    }
    for name, chosen in where.items():
        margins = [
            float(reference.margin(context, eager.lm_head(decoder.norm(s[0, chosen]))).mean()) for s in states
        ]
        np.testing.assert_allclose(CRITERIA[name].measure(context), np.diff(margins), atol=2e-4)


@torch.no_grad()
def test_attention_equals_the_eager_model(context, eager):
    rows = [a[0, :, -1] for a in eager(**reference.whole(context), output_attentions=True).attentions]
    real = torch.arange(len(context.audio_keys)) > 0  # without the sink
    expected = [float((r[:, context.audio_keys].sum(1) / r[:, real].sum(1)).mean()) for r in rows]
    np.testing.assert_allclose(CRITERIA["change_point"].measure(context), expected, atol=1e-5)
    even = float(context.audio_keys.sum()) / float(real.sum())
    np.testing.assert_allclose(CRITERIA["deficit"].measure(context), np.array(expected) / even, atol=1e-4)


LAST_TOKEN = ("saliency_last", "attribution", "value_norm", "deficit", "change_point", "lens_last")


def test_the_last_tokens_alone_give_the_same_numbers(lalm, context):
    """What the last query reads needs no run of the text before it."""
    alone = ItemContext(lalm, context.prompt, context.decision, last_token_only=True)
    assert len(alone.last_token_trace.states[0]) == 1 + len(context.decision.forced)
    assert len(context.last_token_trace.states[0]) == len(context.text_queries)
    for name in LAST_TOKEN:
        values = CRITERIA[name].measure(alone)
        np.testing.assert_allclose(values, CRITERIA[name].measure(context), rtol=1e-3, atol=1e-4)


def test_criteria_of_the_last_token_do_not_run_the_suffix(lalm, context, monkeypatch):
    """``runs_suffix`` is right: who has it not, measures without the suffix trace."""

    def fail(self):
        raise AssertionError("the suffix was run")

    monkeypatch.setattr(ItemContext, "suffix_trace", property(fail))
    alone = ItemContext(
        lalm, context.prompt, context.decision, context._other, last_token_only=True, options=context.options
    )
    for name, criterion in CRITERIA.items():
        if not criterion.runs_suffix:
            assert np.isfinite(criterion.measure(alone)).all(), name


def test_states_of_the_prefill_are_kept_where_a_criterion_reads_them(lalm, context, monkeypatch):
    """``reads_states`` is right: who has it not, measures without; asked for later, they are the same."""
    lean = ItemContext(lalm, context.prompt, context.decision, keep_states=False, options=context.options)
    for state, stored in zip(lean.prefill_states, context.prefill_states, strict=True):
        torch.testing.assert_close(state, stored, rtol=0, atol=0)

    def fail(self):
        raise AssertionError("the states were read")

    monkeypatch.setattr(ItemContext, "prefill_states", property(fail))
    other = with_counterfactual(lalm, context.item)
    for name, criterion in CRITERIA.items():
        if not criterion.reads_states:
            assert np.isfinite(criterion.measure(other)).all(), name


def test_swapped_audio_as_rows_equals_copies_of_the_cache(context, monkeypatch):
    """In blocks of few rows and in one, bit for bit; and against runs with a cache each."""
    rows = restoration._at_audio(context)
    monkeypatch.setattr(audio_swaps, "rows_at_once", lambda width, slots: 3)
    few = restoration._at_audio(context)

    def refuse(*arguments):
        raise mi.errors.ModelError("rows cannot run")

    monkeypatch.setattr(restoration, "swapped_margins", refuse)
    copies = restoration._at_audio(context)
    for kind, margins in rows.items():
        np.testing.assert_allclose(margins, few[kind], rtol=0, atol=1e-5)
        np.testing.assert_allclose(margins, copies[kind], rtol=0, atol=1e-4)
        assert np.ptp(margins) > 1e-2


@pytest.mark.parametrize("seed", [0, 1])
def test_restoration_at_the_text_of_deep_models_is_exact_up_to_small_blocks(seed):
    """Measured block by block: against the margins before every layer. The parts add up to the same whole."""
    deep = with_counterfactual(mi.LALM(*tiny_qwen2_audio(seed=seed, layers=14)), ITEMS[seed])
    exact = np.diff(restoration.at_text(deep)["restored text"])
    parts = CRITERIA["restoration_text"].measure(deep)
    assert parts.sum() == pytest.approx(exact.sum(), abs=2e-4)
    step = -(-14 // BLOCKS)
    for first in range(0, 14, step):
        block = slice(max(0, 14 - first - step), 14 - first)  # from the last layer on
        assert parts[block].sum() == pytest.approx(exact[block].sum(), abs=2e-4)
        if abs(exact[block].sum()) >= 1.01 * max(LEAST, SMALL * abs(exact.sum())):
            np.testing.assert_allclose(parts[block], exact[block], atol=2e-4)
    assert np.abs(exact).max() > 1e-2


@pytest.mark.parametrize("last_token_only", [False, True])
def test_results_do_not_depend_on_the_order_of_criteria(lalm, context, last_token_only):
    """Bit for bit, in the order of the registry, backwards, and in orders drawn at random."""
    names = list(CRITERIA)
    orders = [names, names[::-1], *(np.random.default_rng(seed).permutation(names) for seed in range(3))]
    profiles = []
    for order in orders:
        one = ItemContext(
            lalm,
            context.prompt,
            context.decision,
            other_clip(context.item),
            last_token_only=last_token_only,
            options=context.options,
        )
        measured = {name: CRITERIA[name].measure(one) for name in order}
        profiles.append(np.array([measured[name] for name in names]))
    for profile in profiles[1:]:
        np.testing.assert_array_equal(profile, profiles[0])


def test_criteria_leave_the_context_alone(lalm, context):
    """They store what they share through ``memo`` and nowhere else."""
    one = with_counterfactual(lalm, context.item)
    before = dict(vars(one))
    for criterion in CRITERIA.values():
        criterion.measure(one)
    assert vars(one) == before
    stored = [key for key in one._memo if isinstance(key, tuple) or "restoration" in key]
    assert sorted(map(str, stored)) == sorted(
        map(
            str,
            [
                *(
                    ("knockout cost", q, kind)
                    for q in ("text", "last")
                    for kind in ("order", "single", "others", "windows")
                ),
                *(
                    (shared, q)
                    for q in ("text", "last")
                    for shared in ("costs and gains", "margins with and without")
                ),
                ("parts with the other clip", True),
            ],
        )
    )


@pytest.mark.parametrize("keep_states", [True, False])
def test_a_prefill_without_states_leaves_out_most_of_the_last_layer(keep_states):
    one = mi.LALM(*tiny_qwen2_audio(seed=0))
    counts: list[int] = []
    one.structure.blocks[-1].mlp.register_forward_pre_hook(lambda _, args: counts.append(args[0].shape[1]))
    context = ItemContext.from_item(one, ITEMS[0], other_clip(ITEMS[0]), keep_states=keep_states)
    assert counts[0] == (context.prompt.width if keep_states else 1)
    margins = [CRITERIA[name].measure(context) for name in ("knockout_text", "restoration_audio")]
    whole = ItemContext.from_item(one, ITEMS[0], other_clip(ITEMS[0]))
    for measured, name in zip(margins, ("knockout_text", "restoration_audio"), strict=True):
        np.testing.assert_allclose(measured, CRITERIA[name].measure(whole), atol=1e-5, rtol=0)
        assert np.abs(measured).max() > 1e-2


def test_a_last_layer_that_is_not_built_for_it_is_prefilled_in_whole():
    """One whose feed-forward part gives another sum for one token, except where rows run."""
    one, rows_run = mi.LALM(*tiny_qwen2_audio(seed=0)), []

    def weigh(_, args, out):
        return out * (1 + (out.shape[1] == 1 and not rows_run))

    rows = PrefillCache.rows

    def run(self, *arguments, **more):
        rows_run.append(True)
        return rows(self, *arguments, **more)

    one.structure.blocks[-1].mlp.register_forward_hook(weigh)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PrefillCache, "rows", run)
        context = ItemContext.from_item(one, ITEMS[0], keep_states=False)
    rows_run.clear()
    thrifty = PrefillCache(one.model, one.structure, context.prompt, last_token_only=True).logits
    plain = one.logits(context.prompt)
    np.testing.assert_allclose(context.inputs.prefill.logits.detach(), plain, atol=1e-5, rtol=0)
    assert np.abs(thrifty.detach() - plain).max() > 1e-3


def test_a_context_is_freed_without_the_garbage_collector(lalm, context):
    """No object refers back to the context that made it."""
    one = with_counterfactual(lalm, context.item)
    for criterion in CRITERIA.values():
        criterion.measure(one)
    gone, runner = weakref.ref(one), weakref.ref(one.suffix_runner)
    gc.disable()
    try:
        del one
        assert gone() is None
        assert runner() is None
    finally:
        gc.enable()


def test_the_registry_is_complete_and_consistent():
    assert tuple(CRITERIA)[:2] == DECIDING
    assert len(CRITERIA) == 21
    assert {*IN_ORDER, *STAND_INS} <= set(CRITERIA)
    for name, one in CRITERIA.items():
        assert one.name == name
        assert one.evidence in ("causal", "gradient", "attention", "prior")
        assert one.reads in ("into text", "out at the last token", "either")
        assert one.window_rule in WINDOW_RULES
        assert all((one.label, one.unit, one.formula, one.source))
    with pytest.raises(TypeError):
        Criterion("by", "position")


def test_an_unknown_criterion_is_refused_with_the_nearest_name():
    assert criteria_named(None) == list(CRITERIA)
    assert criteria_named(["depth", "knockout_text"]) == ["knockout_text", "depth"]
    with pytest.raises(MataError, match=r"'salency_last'.*'saliency_last'") as error:
        criteria_named(["depth", "salency_last"])
    assert all(name in str(error.value) for name in CRITERIA)


@pytest.mark.parametrize(
    ("n", "layers_expected"), [(28, range(10, 21)), (8, range(3, 6)), (32, range(10, 21))]
)
def test_depth_matches_published_layers(n, layers_expected):
    layers: Any = SimpleNamespace(layers=tuple(range(n)))
    assert np.flatnonzero(CRITERIA["depth"].measure(layers)).tolist() == list(layers_expected)


def test_half_precision_is_near(context):
    model, processor = tiny_qwen2_audio(seed=3)
    half = mi.LALM(model.bfloat16(), processor)
    other = ItemContext(half, context.prompt, context.decision)
    exact, rough = (CRITERIA["saliency_last"].measure(one) for one in (context, other))
    np.testing.assert_allclose(rough, exact, rtol=0.3, atol=0.05)
    parts = attribution.decomposition(other)
    total = sum(parts["audio"]) + sum(parts["attention"]) + sum(parts["rest"]) + parts["embed"]
    assert total == pytest.approx(parts["margin"], abs=0.1)


def test_the_model_is_unchanged(lalm, context):
    before = lalm.logits(context.prompt)
    trainable = [parameter.requires_grad for parameter in tiny_qwen2_audio(seed=3)[0].parameters()]
    assert [parameter.requires_grad for parameter in lalm.model.parameters()] == trainable
    assert all(parameter.grad is None for parameter in lalm.model.parameters())
    _ = ItemContext.from_item(lalm, ITEMS[0]).suffix_trace
    assert torch.equal(lalm.logits(context.prompt), before)


def test_a_norm_after_the_attention_is_refused(context, monkeypatch):
    states = [state * 1.5 for state in context.last_token_trace.states]
    monkeypatch.setitem(
        context.last_token_trace.__dict__, "states", states[:-1] + context.last_token_trace.states[-1:]
    )
    with pytest.raises(ModelError, match="layer 0"):
        attribution.head_attributions(context)


def test_a_cap_after_the_output_head_is_refused(context, monkeypatch):
    trace = context.last_token_trace
    capped = trace.margin / 2 + 40
    monkeypatch.setitem(trace.__dict__, "margin", capped)
    with pytest.raises(ModelError, match=f"{capped:.4g}"):
        attribution.margin_direction(context)


def test_unusable_items_are_named(lalm):
    lost = mi.Item(audio=ITEMS[0].audio, question="What?", choices=("a", "b"), id="lost")
    with pytest.raises(ItemError, match="lost") as error:
        ItemContext.from_item(lalm, lost)
    assert error.value.field == "answer"
    with pytest.raises(ItemError) as error:
        _ = ItemContext.from_item(lalm, ITEMS[0]).counterfactual
    assert (error.value.item, error.value.field) == (ITEMS[0].id, "audio")
    short = ITEMS[0].with_audio((ITEMS[0].load_audio(RATE).samples[:8000], RATE))
    with pytest.raises(ItemError) as error:
        _ = ItemContext.from_item(lalm, ITEMS[0], short).counterfactual
    assert (error.value.item, error.value.field) == (ITEMS[0].id, "audio")
