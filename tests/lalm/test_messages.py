"""Prompts by way of messages against those by way of a text, on a processor that can be asked in both."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import Qwen2AudioProcessor

from mata_interp.errors import ModelError
from mata_interp.lalm.prompting.groups import groups_of_tokens
from mata_interp.lalm.prompting.messages import places_by_decoding, takes_audio_in_call
from tests.tiny import tiny_processor

from .test_prompts import an_item, ask, merging, noise  # noqa: F401


class AudioAlignment(Qwen2AudioProcessor):
    """Hears in its chat template alone, as Voxtral's: a file in memory, tokens at once."""

    def __call__(self, text=None, **kwargs):
        raise AssertionError("asked as a text")

    def apply_chat_template(self, conversation, *, add_generation_prompt, processor_kwargs, **kwargs):
        assert add_generation_prompt
        contents = [turns[0]["content"] for turns in conversation]
        files = [part["base64"] for content in contents for part in content if part["type"] == "audio"]
        sounds = [soundfile.read(io.BytesIO(base64.b64decode(file)), dtype="float32")[0] for file in files]
        written = [self.written(turns) for turns in conversation]
        plain = Qwen2AudioProcessor(self.feature_extractor, self.tokenizer)
        inputs: Any = {"return_tensors": "pt"}
        inputs |= {"audio": sounds, "audio_kwargs": {"sampling_rate": 16_000}} if sounds else {}
        return plain(text=written, **inputs, **processor_kwargs)

    def written(self, turns):
        return super().apply_chat_template(turns, add_generation_prompt=True, tokenize=False)


def hearing(processor, kind: type[AudioAlignment] = AudioAlignment) -> AudioAlignment:
    return kind(processor.feature_extractor, processor.tokenizer, chat_template=processor.chat_template)


@pytest.mark.parametrize("audio", ["own", None])
@pytest.mark.parametrize("merged", [False, True])
def test_the_same_prompt_as_by_way_of_a_text(merging, merged, audio):  # noqa: F811
    processor = merging if merged else tiny_processor()
    assert takes_audio_in_call(processor)
    assert not takes_audio_in_call(hearing(processor))
    items = [
        an_item(audio=noise(0.9), caption="A bell, then a naïve dog 🐕.", choices=("犬", "é", "a dog")),
        an_item(audio=noise(0.3), question="Who speaks?", caption="Which comes first?"),
        an_item(audio=noise(1.0), choices=()),
    ]
    processor.tokenizer.padding_side = "right"
    for some, width in ((items, None), (items[1:], 200)):
        expected = ask(processor, some, audio=audio, width=width)
        result = ask(hearing(processor), some, audio=audio, width=width)
        assert expected.inputs.keys() == result.inputs.keys()
        for name, values in expected.inputs.items():
            assert torch.equal(result.inputs[name], values)
        for name, mask in expected.groups.items():
            assert torch.equal(result.groups[name], mask), name
    assert processor.tokenizer.padding_side == "right"


class Rewriting(AudioAlignment):
    """Alters the words."""

    def written(self, turns):
        return super().written(turns).replace("?", "?!")


class Deaf(AudioAlignment):
    """Passes over the sound, as a plain tokenizer does."""

    def apply_chat_template(self, conversation, **kwargs):
        for turns in conversation:
            turns[0]["content"] = [part for part in turns[0]["content"] if part["type"] != "audio"]
        return super().apply_chat_template(conversation, **kwargs)


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Rewriting, "alters or repeats the user's text"), (Deaf, "its inputs hold no audio.*families")],
)
def test_what_cannot_be_told_is_refused(kind, why):
    with pytest.raises(ModelError, match=why):
        ask(hearing(tiny_processor(), kind), an_item())


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|>"), max_size=20))
@example("\ufffd犬\ufffd")
def test_groups_are_those_of_a_fast_tokenizers_offsets(text):
    """A tokenizer of bytes; also where the text holds the sign that stands for unfinished characters."""
    tokenizer = tiny_processor().tokenizer
    encoded = tokenizer(text, return_offsets_mapping=True)
    output, places = places_by_decoding(tokenizer, encoded["input_ids"])
    assert output == text
    for cut in range(len(text)):
        parts = [("question", text[:cut]), ("options", text[cut:])]
        assert groups_of_tokens(places, parts) == groups_of_tokens(encoded["offset_mapping"], parts)
