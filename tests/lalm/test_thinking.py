"""Templates that end in an open thought: closed, thought through or refused; reasoning and answer."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import xarray as xr

import mata_interp as mi
from mata_interp import Decoding, Item, Mata
from mata_interp.errors import ArgumentError, InterventionError, ModelError
from mata_interp.execution import batch_identity
from mata_interp.execution.serialization import deserialize_model, loading_arguments, serialize_model
from mata_interp.fusion.item_context import ItemContext
from mata_interp.lalm import LALM
from mata_interp.lalm.prompting.thinking import TAGS, OpenThought, ThoughtState, open_tags
from mata_interp.lalm.reasoning import ReasoningWarning
from mata_interp.tracing.attention_masses import AttentionMasses, read_masses
from mata_interp.tracing.run_trace import _joined, _to_dataset
from tests import reference
from tests.reference import Edit
from tests.tiny import RATE, tiny_processor, tiny_qwen2_audio

START = "<|im_start|>assistant\n"


def thinking_lalm(ending: str = "<think>\n", thinking: str = "close", attention: str | None = None) -> LALM:
    model, processor = tiny_qwen2_audio(seed=0, attention=attention)
    processor.chat_template = processor.chat_template.replace(START, START + ending)
    return LALM(model, processor, thinking=thinking)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    noise = np.random.default_rng(3)

    def sound(seconds: float):
        return noise.normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE

    return [
        Item(sound(1.0), "Which?", choices=("dog", "a bell"), answer="dog", id="q0"),
        Item(sound(0.5), "How many are there?", choices=("1", "two"), answer="1", id="q1"),
    ]


@contextmanager
def scripted(lalm: LALM, texts: list[str]):
    """Inside, the model generates these texts, one a row; yields its own logits of each step, [B, V] each.

    Only generation is scripted: attention, caches and scoring are the model's own.
    """
    tokenizer, model = lalm.processor.tokenizer, lalm.model
    scripts = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    steps: list[torch.Tensor] = []
    generate, place = model.generate, []  # the next token, while a generation runs

    def hook(_, args, kwargs, output):
        if place:
            steps.append(output.logits[:, -1].clone())
            for row, script in enumerate(scripts):
                output.logits[row, -1, script[min(place[0], len(script) - 1)]] += 1e4
            place[0] += 1
        return output

    def wrapped(*args, **kwargs):
        place.append(0)
        try:
            return generate(*args, **kwargs)
        finally:
            place.clear()

    handle = model.register_forward_hook(hook, with_kwargs=True)
    model.generate = wrapped
    try:
        yield steps
    finally:
        handle.remove()
        del model.generate


def tail(lalm: LALM, prompt, row: int = 0, characters: int = 60) -> str:
    return lalm.processor.tokenizer.decode(prompt.inputs["input_ids"][row])[-characters:]


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.open)
def test_every_pair_of_tags(tags):
    assert open_tags(f"<|im_start|>assistant\n{tags.open}\n") == tags
    assert open_tags(f"{tags.open} hm") == tags
    assert open_tags(f"{tags.open}hm{tags.close}\n") is None
    assert open_tags(f"a {tags.open}hm{tags.close} b {tags.open}") == tags
    assert open_tags("assistant\n") is None
    tokenizer = tiny_processor().tokenizer
    thought = OpenThought.at_end(tokenizer, f"assistant\n{tags.open}", "close")
    closed = f"assistant\n{tags.open}"[: len("assistant\n" + tags.open) - thought.dropped]
    assert open_tags(closed + tokenizer.decode(list(thought.closing))) is None
    state = ThoughtState(tokenizer, None, 1)
    text = f"{tags.open}hm{tags.close}so"
    ids = tokenizer(text)["input_ids"]
    for token in ids:
        state.add([token])
    inside = state.reasoning[0].tolist()
    assert inside[-2:] == [False, False]
    count = len(tokenizer(tags.open)["input_ids"])
    assert all(inside[count - 1 : -2])


def test_a_line_break_that_the_tokenizer_joins_with_the_next():
    """Qwen's tokenizer has a token for two line breaks: closing replaces the one that the template wrote."""

    class Joining:
        def __call__(self, text, **kwargs):
            ids = []
            while text:
                size = 2 if text.startswith("\n\n") else 1
                ids.append(1000 if size == 2 else ord(text[0]))
                text = text[size:]
            return {"input_ids": ids}

    thought = OpenThought.at_end(Joining(), "<think>\n", "close")
    assert thought.dropped == 1
    assert thought.closing == (1000, *map(ord, "</think>"), 1000)


