"""From items to answers: processors and chat templates, and options of many tokens in sweep and loop."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import mata_interp as mi
from mata_interp import Item, Mata
from mata_interp.errors import ModelError
from mata_interp.lalm import LALM

from . import reference
from .all_processors import ELSEWHERE, PROCESSORS
from .full_processors import LACKING, audio_id, model_for_items
from .processors import RATE, tokens
from .registry import FAMILIES
from .test_families import as_reference, row_of

SAME_NUMBER = {"gemma3n", "voxtral", "voxtral on lfm2"}
"""Families with as many audio tokens for a clip of 0.5 s as for one of 0.9 s."""
CHANGED_BY_OTHERS = {
    "gemma3n",
    "granite_speech",
    "granite_speech on granitemoehybrid",
    "granite_speech_plus",
    "phi4_multimodal",
    "qwen3_asr",
    "qwen3_omni_moe",
}
"""Families whose audio encoder lets the padding of a clip through, which a longer clip in the batch adds."""
SWEPT = {"none": None, "add": Mata(1.5, [0, 1], "add"), "decode": Mata(2.0, [1, 2], "add", phase="decode")}


def item(seconds: float, question: str, choices: tuple[str, ...]) -> Item:
    samples = np.random.default_rng(3).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    return Item(audio=(samples, RATE), question=question, choices=choices)


ITEMS = [item(0.9, "Which?", ("dog", "a bell")), item(0.5, "Which is first?", ("no", "rain", "both"))]


def placed(mata: Mata | None, layers: list[int]) -> Mata | None:
    """The same edit, its layers counted among those that have attention."""
    return mata and replace(mata, layers=[layers[n] for n in mata.layers])


def test_every_family_has_a_processor_or_a_reason():
    assert set(PROCESSORS) | set(ELSEWHERE) == set(FAMILIES)
    assert not set(PROCESSORS) & set(ELSEWHERE)


@pytest.mark.parametrize("name", FAMILIES)
def test_items_through_processor_and_template(name, tmp_path, verified):
    if name in ELSEWHERE:
        verified(name, "processor", f"not verified here: {ELSEWHERE[name]}")
        pytest.skip(f"{name}: {ELSEWHERE[name]}")
    lalm = LALM(model_for_items(name), PROCESSORS[name]())
    prompt = lalm.prompt(ITEMS)
    for row, item in enumerate(ITEMS):
        tokens_of_row = prompt.inputs["input_ids"][row]
        question = lalm.processor.tokenizer.decode(tokens_of_row[prompt.groups["question"][row]])
        assert question.strip() == item.question
        options = lalm.processor.tokenizer.decode(tokens_of_row[prompt.groups["options"][row]])
        assert all(choice in options for choice in item.choices)
    assert ((prompt.inputs["input_ids"] == audio_id(name)) == prompt.groups["audio"]).all()
    long, short = prompt.groups["audio"].sum(1).tolist()
    assert long == short if name in SAME_NUMBER else long > short
    assert lalm.audio_alignment(prompt).problem is None

    together = lalm.logits(prompt)
    off = max(
        float((lalm.logits(lalm.prompt(one))[0] - together[n]).abs().max()) for n, one in enumerate(ITEMS)
    )
    assert (off > 1e-5) == (name in CHANGED_BY_OTHERS)
    size = f"no ({off / float(together.std()):.1g} sd)"
    verified(name, "company", size if name in CHANGED_BY_OTHERS else "yes")

    mass = mi.trace(lalm, ITEMS, progress=False)["mass"]
    np.testing.assert_allclose(mass.sum("group"), 1, atol=1e-5)
    swept = {key: placed(mata, lalm.attention_layers) for key, mata in SWEPT.items()}
    result = mi.sweep(lalm, ITEMS, swept, progress=False)
    loop = lalm.score_each(prompt, [i.choices for i in ITEMS], list(swept.values()))
    np.testing.assert_allclose(result, np.stack([s.logprob for s in loop], 1), atol=2e-5)
    assert result.attrs["looped"] == 0
    assert np.nanmax(np.abs(result.values[:, 2] - result.values[:, 0])) > 0.01
    assert len(lalm.answer(prompt).texts) == 2

    # saved without its template, and loaded with it
    lalm.model.save_pretrained(tmp_path)
    chat_template = lalm.processor.chat_template
    lalm.processor.chat_template = None
    lalm.processor.save_pretrained(tmp_path)
    again = LALM.from_pretrained(tmp_path, chat_template=chat_template)
    if name == "phi4_multimodal" and LACKING["torchvision"]:  # its image processor, left out here
        with pytest.raises(ModelError, match="processor"):
            again.prompt(ITEMS)
        verified(
            name, "processor", "yes: without its image processor, so not reloaded; that needs torchvision"
        )
        return
    assert (again.prompt(ITEMS).inputs["input_ids"] == prompt.inputs["input_ids"]).all()
    verified(name, "processor")


@pytest.mark.skipif(not LACKING["torchaudio"], reason="torchaudio loads here")
def test_a_processor_that_needs_torchaudio_names_it(tmp_path):
    """Granite's: the model loads, and making a prompt says in one line what is missing."""
    LALM(FAMILIES["granite_speech"].model(None)).model.save_pretrained(tmp_path)
    tokens("<|audio|>").save_pretrained(tmp_path)
    kinds = {"processor_class": "GraniteSpeechProcessor"}
    named = {**kinds, "feature_extractor_type": "GraniteSpeechFeatureExtractor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(named))
    (tmp_path / "processor_config.json").write_text(json.dumps({**kinds, "audio_token": "<|audio|>"}))
    lalm = LALM.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="torchaudio") as error:
        lalm.prompt(ITEMS[0])
    assert "\n" not in str(error.value)


class Ready(LALM):
    """Uses prompts that were made before, for families whose processor is not built here."""

    ready = None

    def prompt(self, items, *args, **kwargs):
        return self.ready

    def option_tokens(self, item, texts):
        return [[ord(letter) for letter in text] for text in texts]


def test_options_of_many_tokens_are_swept_as_in_a_loop(built):
    """Answers that share one row with their prompt: also where a decoder takes more than embeddings."""
    lalm = Ready(built.family.model(None))
    lalm.ready, swept = replace(built.prompt, items=tuple(ITEMS)), built.all_placed(SWEPT)
    result = mi.sweep(lalm, ITEMS, swept, progress=False)
    loop = lalm.score_each(lalm.ready, [i.choices for i in ITEMS], list(swept.values()))
    np.testing.assert_allclose(result, np.stack([s.logprob for s in loop], 1), atol=2e-5)
    assert result.attrs["looped"] == 0
    assert np.nanmax(np.abs(result.values[:, 2] - result.values[:, 0])) > 0.01
    for row, item in enumerate(
        ITEMS
    ):  # both equal the eager reference, prompt and option in one forward pass
        alone, audio = row_of(built, row)
        option = lalm.option_tokens(item, item.choices)[1]
        for name, mata in (("none", None), ("decode", swept["decode"])):
            edits = [] if mata is None else [as_reference(mata, audio)]
            logits = reference.forward(built.eager, built.modules, alone, edits, option[:-1])
            expected = float(logits.double().log_softmax(-1)[range(len(option)), option].sum())
            assert abs(expected - float(result.sel(configuration=name)[row, 1])) < 2e-5
