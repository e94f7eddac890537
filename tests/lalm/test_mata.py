"""MATA through nnsight equals an eager model that edits its score matrix as the paper says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mata_interp.errors import InterventionError
from mata_interp.interventions import Editing, Mata
from mata_interp.lalm import LALM
from mata_interp.lalm.calls.edited_calls import edited_calls
from tests import reference
from tests.tiny import tiny_qwen2_audio

ALPHA = 0.7
TEXT = ("question", "options", "caption", "template")


def positions(prompt, row: int, keys: str) -> torch.Tensor:
    """Of one row without padding, the positions of a group: found anew, from the inputs where that can be."""
    real = prompt.inputs["attention_mask"][row].bool()
    named = TEXT if keys == "text" else (keys,)
    return torch.stack([prompt.groups[name][row][real] for name in named]).any(0)


def as_reference(mata: Mata, prompt, row: int) -> reference.Edit:
    heads = None if mata.heads == "all" else {layer: mata.heads_of(layer) for layer in mata.layers}
    return reference.Edit(
        mata.alpha,
        mata.layers,
        mata.rule,
        positions(prompt, row, mata.keys),
        heads,
        mata.phase,
        include_self=mata.keys != "text",
        queries=text_behind_audio(prompt, row) if mata.queries == "text" else None,
    )


def text_behind_audio(prompt, row: int) -> torch.Tensor:
    """Of one row without padding."""
    last_before = int(positions(prompt, row, "audio").nonzero()[0])
    return positions(prompt, row, "text") & (torch.arange(len(positions(prompt, row, "text"))) > last_before)


def tokens_of(lalm, text: str) -> list[int]:
    return lalm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


@dataclass
class ItemContext:
    name: str
    matas: tuple[Mata, ...]


CASES = [
    *(ItemContext(rule, (Mata(ALPHA, [1, 2], rule=rule),)) for rule in ("abs", "mul", "add", "knockout")),
    ItemContext("less", (Mata(-0.9, [0, 3], rule="abs"),)),
    ItemContext("heads", (Mata(2.0, [0, 2], rule="add", heads=[1, 3]),)),
    ItemContext("heads by layer", (Mata(2.0, [0, 2], rule="add", heads={0: [1], 2: [0, 2]}),)),
    ItemContext("prefill", (Mata(2.0, [0, 1, 2, 3], rule="add", phase="prefill"),)),
    ItemContext("decode", (Mata(2.0, [0, 1, 2, 3], rule="add", phase="decode"),)),
    ItemContext("text", (Mata(1.0, [1, 2], rule="abs", keys="text"),)),
    ItemContext("question", (Mata(1.0, [1, 2], rule="add", keys="question"),)),
    ItemContext("sink", (Mata(-1.5, [1, 3], rule="add", keys="sink"),)),
    ItemContext("all text", (Mata(ALPHA, [1, 2], queries="text"),)),
    ItemContext("all text, prefill", (Mata(1.0, [0, 2], "add", phase="prefill", queries="text"),)),
    ItemContext("all text, decode", (Mata(2.0, [0, 2], "add", phase="decode", queries="text"),)),
    ItemContext("all text on text", (Mata(1.0, [1, 2], keys="text", queries="text"),)),
    ItemContext("text knockout", (Mata(1.0, [1, 3], "knockout", heads=[0, 2], queries="text"),)),
    ItemContext(
        "as VAF does",
        (
            Mata(0.15, [1, 2], "mul", queries="text"),
            Mata(-0.05, [1, 2], "mul", keys="template", queries="text"),
            Mata(1.0, [1]),
        ),
    ),
    ItemContext("two in order", (Mata(1.0, [1, 2], rule="add"), Mata(0.8, [2, 3], rule="mul"))),
    ItemContext(
        "two phases",
        (Mata(1.0, [1], rule="add", phase="prefill"), Mata(0.8, [1], rule="mul", phase="decode")),
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def matas(request) -> tuple[Mata, ...]:
    return request.param.matas


def test_in_a_forward(tiny_lalm, eager, prompt, matas):
    measured, plain = tiny_lalm.logits(prompt, matas), tiny_lalm.logits(prompt)
    for row in range(prompt.size):
        edits = [as_reference(mata, prompt, row) for mata in matas]
        alone = reference.single(prompt.inputs, row)
        expected, before = (reference.forward(eager, alone, some)[-1] for some in (edits, ()))
        torch.testing.assert_close(measured[row], expected, atol=2e-5, rtol=0)  # of logits up to 12
        # the effect itself, so that no tolerance hides an edit that does nothing
        torch.testing.assert_close(measured[row] - plain[row], expected - before, atol=2e-5, rtol=0)
        moved = (expected - before).abs().max()
        assert moved == 0 if all(m.phase == "decode" for m in matas) else moved > 0.05


def test_in_options_of_several_tokens(tiny_lalm, eager, prompt, matas):
    choices = [item.choices for item in prompt.items]
    measured, plain = (tiny_lalm.score(prompt, choices, some) for some in (matas, None))
    for row, texts in enumerate(choices):
        edits = [as_reference(mata, prompt, row) for mata in matas]
        alone = reference.single(prompt.inputs, row)
        for c, text in enumerate(texts):
            option = tokens_of(tiny_lalm, text)
            expected = reference.logprob(eager, alone, edits, option)
            if c == 1:
                assert expected == pytest.approx(
                    reference.token_by_token(eager, alone, edits, option), abs=1e-5
                )
            assert measured.logprob[row, c] == pytest.approx(expected, abs=2e-5)
            assert measured.tokens[row, c] == len(option)
    assert np.nanmax(np.abs(measured.logprob - plain.logprob)) > 0.2  # and the edit is not a silent no-op
    assert np.isnan(measured.logprob[1, 2:]).all()
    assert not measured.tokens[1, 2:].any()


def test_in_generate(tiny_lalm, eager, prompt, matas):
    steps, end = 6, tiny_lalm.model.generation_config.eos_token_id
    measured = tiny_lalm.generate(prompt, matas, max_new_tokens=steps)
    for row in range(prompt.size):
        edits = [as_reference(mata, prompt, row) for mata in matas]
        expected = reference.greedy(eager, reference.single(prompt.inputs, row), edits, steps, end)
        assert measured[row, : len(expected)].tolist() == expected
    strong = tuple(
        Mata(6.0, m.layers, "add", m.heads if isinstance(m.heads, str) else "all", m.phase, m.keys)
        for m in matas
    )
    assert not torch.equal(
        tiny_lalm.generate(prompt, strong, max_new_tokens=steps),
        tiny_lalm.generate(prompt, max_new_tokens=steps),
    )


@pytest.mark.parametrize(
    "mata",
    [Mata(ALPHA, [1, 2]), Mata(2.0, [0, 3], "add", phase="decode"), Mata(1.0, [1, 2], keys="text")],
    ids=["both", "decode", "text"],
)
def test_scoring_is_decoding_token_by_token(tiny_lalm, prompt, mata):
    """generate, made to say an option with a KV cache, gives it the log-probability that score gives."""
    texts = ["no bell", "a bird.", "ringing"]  # of one length, so that every row decodes to its end
    options = torch.tensor([tokens_of(tiny_lalm, text) for text in texts])
    editing = Editing((mata,), prompt.groups, tiny_lalm.structure.heads)
    with edited_calls(tiny_lalm.structure, editing, "nnsight") as run:
        decoded = run(
            lambda: tiny_lalm.model.generate(
                **prompt.inputs,
                max_new_tokens=options.shape[1],
                do_sample=False,
                prefix_allowed_tokens_fn=lambda row, output: [int(options[row, len(output) - prompt.width])],
                output_logits=True,
                return_dict_in_generate=True,
            )
        )
    assert torch.equal(decoded.sequences[:, prompt.width :], options)
    steps = torch.stack(decoded.logits, 1).double().log_softmax(-1)  # (B, n, vocab)
    by_token = steps.gather(2, options[:, :, None]).sum((1, 2))
    scores = tiny_lalm.score(prompt, [[text] for text in texts], mata)
    np.testing.assert_allclose(scores.logprob[:, 0], by_token, atol=2e-5)
    for name, values in editing.dose().items():
        # decoding never feeds the option's last token, nor does scoring: the same queries are edited
        np.testing.assert_allclose(scores.dose[name], values, atol=1e-5)


@pytest.mark.parametrize("lalm", ["tiny_lalm", "half"])
@pytest.mark.parametrize("nothing", [Mata(5.0, []), (Mata(1.0, []), Mata(2.0, []))], ids=["one", "two"])
def test_no_layers_is_no_intervention(request, lalm, items, nothing):
    same_bits(request.getfixturevalue(lalm), items, nothing)


@pytest.mark.parametrize("lalm", ["tiny_lalm", "half"])
@pytest.mark.parametrize(
    ("rule", "keys"), [("abs", "audio"), ("mul", "audio"), ("add", "audio"), ("abs", "text")]
)
def test_alpha_zero_is_no_intervention(request, lalm, items, rule, keys):
    same_bits(request.getfixturevalue(lalm), items, Mata(0.0, [0, 1, 2, 3], rule=rule, keys=keys))


def same_bits(lalm, items, nothing):
    prompt, choices = lalm.prompt(items), [item.choices for item in items]
    with torch.inference_mode():
        expected = lalm.model(**lalm.prepare(prompt).inputs).logits[:, -1]
    assert torch.equal(lalm.logits(prompt), expected)
    assert torch.equal(lalm.logits(prompt, nothing), expected)
    plain, edited = lalm.score(prompt, choices), lalm.score(prompt, choices, nothing)
    np.testing.assert_array_equal(plain.logprob, edited.logprob)
    assert torch.equal(
        lalm.generate(prompt, max_new_tokens=5), lalm.generate(prompt, nothing, max_new_tokens=5)
    )


def test_a_small_edit_is_not_lost_in_bfloat16(half, tiny_lalm, items):
    """The effect in bfloat16 is that of float32 to bfloat16's own precision, and not rounded away."""
    mata = Mata(ALPHA, [1, 2])
    moved = [
        (lalm.logits(lalm.prompt(items), mata) - lalm.logits(lalm.prompt(items))).float()
        for lalm in (half, tiny_lalm)
    ]
    assert torch.cosine_similarity(moved[0].flatten(), moved[1].flatten(), dim=0) > 0.98