@pytest.mark.parametrize("ending", ["<think>\n", "<think>", "<think>\n\n"])
def test_closed_by_default(items, ending):
    """Scores, logits, traces and sweeps are those of a template that writes the empty thought itself."""
    lalm, written = thinking_lalm(ending), thinking_lalm("<think>\n\n</think>\n\n")
    assert lalm.opens_thought
    assert not written.opens_thought
    for some in (items, items[1]):
        prompt = lalm.prompt(some)
        assert tail(lalm, prompt).endswith(ending)
        ready, expected = lalm.prepare(prompt), written.prompt(some)
        assert tail(lalm, ready).endswith("assistant\n<think>\n\n</think>\n\n")
        assert ready.thought is None
        for name, values in expected.inputs.items():
            assert torch.equal(ready.inputs[name], values), name
        for name, mask in expected.groups.items():
            assert torch.equal(ready.groups[name], mask), name
        if ending != "<think>\n":
            continue
        mata = Mata(2.0, [1, 2], "add")
        for edit in (None, mata):
            assert torch.equal(lalm.logits(prompt, edit), written.logits(expected, edit))
            result, expected_scores = (one.score(some, intervention=edit).logprob for one in (lalm, written))
            np.testing.assert_array_equal(result, expected_scores)
        for query in ("last", "text"):
            traces = [mi.trace(one, some, query, progress=False)["mass"] for one in (lalm, written)]
            np.testing.assert_array_equal(*traces)
        swept = [mi.sweep(one, some, {"mata": mata}, progress=False) for one in (lalm, written)]
        np.testing.assert_array_equal(*swept)


def test_refused_on_request(items):
    lalm = thinking_lalm(thinking="refuse")
    for ask in (lalm.score, lalm.logits, lambda x: mi.trace(lalm, x, progress=False)):
        with pytest.raises(ModelError, match=r"open thought, '<think>'.*thinking='close'"):
            ask(items)
    with scripted(lalm, ["hm</think>dog", "no</think>1"]):
        assert lalm.answer(items, max_new_tokens=20).texts == ("<think>hm</think>dog", "<think>no</think>1")
    assert thinking_lalm("", thinking="refuse").score(items).logprob.shape == (2, 2)
    with pytest.raises(ArgumentError, match="through"):
        thinking_lalm(thinking="thru")


THOUGHTS = ["A dog?</think>", "There are two, no one</think>"]


def test_through_the_models_own_reasoning(items):
    """Scored after it, as with a template that has the same words; rows of a batch as each alone."""
    lalm = thinking_lalm(thinking="through")
    with scripted(lalm, THOUGHTS):
        ready = lalm.prepare(lalm.prompt(items))
    assert ready.inputs["attention_mask"][:, -1].all()
    for row, (item, thought) in enumerate(zip(items, THOUGHTS, strict=True)):
        written = thinking_lalm(f"<think>\n{thought}\n\n")
        alone = written.prompt(item)
        real = ready.inputs["attention_mask"][row].bool()
        assert torch.equal(ready.inputs["input_ids"][row, real], alone.inputs["input_ids"][0])
        decode = lalm.processor.tokenizer.decode
        assert decode(ready.inputs["input_ids"][row][ready.groups["reasoning"][row]]) == thought
        assert torch.equal(ready.groups["reasoning"], ready.groups["generated"])
        for edit in (None, Mata(2.0, [1, 2], "add")):
            torch.testing.assert_close(
                lalm.logits(ready, edit)[row], written.logits(alone, edit)[0], atol=1e-5, rtol=0
            )
            result, expected = lalm.score(ready, None, edit), written.score(alone, None, edit)
            np.testing.assert_allclose(result.logprob[row], expected.logprob[0], atol=2e-5)
    traced = mi.trace(lalm, ready, progress=False)
    np.testing.assert_allclose(traced["mass"].sum("group"), 1, atol=1e-5)
    assert traced["subgroup"].values.tolist() == ["reasoning"]
    np.testing.assert_allclose(
        traced["subgroup_mass"].sel(subgroup="reasoning"), traced["mass"].sel(group="generated"), atol=1e-6
    )
    # an edit of what was reasoned, as in the eager reference
    eager = thinking_lalm(thinking="through", attention="eager")
    mata = Mata(1.5, [1], "add", keys="reasoning")
    single = reference.single(ready.inputs, 0)
    real = ready.inputs["attention_mask"][0].bool()
    edit = Edit(1.5, [1], "add", ready.groups["reasoning"][0, real])
    expected = reference.forward(eager.model, single, [edit])[-1]
    torch.testing.assert_close(lalm.logits(ready, mata)[0], expected, atol=1e-5, rtol=0)


