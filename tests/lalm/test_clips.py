"""Several clips in one prompt, through the real Qwen2-Audio processor: traced and edited one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import xarray as xr

import mata_interp as mi
from mata_interp import Item, Knockout, Mata
from mata_interp.errors import InterventionError, ItemError
from mata_interp.execution.units import absolute
from mata_interp.experiments import Condition
from mata_interp.experiments.prompting import build_batch
from mata_interp.lalm import GROUPS, LALM
from mata_interp.lalm.prompting.lengths import PromptLengths
from tests import reference
from tests.reference import Edit
from tests.support.small_memory import SmallMemory
from tests.tiny import RATE, tiny_qwen2_audio


def sound(seconds: float, seed: int) -> tuple[np.ndarray, int]:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """With two clips, one and three; of unlike length."""
    return [
        Item([sound(0.4, 1), sound(0.9, 2)], "Which?", choices=("dog", "a bell"), answer="dog", id="two"),
        Item(sound(0.5, 3), "Which is first?", choices=("no", "rain"), answer="no", id="one"),
        Item([sound(0.3, 4), sound(1.4, 5), sound(0.2, 6)], "?", choices=("x", "y"), answer="y", id="three"),
    ]


def frames(seconds: float) -> int:
    return ((round(seconds * 100) - 1) // 2 + 1 - 2) // 2 + 1


def test_each_clip_is_a_group(tiny_lalm, items):
    prompt = tiny_lalm.prompt(items)
    assert tuple(prompt.groups) == (*GROUPS, "audio_1", "audio_2", "audio_3")
    assert torch.stack([prompt.groups[name] for name in GROUPS]).sum(0).max() == 1
    clips = torch.stack([prompt.groups[f"audio_{n}"] for n in (1, 2, 3)])
    assert torch.equal(clips.sum(0) == 1, prompt.groups["audio"])
    counts = clips.sum(2).T.tolist()
    assert counts == [
        [frames(0.4), frames(0.9), 0],
        [frames(0.5), 0, 0],
        [frames(0.3), frames(1.0), frames(0.2)],
    ]
    assert prompt.truncated_seconds == pytest.approx((0, 0, 0.4))
    assert prompt.audio_seconds == pytest.approx((1.3, 0.5, 1.5))
    decode = tiny_lalm.processor.tokenizer.decode
    template = decode(prompt.inputs["input_ids"][0][prompt.groups["template"][0]])
    assert "Audio 1: <|audio_bos|><|audio_eos|>\nAudio 2: <|audio_bos|><|audio_eos|>\n" in template
    assert decode(prompt.inputs["input_ids"][0][prompt.groups["question"][0]]) == "Which?\n"
    assert len(prompt.inputs["input_features"]) == 6
    assert tiny_lalm.audio_alignment(prompt).problem is None
    for row, item in enumerate(items):
        alone = tiny_lalm.prompt(item)
        pad = prompt.width - alone.width
        assert torch.equal(prompt.inputs["input_ids"][row, pad:], alone.inputs["input_ids"][0])
        for name, mask in alone.groups.items():
            assert torch.equal(prompt.groups[name][row, pad:], mask[0])
    lengths = PromptLengths(tiny_lalm)
    for _ in range(2):  # from the processor, then from the text
        assert [lengths(item).tokens for item in items] == [tiny_lalm.prompt(i).width for i in items]


def test_clips_of_equal_length_are_told_apart_by_their_order(tiny_lalm):
    first, second = sound(0.4, 1), sound(0.4, 2)
    prompts = [tiny_lalm.prompt(Item(clips, "Which?")) for clips in ([first, second], [second, first])]
    features = [prompt.inputs["input_features"] for prompt in prompts]
    assert torch.equal(features[0], features[1].flip(0))
    assert torch.equal(prompts[0].groups["audio_2"], prompts[1].groups["audio_2"])
    places = [prompts[0].groups[name][0].nonzero()[:, 0] for name in ("audio_1", "audio_2")]
    assert places[0].max() < places[1].min()


def test_traces_of_clips_equal_eager_attention(tiny_lalm, eager, items):
    """Each item alone in the reference, and in padded batches whose items have other numbers of clips."""
    together = mi.trace(tiny_lalm, items, progress=False)
    apart = mi.trace(tiny_lalm, items, batch_size=1, progress=False)
    text = mi.trace(tiny_lalm, items, query="text", progress=False)
    names = together["subgroup"].values.tolist()
    assert names == ["audio_1", "audio_2", "audio_3"]
    for traced in (together, apart, text):
        np.testing.assert_allclose(traced["mass"].sum("group"), 1, atol=1e-5)
        clips, audio = traced["subgroup_mass"], traced["mass"].sel(group="audio")
        np.testing.assert_allclose(clips.sum("subgroup"), audio, atol=1e-5)
        there = [[True, True, False], [True, False, False], [True] * 3]
        assert (clips.notnull().all(["layer", "head"]).values == there).all()
    np.testing.assert_allclose(apart["subgroup_mass"], together["subgroup_mass"], atol=1e-5)
    for row, item in enumerate(items):
        alone = tiny_lalm.prompt(item)
        for layer, weights in enumerate(reference.last_row(eager, alone.inputs)):
            for name in names[: len(item.clips)]:
                mask = alone.groups.get(name, alone.groups["audio"])[0]
                result = together["subgroup_mass"].sel(layer=layer, subgroup=name)[row]
                np.testing.assert_allclose(result, weights[0, :, mask].sum(-1), atol=1e-5)
    assert together["subgroup_n_tokens"].values.tolist()[0] == [frames(0.4), frames(0.9), 0]


@pytest.mark.parametrize("keys", ["audio_1", "audio_2", "audio"])
@pytest.mark.parametrize("rule", ["add", "abs", "knockout"])
def test_an_edit_of_one_clip_equals_eager(tiny_lalm, eager, items, keys, rule):
    two = [items[0], items[2]]
    mata = Mata(1.5, [1, 2], rule, keys=keys)
    prompt = tiny_lalm.prompt(two)
    edited, plain = tiny_lalm.logits(prompt, mata), tiny_lalm.logits(prompt)
    assert torch.equal(tiny_lalm.logits(prompt, Mata(0.0, [1, 2], keys=keys)), plain)
    swept = mi.sweep(tiny_lalm, two, {"none": None, "edit": mata}, progress=False)
    scores = tiny_lalm.score(prompt, None, mata).logprob
    np.testing.assert_allclose(swept.sel(configuration="edit"), scores, atol=2e-5)
    for row, item in enumerate(two):
        alone = tiny_lalm.prompt(item)
        edit = Edit(1.5, [1, 2], rule, alone.groups[keys][0])
        expected = reference.forward(eager, alone.inputs, [edit])[-1]
        torch.testing.assert_close(edited[row], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(tiny_lalm.logits(alone, mata)[0], expected, atol=1e-5, rtol=0)
        option = tiny_lalm.option_tokens(item, item.choices)[1]
        logprob = reference.logprob(eager, alone.inputs, [edit], option)
        assert abs(logprob - scores[row][1]) < 2e-5
    assert (edited - plain).abs().amax(1).min() > 0.01


def test_generation_with_an_edited_clip_equals_eager(tiny_lalm, eager, items):
    mata = Mata(3.0, [0, 1, 2], "add", keys="audio_2")
    alone = tiny_lalm.prompt(items[0])
    tokens = tiny_lalm.generate(alone, mata, max_new_tokens=4)[0].tolist()
    edit = Edit(3.0, [0, 1, 2], "add", alone.groups["audio_2"][0])
    end = tiny_lalm.processor.tokenizer.eos_token_id
    assert tokens == reference.greedy(eager, alone.inputs, [edit], 4, end)
    batch = tiny_lalm.generate([items[0], items[2]], mata, max_new_tokens=4)
    assert batch[0, : len(tokens)].tolist() == tokens


def test_bfloat16(half, tiny_lalm, items):
    two = [items[0], items[2]]
    mass = [mi.trace(lalm, two, progress=False)["subgroup_mass"].values for lalm in (half, tiny_lalm)]
    assert np.nanmax(np.abs(mass[0] - mass[1])) < 0.1
    mata = Mata(0.0, [1, 2], keys="audio_2")
    assert torch.equal(half.logits(two, mata), half.logits(two))
    effects = [
        (lalm.logits(two, Mata(2.0, [0, 1], "add", keys="audio_2")) - lalm.logits(two)).float()
        for lalm in (half, tiny_lalm)
    ]
    assert (effects[0] - effects[1]).abs().max() < 0.3 * effects[1].abs().max()


def test_the_only_clip_is_the_first(tiny_lalm, items):
    """Also in a batch of its own, where no prompt has a second."""
    one = items[1]
    first, audio = (tiny_lalm.logits(one, Mata(2.0, [1], "add", keys=keys)) for keys in ("audio_1", "audio"))
    assert torch.equal(first, audio)
    swept = mi.sweep(tiny_lalm, items, {"first": Knockout([1], keys="audio_1")}, batch_size=1, progress=False)
    assert swept.sizes["item"] == 3
    for prompted, reason in ((one, "'audio_2'"), (items[:2], "Row 1 .* no audio_2 tokens")):
        with pytest.raises(InterventionError, match=reason):
            tiny_lalm.logits(prompted, Mata(2.0, [1], keys="audio_2"))


def test_a_method_at_another_site_sees_the_clips(tiny_lalm, items):
    """Weights on the second clip set to zero by a method of the user's, and by a knockout."""

    class Blind:
        site, layers, queries, phase = "weights", (1,), "last", "both"

        def edit(self, x, context):
            rest = x.masked_fill(context.keys["audio_2"][:, None, None], 0.0)
            return rest / rest.sum(-1, keepdim=True)

    two = [items[0], items[2]]
    torch.testing.assert_close(
        tiny_lalm.logits(two, Blind()), tiny_lalm.logits(two, Knockout([1], keys="audio_2")),
        atol=1e-5, rtol=0,
    )  # fmt: skip
    both = (Knockout([1], keys="audio_2"), Blind())  # in the path of methods
    torch.testing.assert_close(tiny_lalm.logits(two, both), tiny_lalm.logits(two, Blind()), atol=1e-5, rtol=0)