def test_generate_without_intervention_is_the_models_own(tiny_lalm, prompt):
    expected = tiny_lalm.model.generate(**prompt.inputs, max_new_tokens=5, do_sample=False)[:, prompt.width :]
    assert torch.equal(tiny_lalm.generate(prompt, max_new_tokens=5), expected)


def test_rows_do_not_depend_on_their_batch(tiny_lalm, items, prompt):
    mata, choices = Mata(ALPHA, [1, 2]), [item.choices for item in items]
    logits, scores = tiny_lalm.logits(prompt, mata), tiny_lalm.score(prompt, choices, mata)
    for row, item in enumerate(items):
        alone = tiny_lalm.prompt(item)
        assert alone.width == int(prompt.inputs["attention_mask"][row].sum())
        torch.testing.assert_close(tiny_lalm.logits(alone, mata)[0], logits[row], atol=1e-5, rtol=0)
        output = tiny_lalm.generate(alone, mata, max_new_tokens=4)[0]
        assert torch.equal(output, tiny_lalm.generate(prompt, mata, max_new_tokens=4)[row, : len(output)])
        one = tiny_lalm.score(alone, [item.choices], mata)
        few = len(item.choices)
        np.testing.assert_allclose(one.logprob[0], scores.logprob[row, :few], atol=2e-5)
        for name, values in scores.dose.items():
            assert one.dose[name][0] == pytest.approx(values[row], abs=1e-5)


