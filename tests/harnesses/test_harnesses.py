"""Adapters of harnesses give the answers of `LALM.answer`; Inspect itself is replaced by its data classes."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import transformers

import mata_interp as mi
from mata_interp.errors import ArgumentError, InterventionError
from mata_interp.harnesses import answer_messages, item_from_messages, model_api, pipeline
from mata_interp.harnesses.inspect_model import decoding_of

RATE = 16_000
MATA = mi.Mata(4.0, [2, 3, 4, 5, 6, 7])


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM.from_pretrained("organism")


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)


@pytest.fixture(scope="module")
def clip(sound, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("audio") / "clip.wav"
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    return str(path)


def chat(audio: str, text: str = "Which animal is it?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "audio", "audio": audio}, {"type": "text", "text": text}]}]


def test_an_answer_to_a_chat_is_that_to_its_item(lalm, clip):
    answer = answer_messages(lalm, chat(clip), MATA)
    expected = lalm.answer(mi.Item(audio=clip, question="Which animal is it?"), MATA)
    assert (answer.text, answer.output_tokens) == (expected.texts[0], expected.lengths[0])
    assert answer.dose["kl"] == expected.dose["kl"][0] > 0


def test_audio_in_a_uri(sound, clip):
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="WAV", subtype="FLOAT")
    uri = f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
    samples, rate = item_from_messages(chat(uri)).audio
    assert rate == RATE
    np.testing.assert_array_equal(samples, sound)
    with pytest.raises(ArgumentError, match="cannot be read"):
        item_from_messages(chat("data:audio/wav;base64,AAAA"))


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "Be brief."}, *chat("a.wav")],
        [{"role": "user", "content": "Which animal is it?"}],
        [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}],
        [{"role": "user", "content": [{"type": "image", "image": "a.png"}, *chat("a.wav")[0]["content"]]}],
    ],
)
def test_other_chats_are_refused(messages):
    with pytest.raises(ArgumentError):
        item_from_messages(messages)


def test_a_pipeline_gives_the_tokens_of_the_lalm(lalm):
    """The pipeline of transformers on inputs that its own processor makes."""
    item = mi.load_benchmark("listening")[0]
    prompt = lalm.prompt(item)
    expected = lalm.answer(item, MATA, max_new_tokens=6)
    plain = lalm.answer(item, max_new_tokens=6)
    assert expected.texts != plain.texts
    text = lalm.processor.tokenizer.decode(prompt.inputs["input_ids"][0])
    placeholder = lalm.processor.audio_token
    text = text.replace(placeholder * text.count(placeholder), placeholder)  # one, which it expands
    samples = item.load_audio(lalm.sampling_rate).samples

    def ask(pipe):
        how = {"max_new_tokens": 6, "do_sample": False}
        output = pipe(text=text, audio=samples, return_full_text=False, generate_kwargs=how)
        return output[0]["generated_text"].strip()

    with pipeline(lalm, MATA) as pipe:
        assert ask(pipe) == expected.texts[0].strip()
    with pipeline(lalm, None) as pipe:
        assert ask(pipe) == plain.texts[0].strip()


def test_a_pipeline_is_closed(lalm):
    with pytest.raises(InterventionError, match="did not run"), pipeline(lalm, MATA):
        pass
    pipe = pipeline(lalm, MATA)
    assert isinstance(pipe.pipe, transformers.Pipeline)
    pipe.close()
    assert not pipe.attachment.attached


def test_settings_of_inspect():
    assert decoding_of({"max_tokens": 3, "timeout": 5}) == mi.Decoding(max_new_tokens=3)
    with pytest.raises(ArgumentError, match="frequency_penalty"):
        decoding_of({"frequency_penalty": 0.5})


@dataclass
class Config:
    values: dict[str, Any] = field(default_factory=dict)

    def model_dump(self, exclude_none: bool) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if value is not None or not exclude_none}


class ModelAPI:
    """As `inspect_ai.model.ModelAPI` keeps its arguments."""

    def __init__(self, model_name, base_url, api_key, api_key_vars, config):
        self.model_name, self.config = model_name, config


@dataclass
class Record:
    """Any data class of Inspect: what it is made with."""

    values: dict[str, Any]


@pytest.fixture
def inspect_ai(monkeypatch) -> ModuleType:
    module = ModuleType("inspect_ai.model")
    names = ("ChatMessageAssistant", "ChatCompletionChoice", "ModelOutput", "ModelUsage")
    for name in names:
        setattr(module, name, lambda **values: Record(values))
    module.ModelAPI, module.GenerateConfig = ModelAPI, Config
    module.modelapi = lambda name: lambda cls: setattr(cls, "registered", name) or cls
    monkeypatch.setitem(sys.modules, "inspect_ai", ModuleType("inspect_ai"))
    monkeypatch.setitem(sys.modules, "inspect_ai.model", module)
    return module


def test_inspect_gets_the_answer(inspect_ai, lalm, clip, tmp_path):
    folder = MATA.save_pretrained(tmp_path)
    api = model_api(lalm)("mata-interp/organism", intervention=str(folder))
    config = Config({"max_tokens": 6, "seed": None})
    output = asyncio.run(api.generate(chat(clip), [], "none", config)).values
    expected = lalm.answer(mi.Item(audio=clip, question="Which animal is it?"), MATA, max_new_tokens=6)
    choice = output["choices"][0].values
    assert choice["message"].values["content"] == expected.texts[0]
    assert choice["stop_reason"] == ("stop" if expected.stopped[0] else "max_tokens")
    assert output["metadata"]["dose"]["kl"] == expected.dose["kl"][0]
    assert api.max_connections() == 1
    assert type(api).registered == "mata-interp"
    with pytest.raises(ArgumentError, match="no tools"):
        asyncio.run(api.generate(chat(clip), ["a tool"], "auto", config))


def test_without_inspect_it_says_what_is_missing():
    with pytest.raises(ImportError, match="inspect_ai"):
        model_api()