def test_a_run(tiny_lalm, items, tmp_path):
    """Records, partners, silence and the manifest; which of the clips decides."""
    four = [*items, Item([sound(0.4, 7), sound(0.5, 8)], "Whose?", choices=("a", "b"), answer="a", id="four")]
    conditions = {
        "baseline": None,
        "first": Mata(2.0, [1, 2], "add", keys="audio_1"),
        "other": Condition(audio="other"),
        "silence": Condition(audio="silence"),
        "none": Condition(audio="none"),
    }
    run = mi.run(tiny_lalm, four, conditions, tmp_path / "run", batch_size=2, progress=False)
    rows = run.records.set_index(["condition", "item"])
    assert len(rows) == 20
    assert rows.loc[("baseline", "three"), "truncated_seconds"] == pytest.approx(0.4)
    assert rows.loc[("baseline", "two"), "audio_tokens"] == frames(0.4) + frames(0.9)
    assert rows.loc[("silence", "three"), "audio_tokens"] == rows.loc[("baseline", "three"), "audio_tokens"]
    assert rows.loc[("none", "three"), "audio_tokens"] == 0
    for item in four:
        scored = tiny_lalm.score(tiny_lalm.prompt(item), None, conditions["first"]).logprob[0]
        np.testing.assert_allclose(rows.loc[("first", item.id), "logprob"], scores(scored), atol=2e-5)
    again = mi.run(tiny_lalm, four, conditions, tmp_path / "run", batch_size=2, progress=False)
    assert again.records.equals(run.records)
    other = [*four[:3], four[3].with_audio([sound(0.4, 7), sound(0.5, 9)])]
    with pytest.raises(mi.errors.RunError, match="another sound"):
        mi.run(tiny_lalm, other, conditions, tmp_path / "run", batch_size=2, progress=False)