def test_a_model_on_eager_attention_is_edited_alike(tiny_lalm, prompt, items):
    """The site is the same call, the mask another: float and added."""
    mata, choices, other = (
        Mata(ALPHA, [1, 2]),
        [item.choices for item in items],
        LALM(*tiny_qwen2_audio(seed=0, attention="eager")),
    )
    torch.testing.assert_close(other.logits(prompt, mata), tiny_lalm.logits(prompt, mata), atol=2e-5, rtol=0)
    scores = [lalm.score(prompt, choices, mata).logprob for lalm in (other, tiny_lalm)]
    np.testing.assert_allclose(*scores, atol=4e-5)


def test_composition_is_in_order(tiny_lalm, prompt):
    one, two = Mata(3.0, [1], rule="add"), Mata(0.8, [1], rule="mul")
    first = tiny_lalm.logits(prompt, (one, two))
    assert (first - tiny_lalm.logits(prompt, (two, one))).abs().max() > 1e-2
    assert torch.equal(first, tiny_lalm.logits(prompt, [one, two]))


def test_phases(tiny_lalm, prompt):
    """Prefill reaches the first token, decode all later ones, both every one."""
    choices = [["ab"]] * prompt.size
    first = [["a"]] * prompt.size

    def moved(phase: str, texts) -> np.ndarray:
        edited = tiny_lalm.score(prompt, texts, Mata(2.0, [1, 2], rule="add", phase=phase))
        return np.abs(edited.logprob - tiny_lalm.score(prompt, texts).logprob)

    assert (moved("decode", first) == 0).all()
    assert (moved("prefill", first) > 1e-2).all()
    np.testing.assert_array_equal(moved("prefill", first), moved("both", first))
    assert (moved("decode", choices) > 1e-2).all()


