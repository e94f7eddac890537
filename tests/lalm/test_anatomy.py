"""Discovery from structure, on real classes of several families."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from mata_interp.errors import ModelError
from mata_interp.lalm import Anatomy
from mata_interp.lalm.anatomy import audio_token_id
from tests.tiny import tiny_qwen2_audio


def test_qwen2_audio(tiny_lalm):
    anatomy, model = tiny_lalm.anatomy, tiny_lalm.model
    assert anatomy.decoder is model.model.language_model
    assert dict(anatomy.attention) == {i: layer.self_attn for i, layer in enumerate(anatomy.decoder.layers)}
    assert dict(anatomy.heads) == dict.fromkeys(range(4), 4)
    assert anatomy.layers == 4
    assert anatomy.audio_token_id == model.config.audio_token_index


def text_model():
    return AutoModelForCausalLM.from_config(
        Qwen2Config(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1,
        )
    )  # fmt: skip


def test_a_model_without_audio():
    with pytest.raises(ModelError, match="Qwen2ForCausalLM has no audio"):
        Anatomy.of(text_model())
    with pytest.raises(ModelError, match="Linear has no audio"):
        Anatomy.of(nn.Linear(2, 2))


def test_a_decoder_that_does_not_name_its_attention():
    model, _ = tiny_qwen2_audio(layers=1)
    model.model.language_model._can_record_outputs = {}
    with pytest.raises(ModelError, match="Qwen2Model, the decoder, does not say which modules"):
        Anatomy.of(model)


def test_a_layer_without_attention_is_left_out():
    model, _ = tiny_qwen2_audio(layers=3)
    model.model.language_model.layers[1].self_attn = nn.Identity()
    anatomy = Anatomy.of(model)
    assert tuple(anatomy.attention) == (0, 2)
    assert anatomy.layers == 3


@pytest.mark.parametrize("place", ["thinker_config", "audio_config"])
def test_the_audio_token_may_be_named_deeper(place):
    config = Qwen2Config()
    inner = Qwen2Config()
    inner.audio_token_id = 7
    setattr(config, place, inner)
    assert audio_token_id(config) == 7
    assert audio_token_id(Qwen2Config()) is None
    assert audio_token_id(None) is None


def test_heads_are_those_the_attention_uses(tiny_lalm, prompt):
    seen = {}

    def look(layer, call, total):
        seen[layer] = call.query.shape[1]

    with torch.inference_mode():
        tiny_lalm.instrument.run(lambda: tiny_lalm.model(**prompt.inputs), tiny_lalm.attention_layers, look)
    assert seen == dict(tiny_lalm.anatomy.heads)