def test_a_trace_in_a_file(tiny_lalm, items, tmp_path):
    """Read again by the same call; another clip is another trace. Workers get whole paths."""
    settings = {"out": tmp_path / "trace.nc", "batch_size": 2, "progress": False}
    traced = mi.trace(tiny_lalm, items, **settings)
    assert traced["subgroup"].values.tolist() == ["audio_1", "audio_2", "audio_3"]
    assert mi.trace(tiny_lalm, items, **settings).identical(traced)
    with pytest.raises(mi.errors.RunError, match="trace"):
        mi.trace(tiny_lalm, [items[0].with_audio([sound(0.4, 7), sound(0.5, 9)]), *items[1:]], **settings)
    soundfile.write(tmp_path / "a.wav", *sound(0.4, 7))
    item = absolute(Item([tmp_path / "a.wav", "b.wav", sound(0.4, 8)], "Which?"))
    assert item.clips[:2] == (tmp_path / "a.wav", Path("b.wav").absolute())
    assert absolute(Item(["a.wav", "b.wav"], "Which?", audio_root=".")).audio_root == Path.cwd()


@pytest.mark.parametrize("rows", [1, 2])
def test_memory_that_takes_fewer_rows(tiny_lalm, items, rows):
    """A batch of items with several clips is halved where memory runs out."""
    whole = mi.trace(tiny_lalm, items, progress=False)
    model, processor = tiny_qwen2_audio(seed=0)
    with SmallMemory(model, rows=rows) as memory:
        halved = mi.trace(mi.LALM(model, processor), items, progress=False)
        assert memory.refused
    xr.testing.assert_allclose(halved, whole, 2e-6, 1e-5)


