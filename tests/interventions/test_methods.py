"""Every method of the catalogue through `logits`, `score` and `generate`, against hooks on an eager model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from mata_interp.benchmarks import Item
from mata_interp.errors import InterventionError
from mata_interp.interventions import AttentionEdit, Knockout, Mata, in_order
from mata_interp.interventions.catalogue import Aad, Array, InstABoost, Seka, Steering
from mata_interp.lalm import LALM
from tests import reference
from tests.interventions import plain_methods as plain
from tests.interventions.cases import CASES, DIRECTIONS, RAISES, Case, reference_of
from tests.tiny import RATE, tiny_qwen2_audio

STEPS = 4


@pytest.fixture(scope="module")
def eager():
    return tiny_qwen2_audio(seed=0, attention="eager")[0]


@pytest.fixture(scope="module", params=[1, 2], ids=["one prompt", "two, left-padded"])
def prompt(request, tiny_lalm):
    noise = np.random.default_rng(0)
    texts = [("Which of them comes first?", ("no", "rain falls")), ("How many?", ("one", "two", "y"))]
    items = [
        Item(audio=(noise.normal(0, 0.1, n).astype(np.float32), RATE), question=question, choices=choices)
        for n, (question, choices) in zip((9_000, 5_000), texts, strict=True)
    ]
    made = tiny_lalm.prompt(items[: request.param])
    assert made.inputs["attention_mask"].all() == (request.param == 1)
    return made


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def rows_of(prompt):
    return [(row, reference.single(prompt.inputs, row)) for row in range(prompt.size)]


def test_in_a_forward(tiny_lalm, eager, prompt, case):
    logits, before = tiny_lalm.logits(prompt, case.method), tiny_lalm.logits(prompt)
    for row, alone in rows_of(prompt):
        expected = reference_of(case, tiny_lalm, eager, prompt, row)(alone, ())[-1]
        torch.testing.assert_close(logits[row], expected, atol=5e-5, rtol=0)
        finite = expected > -torch.inf
        moved = (expected - plain.run(eager, alone, ())[-1])[finite]
        torch.testing.assert_close((logits[row] - before[row])[finite], moved, atol=5e-5, rtol=0)
        assert (moved.abs().max() > 1e-3) == case.in_prompt


def test_in_options(tiny_lalm, eager, prompt, case):
    scores, before = tiny_lalm.score(prompt, None, case.method), tiny_lalm.score(prompt)
    for row, alone in rows_of(prompt):
        forward = reference_of(case, tiny_lalm, eager, prompt, row)
        for c, text in enumerate(prompt.items[row].choices):
            tokens = tiny_lalm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            logp = forward(alone, tokens)[:-1].double().log_softmax(-1)
            expected = float(logp[range(len(tokens)), tokens].sum())
            assert scores.logprob[row, c] == pytest.approx(expected, abs=1e-4)
    assert np.nanmin(np.nanmax(np.abs(scores.logprob - before.logprob), 1)) > 1e-3


def test_in_generation(tiny_lalm, eager, prompt, case):
    answer = tiny_lalm.answer(prompt, case.method, max_new_tokens=STEPS)
    end = tiny_lalm.model.generation_config.eos_token_id
    for row, alone in rows_of(prompt):
        forward, tokens = reference_of(case, tiny_lalm, eager, prompt, row), []
        while len(tokens) < STEPS and end not in tokens:
            tokens.append(int(forward(alone, tokens)[-1].argmax()))
        assert answer.tokens[row, : len(tokens)].tolist() == tokens


def test_zero_strength_is_bit_for_bit_no_intervention(tiny_lalm, prompt, case):
    assert torch.equal(tiny_lalm.logits(prompt, case.nothing), tiny_lalm.logits(prompt))
    scores = [tiny_lalm.score(prompt, None, edit).logprob for edit in (case.nothing, None)]
    np.testing.assert_array_equal(*scores)
    tokens = [tiny_lalm.generate(prompt, edit, max_new_tokens=STEPS) for edit in (case.nothing, None)]
    assert torch.equal(*tokens)


SITES = ("instaboost", "seka", "head mask", "steering, given", "aad omitted", "dola")


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_no_hook_stays(tiny_lalm, prompt, name, fails):
    case = CASES[name]

    def count() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny_lalm.model.modules())

    class Broken:
        def __init__(self, method: Any) -> None:
            self._method = method

        def __getattr__(self, name: str) -> Any:
            return getattr(self._method, name)

        def edit(self, x, context):
            raise ZeroDivisionError

    before = count()
    if fails:
        with pytest.raises(ZeroDivisionError):
            tiny_lalm.logits(prompt, Broken(case.method))
    else:
        tiny_lalm.generate(prompt, case.method, max_new_tokens=2)
    assert count() == before
    assert tiny_lalm.score(prompt).logprob.shape[0] == prompt.size


def test_methods_and_edits_together(tiny_lalm, prompt):
    """Sites are reached in the order of the forward pass, whatever the order of the parts."""
    mata, boost, vista = (
        Mata(1.0, [1, 2], "add"),
        InstABoost((1, 2)),
        Steering((0, 2), directions=Array(DIRECTIONS)),
    )
    one = tiny_lalm.logits(prompt, (mata, boost, vista))
    assert torch.equal(one, tiny_lalm.logits(prompt, (vista, boost, mata)))
    for parts in ((mata, boost), (mata, vista), (boost, vista)):
        assert (one - tiny_lalm.logits(prompt, parts)).abs().max() > 1e-3


def test_edits_are_off_in_the_extra_pass(tiny_lalm, prompt):
    """(1 + a) l_edited - a l_without: PAI's boost is not in force in its unconditional pass."""
    mata = Mata(2.0, [1, 2], "add")
    without = tiny_lalm.logits(tiny_lalm.prompt(prompt.items, audio=None))
    expected = 1.5 * tiny_lalm.logits(prompt, mata) - 0.5 * without
    torch.testing.assert_close(tiny_lalm.logits(prompt, (mata, Aad(0.5))), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("where", ["sdpa", "eager"])
def test_the_mask_and_the_protocol_make_the_same_edit(tiny_lalm, prompt, where):
    """An AttentionEdit beside a method runs through the protocol; alone, through the fast path."""
    lalm = tiny_lalm if where == "sdpa" else LALM(*tiny_qwen2_audio(seed=0, attention="eager"))
    for edit in (
        Mata(0.7, [1, 2]),
        Mata(1.0, [1, 2], "add", keys="text", heads=[0, 3]),
        Mata(1.0, [1, 2], queries="text"),
        Knockout([1, 2]),
    ):
        nothing = InstABoost((1, 2), 1.0)
        torch.testing.assert_close(
            lalm.logits(prompt, (edit, nothing)), lalm.logits(prompt, edit), atol=2e-5, rtol=0
        )


@dataclass(frozen=True)
class Elsewhere:
    site: str = "scores"
    layers: tuple[int, ...] = (1,)
    queries: str = "last"
    phase: str = "both"

    def edit(self, x, context):
        return x


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"site": "score"}, "No site 'score'.*Did you mean 'scores'"),
        ({"queries": "text only"}, "No queries 'text only'"),
        ({"phase": "encode"}, "No phase 'encode'.*Did you mean 'decode'"),
        ({"layers": (7,)}, "No attention in layer 7"),
        ({"site": "residual", "layers": (7,)}, "No layer 7"),
        ({"site": "keys", "layers": (7,)}, "No attention in layer 7"),
        ({"site": "logits"}, "no negative_prompt"),
    ],
)
def test_methods_that_make_no_sense(tiny_lalm, prompt, wrong, message):
    with pytest.raises(InterventionError, match=message):
        tiny_lalm.logits(prompt, Elsewhere(**wrong))


def test_two_extra_passes_are_refused(tiny_lalm, prompt):
    with pytest.raises(InterventionError, match="Aad, Aad"):
        tiny_lalm.logits(prompt, (Aad(0.5), Aad(0.2)))


def test_a_model_with_a_joint_projection_is_refused(tiny_lalm, prompt, monkeypatch):
    monkeypatch.setattr("mata_interp.lalm.site_hooks._PROJECTIONS", {"keys": ("wqkv",)})
    with pytest.raises(InterventionError, match="wqkv"):
        tiny_lalm.logits(prompt, Seka((1, 2), **RAISES))


def test_fusion_layers_refuses_other_sites(tiny_lalm, prompt):
    import mata_interp as mi

    with pytest.raises(InterventionError, match="InstABoost"):
        mi.fusion_layers(tiny_lalm, list(prompt.items), baseline=InstABoost((1,)), progress=False)


def test_parts_without_layers_do_nothing():
    assert in_order((Steering(()), Aad(), AttentionEdit(1.0, []))) == (Aad(),)