def test_dose(tiny_lalm, eager, prompt):
    mata = Mata(ALPHA, [1, 2], rule="abs", phase="prefill")
    dose = tiny_lalm.score(prompt, [item.choices for item in prompt.items], mata).dose
    for row in range(prompt.size):
        alone, audio = reference.single(prompt.inputs, row), positions(prompt, row, "audio")
        before = [w[0][:, audio].sum(-1) for w in reference.last_row(eager, alone)]
        assert dose["mass_before"][row] == pytest.approx(
            _after_edit(eager, alone, mata, audio, before), abs=1e-5
        )
        assert 0 < dose["negative"][row] < 1
    assert (dose["mass_after"] > dose["mass_before"]).all()
    assert (dose["kl"] > 0).all()
    assert (dose["boost"] > 0).all()


def _after_edit(eager, alone, mata, audio, before) -> float:
    """Mean mass on audio, before the edit of each layer, after those of the layers below it."""
    edit = reference.Edit(mata.alpha, [1], mata.rule, audio, phase=mata.phase)
    with reference.edited([edit], alone["input_ids"].shape[1]), torch.no_grad():
        layers = eager(**alone, output_attentions=True).attentions
    above = layers[2][0, :, -1][:, audio].sum(-1)
    return float(torch.stack([before[1], above]).mean())


def test_without_an_intervention_there_is_no_dose(tiny_lalm, prompt):
    assert tiny_lalm.score(prompt, [item.choices for item in prompt.items]).dose == {}


def test_dose_of_alpha_zero_and_of_add(tiny_lalm, prompt):
    choices = [item.choices for item in prompt.items]
    none = tiny_lalm.score(prompt, choices, Mata(0.0, [1])).dose
    np.testing.assert_array_equal(none["mass_before"], none["mass_after"])
    assert not none["kl"].any()
    assert not none["boost"].any()
    np.testing.assert_allclose(
        tiny_lalm.score(prompt, choices, Mata(0.3, [1], "add")).dose["boost"], 0.3, atol=1e-6
    )


@pytest.mark.parametrize(
    ("mata", "output"),
    [
        (Mata(0.1, [4]), "No attention in layer 4: the model has it in layers 0-3"),
        (Mata(0.1, [0, 3], heads=[4]), "No head 4 in layer 0: its heads are 0-3"),
        (Mata(0.1, [0], keys="vision"), "No group 'vision'"),
        (Mata(0.1, [0], keys="caption"), "Row 0 of the prompt has no caption tokens"),
    ],
)
def test_what_the_model_or_prompt_lacks(tiny_lalm, prompt, mata, output):
    for use in (
        lambda: tiny_lalm.logits(prompt, mata),
        lambda: tiny_lalm.generate(prompt, mata),
        lambda: tiny_lalm.score(prompt, [item.choices for item in prompt.items], mata),
    ):
        with pytest.raises(InterventionError, match=output):
            use()


def test_not_an_intervention(tiny_lalm, prompt):
    with pytest.raises(InterventionError, match="is not an intervention"):
        tiny_lalm.logits(prompt, (Mata(0.1, [0]), math.pi))
