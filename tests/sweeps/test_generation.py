"""Answers under many interventions from one reading are those of `lalm.answer`, token for token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import Item, Mata
from mata_interp.errors import ExclusionWarning
from mata_interp.lalm import Decoding
from mata_interp.sweeps import SweepWarning, sweep_generate
from tests.tiny import RATE, tiny_qwen2_audio

CONFIGURATIONS = {
    "baseline": None,
    "mata": Mata(1.0, [1, 2]),
    "strong": Mata(6.0, [0, 1, 2, 3], "add"),
    "decode": Mata(4.0, [1, 2], "add", phase="decode"),
    "knockout": Mata(1.0, [1, 2], "knockout"),
    "all text": Mata(2.0, [1, 2], "add", queries="text"),
    "two": (Mata(1.0, [1]), Mata(1.0, [2], keys="text")),
}


@pytest.fixture(scope="module")
def items() -> list[Item]:
    rng = np.random.default_rng(0)
    sounds = [(rng.normal(0, 0.1, n).astype(np.float32), RATE) for n in (14_000, 6_000, 9_000)]
    questions = ("Which sound is heard first?", "Why?", "Is there a crow?")
    return [Item(audio=s, question=q) for s, q in zip(sounds, questions, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "decoding", [Decoding(8), Decoding(8, temperature=1.0, seed=3)], ids=["greedy", "drawn"]
)
def test_each_answer_is_that_of_generate(items, decoding, dtype):
    model, processor = tiny_qwen2_audio(seed=3)
    lalm = mi.LALM(model.to(dtype), processor)
    swept = sweep_generate(lalm, items, CONFIGURATIONS, decoding=decoding, progress=False)
    assert swept.attrs["looped"] == 0
    prompt = lalm.prompt(items)
    for name, intervention in CONFIGURATIONS.items():
        alone = lalm.answer(prompt, intervention, decoding=decoding)
        one = swept.sel(configuration=name)
        assert one["text"].values.tolist() == list(alone.texts)
        assert one["length"].values.tolist() == alone.lengths.tolist()
        assert one["stopped"].values.tolist() == alone.stopped.tolist()
        for row, length in enumerate(alone.lengths):
            assert one["tokens"].values[row, :length].tolist() == alone.tokens[row, :length].tolist()
            assert (one["tokens"].values[row, length:] == -1).all()
    answers = {tuple(swept["text"].sel(configuration=name).values) for name in CONFIGURATIONS}
    assert len(answers) > 3  # the edits are heard


def test_the_prompt_is_read_once(items):
    lalm = mi.LALM(*tiny_qwen2_audio(seed=3))
    encoder, read = lalm.model.model.audio_tower, []
    lalm.prepare(items)  # probes the audio positions
    encoder.register_forward_hook(lambda *_: read.append(1))
    edits = {name: c for name, c in CONFIGURATIONS.items() if name != "all text"}
    sweep_generate(lalm, items, edits, decoding=Decoding(4), progress=False)
    assert len(read) == 2  # the shared reading, and the plain answer it is compared with


def test_edits_of_text_read_the_text_alone_again(items):
    """One item: no row has audio beside its text. The answer is that of `lalm.answer` all the same."""
    lalm = mi.LALM(*tiny_qwen2_audio(seed=3))
    read = []
    lalm.prepare(items[:1])
    lalm.model.model.audio_tower.register_forward_hook(lambda *_: read.append(1))
    edits = {name: CONFIGURATIONS[name] for name in ("baseline", "all text")}
    swept = sweep_generate(lalm, items[:1], edits, decoding=Decoding(8), progress=False)
    assert len(read) == 2  # the shared reading, and the plain answer it is compared with
    alone = lalm.answer(items[:1], edits["all text"], max_new_tokens=8)
    assert swept["text"].sel(configuration="all text").values.tolist() == list(alone.texts)
    assert alone.texts != lalm.answer(items[:1], max_new_tokens=8).texts


def test_a_model_that_cannot_step_back_answers_in_a_loop_and_says_so(items, monkeypatch):
    lalm = mi.LALM(*tiny_qwen2_audio(seed=3))
    shared = sweep_generate(lalm, items, CONFIGURATIONS, decoding=Decoding(4), progress=False)
    monkeypatch.setattr("mata_interp.sweeps.generation.read_to_answer", lambda *_, **__: None)
    with pytest.warns(SweepWarning, match="answers in a plain loop"):
        looped = sweep_generate(lalm, items, CONFIGURATIONS, decoding=Decoding(4), progress=False)
    assert looped.attrs["looped"] == 3
    assert shared["text"].equals(looped["text"])


def test_bad_items_and_prompts(items):
    lalm = mi.LALM(*tiny_qwen2_audio(seed=3))
    gone = Item(audio="nowhere.wav", question="?", id="gone")
    with pytest.warns(ExclusionWarning, match="3 items used, 1 left out, the first: item 'gone'"):
        swept = sweep_generate(lalm, [gone, *items], [None], decoding=Decoding(3), progress=False)
    of_prompt = sweep_generate(lalm, lalm.prompt(items), [None], decoding=Decoding(3), progress=False)
    assert swept["text"].values.tolist() == of_prompt["text"].values.tolist()
    assert swept["item"].values.tolist() == [item.id for item in items]
