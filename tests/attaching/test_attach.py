"""A plain model with an attached intervention gives the tokens and the dose of `LALM.answer`."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import compat
from mata_interp.errors import ArgumentError, InterventionError, ModelError
from mata_interp.interventions import catalogue as c
from mata_interp.interventions import in_order
from mata_interp.lalm import LALM
from tests.lalm.test_nothing_left_behind import snapshot
from tests.tiny import tiny_qwen2_audio

NEW = 12
MATA = mi.Mata(1.5, [1, 2], "add")
WAYS = {
    "greedy": {},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
}
PARTS = {
    "abs": mi.Mata(2.0, [0, 3]),
    "one head": mi.Mata(3.0, [1, 2], "add", heads={1: [0, 2], 2: [1]}),
    "prefill": mi.Mata(1.5, [1, 2], "add", phase="prefill"),
    "decode": mi.Mata(1.5, [1, 2], "add", phase="decode"),
    "text queries": mi.Mata(1.5, [1, 2], "add", queries="text"),
    "text keys": mi.Mata(1.5, [1, 2], "add", keys="text"),
    "generated keys": (mi.Mata(1.5, [1, 2], "add"), mi.Mata(1.5, [1], "add", keys="generated")),
    "knockout": mi.Knockout([1], queries="text"),
    "weights": c.InstABoost((1, 2)),
    "head outputs": c.HeadMask((1,), ((0, 2),)),
    "values": c.ValueScaling((1, 2)),
    "residual stream": c.Steering((1, 2), 0.3, c.Array(torch.ones(2, 32))),
    "early logits": c.Dola((0, 1)),
    "scores of a method": mi.DoseTargetedMata((1, 2), 0.9),
    "a count": mi.DoseTargetedSham((1, 2), 0.9),
    "weights beside scores": (MATA, c.InstABoost((2, 3))),
    "weights beside values": (c.InstABoost((1,)), c.ValueScaling((2,))),
    "measured": c.GatedScaling((1, 2), 2.0, 0.2),
    "confidence": c.Caac((1, 2)),
    "contrast with an edited pass": c.Owl((1, 2)),
}


def generate(lalm, inputs, **how):
    """The new tokens, as from transformers alone."""
    sequences = lalm.model.generate(**inputs, **{"max_new_tokens": NEW, "do_sample": False} | how)
    return sequences[:, inputs["input_ids"].shape[1] :]


def read_answer(lalm, inputs, answer: list[int]) -> None:
    """Read a prompt and then an answer's tokens but the last, one forward for each."""
    output = lalm.model(**inputs, use_cache=True)
    for token in answer[:-1]:
        output = lalm.model(
            input_ids=torch.tensor([[token]]),
            attention_mask=torch.ones(1, output.past_key_values.get_seq_length() + 1),
            past_key_values=output.past_key_values,
        )


def same_dose(measured, expected):
    assert set(measured) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(measured[name], values, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def expected(lalm, prompt):
    output = lalm.answer(prompt, MATA, max_new_tokens=NEW)
    plain = lalm.answer(prompt, max_new_tokens=NEW)
    assert (plain.tokens[:, :6] != output.tokens[:, :6]).any(1).all()  # the edit moves every answer
    return output


@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_dose_are_those_of_the_lalm(lalm, prompt, expected, way):
    with mi.attach(lalm.model, MATA) as attached:
        assert torch.equal(generate(lalm, prompt.inputs, **WAYS[way]), expected.tokens)
    same_dose(attached.dose, expected.dose)


@pytest.mark.parametrize("part", PARTS)
def test_every_site(lalm, prompt, part):
    expected = lalm.answer(prompt, PARTS[part], max_new_tokens=NEW)
    with mi.attach(lalm.model, PARTS[part]) as attached:
        assert torch.equal(generate(lalm, prompt.inputs), expected.tokens)
    if expected.dose:
        same_dose(attached.dose, expected.dose)
    else:
        with pytest.raises(InterventionError, match="only edits of attention scores and weights have a dose"):
            _ = attached.dose
    assert bool(expected.dose) == any(some.site in ("scores", "weights") for some in in_order(PARTS[part]))


def test_nothing_is_left_behind(lalm, prompt):
    generate(lalm, prompt.inputs)
    before = snapshot(lalm.model)
    with mi.attach(lalm.model, [MATA, c.ValueScaling((1, 2))]):
        generate(lalm, prompt.inputs)
        assert snapshot(lalm.model) != before
    assert snapshot(lalm.model) == before


def test_nothing_is_left_behind_after_an_error(lalm, prompt):
    before = snapshot(lalm.model)

    class Fails:
        site, layers, queries, phase = "weights", (1,), "last", "both"

        def edit(self, x, context):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), mi.attach(lalm.model, [MATA, Fails()]):
        generate(lalm, prompt.inputs)
    assert snapshot(lalm.model) == before
    attached = mi.attach(lalm.model, [MATA, Fails()])
    with pytest.raises(ZeroDivisionError):
        lalm.model(**prompt.inputs)
    attached.detach()
    attached.detach()
    assert snapshot(lalm.model) == before