def test_reasoning_without_an_end_is_closed(items, monkeypatch):
    monkeypatch.setattr("mata_interp.lalm.reasoning.MAX_REASONING_TOKENS", 12)
    lalm = thinking_lalm(thinking="through")
    with (
        scripted(lalm, ["hm</think>", "and so on and on"]),
        pytest.warns(ReasoningWarning, match="1 of 2 thoughts"),
    ):
        ready = lalm.prepare(lalm.prompt(items))
    assert tail(lalm, ready, 0).endswith("<think>\nhm</think>\n\n")
    assert tail(lalm, ready, 1).endswith("<think>\nand so on an\n</think>\n\n")


SAID = ["A dog?</think>dog", "no</think>It is 1"]


def spans(lalm: LALM, text: str) -> tuple[int, int]:
    """Numbers of tokens of a thought with its tag, and of the whole text."""
    tokenizer = lalm.processor.tokenizer
    return tuple(len(tokenizer(part)["input_ids"]) for part in (text[: text.index("</think>") + 8], text))


@pytest.mark.parametrize("opened", [True, False], ids=["by the template", "by the model"])
def test_generated_traces_tell_reasoning_from_answer(items, opened):
    """Masses on reasoning and answer, query by query, against eager attention of each whole text alone."""
    ending = "<think>\n" if opened else ""
    message = SAID if opened else [f"<think>{text}" for text in SAID]
    lalm, eager = thinking_lalm(ending), thinking_lalm(ending, attention="eager").model
    with scripted(lalm, message):
        traced = mi.trace(lalm, items, "generated", per_query=True, max_new_tokens=40, progress=False)
        mean = mi.trace(lalm, items, "generated", max_new_tokens=40, progress=False)
    prompt = lalm.prompt(items)
    for row, text in enumerate(message):
        thought, whole = spans(lalm, text)
        answer = lalm.processor.tokenizer(text)["input_ids"]
        assert int(traced["n_queries"][row]) == whole + 1
        alone = reference.single(prompt.inputs, row)
        width = alone["input_ids"].shape[1]
        tokens = torch.cat([alone["input_ids"], torch.tensor([answer])], 1)
        inputs = alone | {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        with torch.no_grad():
            weights = torch.cat(eager(**inputs, output_attentions=True, use_cache=False).attentions)
        rows = weights[:, :, width - 1 :]  # [layers, H, Q, T]
        opening = 0 if opened else len("<think>") - 1  # the tag is known at its last byte
        parts = {"reasoning": rows[..., width + opening : width + thought].sum(-1)}
        parts["answer"] = rows[..., width + thought :].sum(-1) + rows[..., width : width + opening].sum(-1)
        result = traced.isel(item=row, query=slice(0, whole + 1))
        for name, expected in parts.items():
            measured = result["subgroup_mass"].sel(subgroup=name).transpose("layer", "head", "query")
            np.testing.assert_allclose(measured, expected, atol=1e-5)
        np.testing.assert_allclose(
            mean["subgroup_mass"].sel(subgroup="reasoning")[row],
            result["subgroup_mass"].sel(subgroup="reasoning").mean("query"),
            atol=1e-6,
        )
        predicted = result["query_predicts"].values.tolist()
        begin = 0 if opened else len("<think>")
        assert predicted == (
            ["answer"] * begin + ["reasoning"] * (thought - begin) + ["answer"] * (whole + 1 - thought)
        )
    np.testing.assert_allclose(traced["mass"].sum("group").values[:, 0, 0, 0], 1, atol=1e-5)


def test_a_trace_without_thoughts_is_what_it_was(items):
    lalm = thinking_lalm("")
    traced = mi.trace(lalm, items, "generated", max_new_tokens=5, per_query=True, progress=False)
    assert "subgroup" not in traced.dims
    assert "query_predicts" not in traced.coords


@pytest.mark.parametrize(
    ("keys", "phase"),
    [
        ("audio", "reasoning"), ("audio", "answer"), ("audio", "both"), ("reasoning", "both"),
        ("reasoning", "answer"), ("answer", "answer"), ("generated", "reasoning"),
    ],
)  # fmt: skip
def test_edits_confined_to_reasoning_or_answer_equal_eager(items, keys, phase):
    """The logits of every step of a left-padded batch against eager attention of the whole text."""
    lalm, eager = thinking_lalm(), thinking_lalm(attention="eager").model
    mata = Mata(1.5, [1, 2], "add", keys=keys, phase=phase)
    with scripted(lalm, SAID) as plain:
        lalm.answer(items, max_new_tokens=30)
    with scripted(lalm, SAID) as steps:
        answer = lalm.answer(items, mata, max_new_tokens=30)
    assert [text.removeprefix("<think>") for text in answer.texts] == SAID
    prompt = lalm.prompt(items)
    moved = 0.0
    for row, text in enumerate(SAID):
        thought, whole = spans(lalm, text)
        real = prompt.inputs["attention_mask"][row].bool()
        width = int(real.sum())
        length = width + whole
        masks = {"audio": torch.zeros(length, dtype=torch.bool)}
        masks["audio"][:width] = prompt.groups["audio"][row, real]
        masks["reasoning"] = (torch.arange(length) >= width) & (torch.arange(length) < width + thought)
        masks["answer"] = torch.arange(length) >= width + thought
        masks["generated"] = torch.arange(length) >= width
        first = width - 1
        rows = {
            "reasoning": range(first, first + thought),
            "answer": range(first + thought, length),
            "both": range(first, length),
        }[phase]
        edit = Edit(1.5, [1, 2], "add", masks[keys], rows=rows)
        tokens = lalm.processor.tokenizer(text)["input_ids"]
        expected = reference.forward(eager, reference.single(prompt.inputs, row), [edit], tokens)
        result = torch.stack([step[row] for step in steps[: whole + 1]])
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)
        before = torch.stack([step[row] for step in plain[: whole + 1]])
        moved = max(moved, float((result - before).abs().max()))
    assert moved > 0.05
    swept = None
    with scripted(lalm, SAID):
        swept = mi.sweep_generate(
            lalm, items, {"none": None, "mata": mata}, decoding=Decoding(max_new_tokens=30), progress=False
        )
    assert swept["text"].sel(configuration="mata").values.tolist() == list(answer.texts)