def scores(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def test_another_items_audio_keeps_the_number_of_clips(tiny_lalm, items):
    two, one, three = items
    partners = {"two": one, "one": three, "three": two}
    prompt, rows = build_batch(tiny_lalm, items, "other", partners, "options")
    assert [len(item.clips) for item in prompt.items] == [2, 3, 3]
    assert [row["audio_from"] for row in rows] == ["one", "three", "two"]


def test_shared_clips_keep_items_together(tiny_lalm):
    """The records' clusters are those of the collection."""
    a, b, c = sound(0.3, 1), sound(0.3, 2), sound(0.3, 3)
    items = [
        Item(clips, "Which?", choices=("x", "y"), answer="x", id=str(n))
        for n, clips in enumerate([[a, b], b, [c, c], c])
    ]
    run = mi.run(tiny_lalm, items, {"baseline": None}, progress=False)
    clusters = run.records.set_index("item")["cluster"]
    assert clusters["0"] == clusters["1"] != clusters["2"] == clusters["3"]


def test_listening_shows_all_clips(tiny_lalm, items, tmp_path):
    clips = [sound(0.4, 1), sound(1.2, 2)]
    listening = mi.listen(tiny_lalm, clips, "Which?", ("dog", "a bell"), layers=[1])
    assert listening.clip_starts == pytest.approx((0.0, 0.4))
    assert listening.seconds == pytest.approx(1.4)
    assert listening.truncated_seconds == pytest.approx(0.2)
    assert len(listening.samples) == round(1.4 * RATE)
    assert any(abs(edge - 0.4) < 1e-9 for edge in listening.edges)
    item = Item(clips, "Which?", choices=("dog", "a bell"))
    mass = mi.trace(tiny_lalm, item, progress=False)["subgroup_mass"].mean(["item", "layer", "head"])
    np.testing.assert_allclose(listening.clip_attention, mass, atol=1e-6)
    np.testing.assert_allclose(listening.attention.sum(1).mean(), mass.sum(), atol=1e-6)
    assert "clip 2 from 0.4 s" in str(listening)
    assert "clip 2 from 0.4 s" in listening.save(tmp_path / "page.html").read_text()


def test_too_short_a_clip_names_its_number(tiny_lalm):
    with pytest.raises(ItemError, match=r"clip 2: 0\.020 s is too short") as error:
        tiny_lalm.prompt(Item([sound(0.4, 1), sound(0.02, 2)], "Which?", id="q"))
    assert error.value.item == "q"


def test_a_check(items):
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    report = mi.check(lalm, [items[0], items[2]])
    assert report.ok, str(report)