def test_several_models_and_any_order(lalm, prompt, expected):
    table = dict(compat.attention_function_table())
    other = LALM(*tiny_qwen2_audio(seed=1, attention=compat.attention_name(lalm.structure.decoder.config)))
    knockout = mi.Knockout([1, 2])
    tokens_of_other = other.generate(prompt, knockout, max_new_tokens=NEW)
    first = mi.attach(lalm.model, MATA)
    second = mi.attach(other.model, knockout)
    assert torch.equal(generate(lalm, prompt.inputs), expected.tokens)
    assert torch.equal(generate(other, prompt.inputs), tokens_of_other)
    first.detach()
    assert torch.equal(generate(other, prompt.inputs), tokens_of_other)
    assert torch.equal(generate(lalm, prompt.inputs), lalm.generate(prompt, max_new_tokens=NEW))
    second.detach()
    assert dict(compat.attention_function_table()) == table


def test_the_table_gets_the_same_dispatcher_again(lalm):
    name = compat.attention_name(lalm.structure.decoder.config)
    functions = []
    for _ in range(2):
        attached = mi.attach(lalm.model, MATA)
        functions.append(compat.attention_function_table()[name])
        attached.detach()
    assert functions[0] is functions[1]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("returned", [1, 2])
def test_beams(lalm, prompt, beams, returned):
    """Beams under an edit are those of a reference without a cache, in which nothing has to be followed."""
    if returned > beams:
        pytest.skip("greedy search has one answer")
    how = {"num_beams": beams, "num_return_sequences": returned}
    with mi.attach(lalm.model, MATA) as attached:
        tokens = generate(lalm, prompt.inputs, **how)
        dose = attached.dose
        assert torch.equal(generate(lalm, prompt.inputs, use_cache=False, **how), tokens)
    plain = generate(lalm, prompt.inputs, **how)
    assert tokens.shape != plain.shape or (tokens != plain).any()
    assert len(dose["kl"]) == 3 * returned


@pytest.mark.parametrize("part", ["contrast with an edited pass", "text queries", "weights"])
def test_beams_of_other_sites(lalm, prompt, part):
    with mi.attach(lalm.model, PARTS[part]):
        tokens = generate(lalm, prompt.inputs, num_beams=3)
        assert torch.equal(generate(lalm, prompt.inputs, num_beams=3, use_cache=False), tokens)


def test_the_dose_of_beams_is_that_of_their_tokens(lalm, items):
    """The dose of an answer that beam search found is that of reading this very answer."""
    for item in items:
        inputs = lalm.prompt(item).inputs
        with mi.attach(lalm.model, MATA) as attached:
            sequences = lalm.model.generate(**inputs, max_new_tokens=NEW, num_beams=3, do_sample=False)
            dose = attached.dose
            ends = lalm.model.generation_config.eos_token_id
            width = inputs["input_ids"].shape[1]
            answer = [token for token in sequences[0, width:].tolist()]
            answer = answer[: answer.index(ends) + 1] if ends in answer else answer
            read_answer(lalm, inputs, answer)
            same_dose(dose, attached.dose)


def test_sampled_answers_follow_their_prompts(lalm, prompt):
    """Of each prompt two answers are drawn; the same draws without a cache give the same answers."""
    samples = []
    for cached in (True, False):
        torch.manual_seed(0)
        with mi.attach(lalm.model, MATA):
            samples.append(
                generate(lalm, prompt.inputs, do_sample=True, num_return_sequences=2, use_cache=cached)
            )
    assert torch.equal(*samples)