def test_where_no_thought_is_open(items):
    """Options are compared after the thought: all that is edited there is the answer."""
    lalm = thinking_lalm()
    answer, both = (Mata(2.0, [1, 2], "add", phase=phase) for phase in ("answer", "both"))
    scores = [lalm.score(items, intervention=edit).logprob for edit in (answer, both)]
    # the first is performed by its rule, the second by the rule's paired form, which rounds apart
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)
    swept = mi.sweep(lalm, items, {"answer": answer, "both": both}, progress=False)
    np.testing.assert_array_equal(swept[:, 0], swept[:, 1])
    reasoning = Mata(2.0, [1, 2], "add", phase="reasoning")
    for ask in (
        lambda: lalm.score(items, intervention=reasoning),
        lambda: lalm.logits(items, reasoning),
        lambda: mi.sweep(lalm, items, {"a": reasoning}, progress=False),
    ):
        with pytest.raises(InterventionError, match="the thought is over"):
            ask()


def test_manifests_record_it(items, tmp_path):
    """And a folder of a run with other thoughts is refused; models that open none have no such field."""
    run = mi.run(thinking_lalm(), items, {"baseline": None}, tmp_path / "run", progress=False)
    assert run.manifest["thinking"] == {"mode": "close"}
    through = thinking_lalm(thinking="through")
    with pytest.raises(mi.errors.RunError, match="thinking"):
        mi.run(through, items, {"baseline": None}, tmp_path / "run", progress=False)
    with scripted(through, THOUGHTS):
        other = mi.run(through, items, {"baseline": None}, progress=False)
    assert other.manifest["thinking"] == {"mode": "through", "max_tokens": 1024}
    plain = mi.run(thinking_lalm(""), items, {"baseline": None}, progress=False)
    assert "thinking" not in plain.manifest


