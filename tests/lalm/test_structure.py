"""Discovery from structure, on real classes of several families."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config, WhisperConfig, WhisperForConditionalGeneration

from mata_interp.errors import ModelError
from mata_interp.lalm import ModelStructure
from mata_interp.lalm.calls.attention_calls import attention_calls
from mata_interp.lalm.discovery.structure import audio_token_id
from tests.tiny import tiny_qwen2_audio


def test_qwen2_audio(tiny_lalm):
    structure, model = tiny_lalm.structure, tiny_lalm.model
    assert structure.decoder is model.model.language_model
    assert dict(structure.attention) == {
        i: layer.self_attn for i, layer in enumerate(structure.decoder.layers)
    }
    assert dict(structure.heads) == dict.fromkeys(range(4), 4)
    assert structure.num_layers == 4
    assert structure.audio_token_id == model.config.audio_token_index


def text_model():
    return AutoModelForCausalLM.from_config(
        Qwen2Config(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1,
        )
    )  # fmt: skip


def test_a_model_without_audio():
    with pytest.raises(ModelError, match="Qwen2ForCausalLM has no audio"):
        ModelStructure.from_model(text_model())
    with pytest.raises(ModelError, match="Linear has no audio"):
        ModelStructure.from_model(nn.Linear(2, 2))


def test_a_decoder_that_does_not_name_its_attention():
    """It is known by its call of transformers' attention function; without any there is nothing to read."""
    model, _ = tiny_qwen2_audio(layers=2)
    decoder = model.model.language_model
    decoder._can_record_outputs = {}
    assert dict(ModelStructure.from_model(model).attention) == {
        i: layer.self_attn for i, layer in enumerate(decoder.layers)
    }
    for layer in decoder.layers:
        layer.self_attn = nn.Identity()
    with pytest.raises(ModelError, match="Qwen2Model, the decoder, has no layers whose attention"):
        ModelStructure.from_model(model)


def test_an_encoder_decoder_is_refused_by_its_kind():
    config = WhisperConfig(
        vocab_size=16, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0, bos_token_id=0,
        eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    with pytest.raises(ModelError, match="WhisperForConditionalGeneration is an encoder-decoder"):
        ModelStructure.from_model(WhisperForConditionalGeneration(config))


def test_two_attentions_in_one_layer_are_refused():
    model, _ = tiny_qwen2_audio(layers=2)
    layers = model.model.language_model.layers
    layers[0].cross_attn = layers[1].self_attn
    with pytest.raises(
        ModelError, match="Layer 0 of Qwen2Model has several attentions: Qwen2Attention, Qwen2"
    ):
        ModelStructure.from_model(model)


def test_a_layer_without_attention_is_left_out():
    model, _ = tiny_qwen2_audio(layers=3)
    model.model.language_model.layers[1].self_attn = nn.Identity()
    structure = ModelStructure.from_model(model)
    assert tuple(structure.attention) == (0, 2)
    assert structure.num_layers == 3
    assert structure.kinds == ("full", "none", "full")


def test_a_recurrent_layer_is_told_from_one_that_mixes_nothing():
    model, _ = tiny_qwen2_audio(layers=3)
    layers = model.model.language_model.layers
    layers[0].self_attn = nn.Conv1d(1, 1, 2)
    layers[2].self_attn.sliding_window = 5
    assert ModelStructure.from_model(model).kinds == ("linear", "full", "sliding")


@pytest.mark.parametrize("place", ["thinker_config", "audio_config"])
def test_the_audio_token_may_be_named_deeper(place):
    config = Qwen2Config()
    inner = Qwen2Config()
    inner.audio_token_id = 7
    setattr(config, place, inner)
    assert audio_token_id(config) == 7
    assert audio_token_id(Qwen2Config()) is None


def test_the_audio_token_may_have_another_name():
    config = Qwen2Config()
    config.sound_context_token_id = 9
    config.audio_bos_token_id, config.audio_end_token_id, config.audio_pad_token_id = 1, 2, 3
    assert audio_token_id(config) == 9
    config.speech_token_id = 4
    assert audio_token_id(config) is None  # two of them: which it is cannot be known
    assert audio_token_id(None) is None


def test_heads_are_those_the_attention_uses(tiny_lalm, prompt):
    heads = {}

    def look(layer, call, total):
        heads[layer] = call.query.shape[1]

    calls = attention_calls(tiny_lalm.structure, tiny_lalm.attention_layers, look)
    with torch.inference_mode(), calls as run:
        run(lambda: tiny_lalm.model(**prompt.inputs))
    assert heads == dict(tiny_lalm.structure.heads)