def test_assisted_generation(lalm, items):
    """Candidate tokens are read several at once; those that are rejected have no dose."""
    for item in items:
        one = lalm.prompt(item)
        expected = lalm.answer(one, MATA, max_new_tokens=NEW)
        with mi.attach(lalm.model, MATA) as attached:
            tokens = generate(lalm, one.inputs, prompt_lookup_num_tokens=4)
        assert torch.equal(tokens, expected.tokens)
        same_dose(attached.dose, expected.dose)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (part, kind)
        if kind == "another model" or part in ("abs", "a count")
        else pytest.param(part, kind, marks=pytest.mark.acceptance)
        for part in ("abs", "text queries", "weights", "a count", "residual stream", "values")
        for kind in ("another model", "the same weights", "with an intervention of its own")
    ],
)
def test_an_assistant_model(lalm, items, part, kind):
    """A second model proposes tokens, and the attached one reads several at once: the answer is the same."""
    assistant, _ = tiny_qwen2_audio(seed=int(kind == "another model"))
    for item in items[:2]:
        one = lalm.prompt(item)
        expected = lalm.answer(one, PARTS[part], max_new_tokens=NEW)
        passes = []
        handle = lalm.structure.decoder.register_forward_pre_hook(
            lambda _, args, kwargs, passes=passes: passes.append(kwargs["inputs_embeds"].shape[1]),
            with_kwargs=True,
        )
        of_assistant = mi.attach(assistant, MATA if kind.startswith("with") else None)
        with of_assistant, mi.attach(lalm.model, PARTS[part]) as attached:
            tokens = generate(lalm, one.inputs, assistant_model=assistant)
        handle.remove()
        assert torch.equal(tokens, expected.tokens)
        if expected.dose:
            same_dose(attached.dose, expected.dose)
        assert max(passes[1:]) > 1


def test_assistants_that_are_refused(lalm, items):
    inputs = lalm.prompt(items[0]).inputs
    with pytest.raises(ModelError, match="assistant_model"), mi.attach(lalm.model, MATA):
        generate(lalm, inputs, assistant_model=lalm.model)
    for part, error in (("contrast with an edited pass", InterventionError), ("confidence", ModelError)):
        with pytest.raises(error, match="token by token"), mi.attach(lalm.model, PARTS[part]):
            generate(lalm, inputs, assistant_model=tiny_qwen2_audio(seed=1)[0])


@pytest.mark.parametrize("part", ["weights", "a count", "weights beside scores"])
def test_the_dose_of_beams_of_methods(lalm, items, part):
    """That of reading the answer which beam search returned, as for MATA."""
    inputs = lalm.prompt(items[0]).inputs
    with mi.attach(lalm.model, PARTS[part]) as attached:
        tokens = generate(lalm, inputs, num_beams=3)[0].tolist()
        dose, ends = attached.dose, lalm.model.generation_config.eos_token_id
        answer = tokens[: tokens.index(ends) + 1] if ends in tokens else tokens
        read_answer(lalm, inputs, answer)
        same_dose(dose, attached.dose)


def test_a_loop_of_ones_own(lalm, prompt, expected):
    inputs = dict(prompt.inputs)
    with mi.attach(lalm.model, MATA) as attached, torch.no_grad():
        output = lalm.model(**inputs, use_cache=True)
        tokens, mask = [], inputs["attention_mask"]
        for _ in range(4):
            tokens.append(output.logits[:, -1].argmax(-1, keepdim=True))
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            output = lalm.model(
                input_ids=tokens[-1], attention_mask=mask, past_key_values=output.past_key_values
            )
        assert torch.equal(torch.cat(tokens, 1), expected.tokens[:, :4])
        assert (attached.dose["kl"] > 0).all()


def test_gradients_flow_through_an_attached_edit(lalm, prompt):
    with mi.attach(lalm.model, MATA):
        logits = lalm.model(**prompt.inputs).logits[:, -1]
        logits.sum().backward()
    gradients = [p.grad for p in lalm.model.parameters() if p.grad is not None]
    lalm.model.zero_grad(set_to_none=True)
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(logits.detach(), lalm.logits(prompt, MATA), rtol=1e-5, atol=1e-5)


def test_calls_through_an_lalm_are_left_alone(lalm, prompt):
    plain, edited = lalm.logits(prompt), lalm.logits(prompt, MATA)
    with mi.attach(lalm, MATA):
        assert torch.equal(lalm.logits(prompt), plain)
        assert torch.equal(lalm.logits(prompt, MATA), edited)
        assert torch.equal(lalm.model(**prompt.inputs).logits[:, -1], edited)