def test_stages_record_it(items, tmp_path):
    """A file that was written with other thoughts is refused; ready-made prompts count, too."""
    settings = {"query": "last", "out": tmp_path / "trace.nc", "progress": False}
    traced = mi.trace(thinking_lalm(), items, **settings)
    xr.testing.assert_identical(mi.trace(thinking_lalm(), items, **settings), traced)
    through = thinking_lalm(thinking="through")
    for entries in (items, through.prompt(items)):
        assert batch_identity(through, "trace", [entries], {})["thinking"]["mode"] == "through"
    with pytest.raises(mi.errors.RunError, match="thinking"):
        mi.trace(through, items, **settings)
    assert "thinking" not in batch_identity(thinking_lalm(""), "trace", [items], {})


def test_loading_options_and_workers_keep_it(tmp_path):
    lalm = thinking_lalm()
    lalm.model.save_pretrained(tmp_path)
    lalm.processor.save_pretrained(tmp_path)
    loaded = LALM.from_pretrained(tmp_path, device="cpu", thinking="through")
    assert loaded.load_options.to_dict() == {"device": "cpu", "thinking": "through"}
    again = LALM.from_pretrained(**loading_arguments(loaded))
    assert (again.thinking, again.opens_thought) == ("through", True)
    assert deserialize_model(serialize_model(loaded)).thinking == "through"
    loaded.thinking = "refuse"
    assert loading_arguments(loaded)["thinking"] == "refuse"
    assert LALM.from_pretrained(tmp_path, device="cpu").load_options.to_dict() == {"device": "cpu"}


@pytest.mark.parametrize("mean", [True, False])
def test_halves_of_a_batch_of_which_one_has_a_thought(items, mean):
    lalm = thinking_lalm("")
    halves = []
    for item, text in zip(items, ["<think>hm</think>\n\ndog", "two"], strict=True):
        with scripted(lalm, [text]):
            halves.append(read_masses(lalm, lalm.prompt(item), "generated", 40, mean))
    assert "reasoning" in halves[0].groups
    assert "reasoning" not in halves[1].groups
    whole = AttentionMasses.from_part(_joined(halves).to_part({}))
    expected = _to_dataset(lalm, items, halves, not mean)
    xr.testing.assert_identical(_to_dataset(lalm, items, [whole], not mean), expected)


def test_another_clip_is_thought_about_with_the_same_words(items):
    """What the model would think about the counterfactual clip is not what is measured."""
    lalm = thinking_lalm(thinking="through")
    noise = np.random.default_rng(8).normal(0, 0.1, RATE).astype(np.float32)
    other = items[0].with_audio((noise, RATE))
    with scripted(lalm, ["a bark</think>"]):
        context = ItemContext(lalm, lalm.prompt(items[0]), other=other)
    with scripted(lalm, ["hm</think>"]):
        counterfactual = context.counterfactual
        alone = lalm.prepare(other)
    tokens = context.prompt.inputs["input_ids"]
    assert not torch.equal(alone.inputs["input_ids"], tokens)
    assert torch.equal(counterfactual.prompt.inputs["input_ids"], tokens)
    features = [one.inputs["input_features"] for one in (counterfactual.prompt, alone, context.prompt)]
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


def test_a_check_closes_the_thought(items):
    report = mi.check(thinking_lalm(), items)
    assert report.ok, str(report)