def test_two_threads(lalm, items):
    """Two threads that use an attached model at once get what each gets alone."""
    prompts = [lalm.prompt(item) for item in items[:2]]
    expected = [lalm.generate(prompt, MATA, max_new_tokens=NEW) for prompt in prompts]
    results: dict[int, torch.Tensor] = {}
    with mi.attach(lalm.model, MATA):
        threads = [
            threading.Thread(target=lambda n=n: results.update({n: generate(lalm, prompts[n].inputs)}))
            for n in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(results[n], expected[n]) for n in range(2))


def test_a_second_turn_on_an_old_cache(lalm, items):
    """The old tokens stay as they were read; the new prompt's last token and the answer are edited."""
    item = items[0]
    inputs = lalm.prompt(item).inputs
    more = torch.tensor([[5, 6, 7, 8]])
    with mi.attach(lalm.model, MATA), torch.no_grad():
        first = lalm.model.generate(**inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, more], 1)
        second = lalm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=first.past_key_values,
            max_new_tokens=4,
            do_sample=False,
        )
    # by hand: the first turn under the edit, then the new prompt's last token and the answer
    whole = lalm.prompt_from_inputs({**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)})
    from mata_interp.lalm.calls.edited_calls import edited_calls
    from mata_interp.lalm.site_hooks import BoundInterventions

    old = BoundInterventions(lalm, lalm.prompt(item), (MATA,))
    new = BoundInterventions(lalm, whole, (MATA,))
    with torch.no_grad():
        with edited_calls(lalm.structure, old) as run:
            output = run(lambda: lalm.model(**inputs, use_cache=True))
            for token in first.sequences[0, inputs["input_ids"].shape[1] : -1]:
                output = run(
                    lambda token=token, output=output: lalm.model(
                        input_ids=token.view(1, 1), past_key_values=output.past_key_values
                    )
                )
        cache, tokens = output.past_key_values, []
        with edited_calls(lalm.structure, new) as run:
            step = ids[:, cache.get_seq_length() :]
            for _ in range(4):
                output = run(lambda step=step: lalm.model(input_ids=step, past_key_values=cache))
                step = output.logits[:, -1:].argmax(-1)
                tokens.append(step)
    assert torch.equal(second[:, ids.shape[1] :], torch.cat(tokens, 1))


REFUSED = {
    "guidance": {"guidance_scale": 1.5},
    "early exit": {"assistant_early_exit": 1},
    "dola": {"dola_layers": "high"},
    "a loop": {"custom_generate": lambda model, **how: None},
}


@pytest.mark.parametrize("setting", REFUSED)
def test_settings_that_edits_cannot_follow(lalm, prompt, setting):
    before = snapshot(lalm.model)
    with pytest.raises(ModelError, match=next(iter(REFUSED[setting]))), mi.attach(lalm.model, MATA):
        generate(lalm, prompt.inputs, **REFUSED[setting])
    assert snapshot(lalm.model) == before


def test_what_is_refused(lalm, prompt, items):
    text = lalm.prompt(items, audio=None).inputs
    with pytest.raises(InterventionError, match="no audio"), mi.attach(lalm.model, MATA):
        generate(lalm, text)
    with pytest.raises(InterventionError, match="no audio"), mi.attach(lalm.model, MATA):
        lalm.model(**text)
    without = {name: prompt.inputs[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ModelError, match="no audio among its inputs"), mi.attach(lalm.model, MATA):
        generate(lalm, without)
    embeds = lalm.model.get_input_embeddings()(prompt.inputs["input_ids"])
    for call in (
        lambda: lalm.model(inputs_embeds=embeds),
        lambda: lalm.model.generate(inputs_embeds=embeds, max_new_tokens=1),
        lambda: lalm.structure.decoder(inputs_embeds=embeds),
    ):
        with pytest.raises(ModelError, match="attached"), mi.attach(lalm.model, MATA):
            call()
    with torch.no_grad():
        cache = lalm.model(**prompt.inputs, use_cache=True).past_key_values
    with pytest.raises(ModelError, match="cache"), mi.attach(lalm.model, MATA):
        lalm.model(input_ids=torch.ones(3, 1, dtype=torch.long), past_key_values=cache)
    with pytest.raises(ArgumentError, match="missing"):
        mi.attach(lalm.model, MATA, missing="ignore")
    with pytest.raises(InterventionError, match="No attention in layer 9"):
        mi.attach(lalm.model, mi.Mata(1.0, [9]))
    with pytest.raises(InterventionError, match="names no layers"):
        mi.attach(lalm.model, mi.Mata(1.0, []))
    with mi.attach(lalm.model, None) as attached:
        assert attached.attached


def test_several_tokens_behind_a_prompt_are_refused(lalm, items):
    inputs = lalm.prompt(items[0]).inputs
    with mi.attach(lalm.model, MATA):
        output = lalm.model(**inputs, use_cache=True)
        with pytest.raises(ModelError, match="reads 2 tokens after a prompt"):
            lalm.model(input_ids=torch.tensor([[5, 6]]), past_key_values=output.past_key_values)


def test_one_attachment_for_a_model(lalm):
    with pytest.raises(ModelError, match="already"), mi.attach(lalm.model, MATA):
        mi.attach(lalm.model, MATA)
    mi.attach(lalm.model, MATA).detach()


def test_a_model_in_training_mode_is_refused():
    model, _ = tiny_qwen2_audio(seed=0)
    with pytest.raises(ModelError, match="training mode"):
        mi.attach(model.train(), MATA)


@pytest.mark.acceptance
def test_compiled_code_is_edited_and_not_compiled_at_every_attach(items):
    lalm = LALM(*tiny_qwen2_audio(seed=0, layers=3))
    prompt = lalm.prompt(items[0])
    edited, plain = lalm.logits(prompt, MATA), lalm.logits(prompt)
    graphs = []
    compiled = torch.compile(lalm.model, backend=lambda graph, _: graphs.append(graph) or graph.forward)

    def run():
        graphs.clear()
        with torch.no_grad():
            logits = compiled(**prompt.inputs).logits[:, -1]
        return logits, len(graphs)

    assert torch.equal(run()[0], plain)
    with mi.attach(compiled, MATA):
        logits, count = run()
        assert torch.equal(logits, edited)
        assert count > 0
        run()
    assert torch.equal(run()[0], plain)
    with mi.attach(compiled, MATA):
        logits, count = run()
    assert torch.equal(logits, edited)
    assert count == 0
    assert torch.equal(run()[0], plain)


def test_an_edit_that_touches_nothing_is_an_error(lalm, prompt):
    decode = mi.Mata(1.0, [1], phase="decode")
    with pytest.raises(InterventionError, match="touched nothing"), mi.attach(lalm.model, decode):
        generate(lalm, prompt.inputs, max_new_tokens=1)
    with pytest.raises(InterventionError, match="touched nothing"), mi.attach(lalm.model, decode):
        lalm.model(**prompt.inputs)
    with pytest.raises(InterventionError, match="did not run"), mi.attach(lalm.model, MATA):
        pass


def test_prompts_without_audio_can_be_skipped(lalm, items):
    text = lalm.prompt(items, audio=None)
    plain = lalm.generate(text, max_new_tokens=NEW)
    with mi.attach(lalm.model, MATA, missing="skip"):
        assert torch.equal(generate(lalm, text.inputs), plain)


@pytest.mark.parametrize("part", ["abs", "text queries", "generated keys", "head outputs", "residual stream"])
def test_rows_without_audio_among_others(lalm, items, part):
    """A batch of one prompt without audio and one with it: each answer is the one it gets alone."""
    inputs = lalm.prompt(items[:2]).inputs
    text = lalm.prompt(items[2], audio=None).inputs["input_ids"]
    width = inputs["input_ids"].shape[1]
    row = torch.cat([torch.zeros(1, width - text.shape[1], dtype=torch.long), text], 1)
    mixed = {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], row]),
        "attention_mask": torch.cat(
            [inputs["attention_mask"], (torch.arange(width) >= width - text.shape[1])[None]]
        ),
    }
    edited = lalm.generate(lalm.prompt(items[:2]), PARTS[part], max_new_tokens=4)
    plain = lalm.generate(lalm.prompt(items[2], audio=None), max_new_tokens=4)
    with mi.attach(lalm.model, PARTS[part], missing="skip"):
        tokens = generate(lalm, mixed, max_new_tokens=4)
    n = min(tokens.shape[1], edited.shape[1], plain.shape[1])
    assert torch.equal(tokens[:2, :n], edited[:, :n])
    assert torch.equal(tokens[2:, :n], plain[:, :n])
