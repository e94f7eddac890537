"""The probe: sound in its own places is found, and every other way of hearing is told and refused."""

from __future__ import annotations

import pytest
import torch

from mata_interp.errors import ModelError
from mata_interp.lalm import LALM, AudioAlignment
from mata_interp.lalm.discovery.audio_positions import (
    audio_input_names,
    count_audio_frames,
    probe_audio_positions,
)
from tests.tiny import tiny_qwen2_audio


def test_sound_in_the_place_of_placeholders(tiny_lalm, prompt):
    alignment = tiny_lalm.audio_alignment(prompt)
    assert torch.equal(alignment.moved, prompt.groups["audio"])
    assert torch.equal(alignment.placeholders, prompt.groups["audio"])
    assert alignment.frames == prompt.groups["audio"].sum()
    assert (alignment.audio_inputs, alignment.padded, alignment.deterministic) == (
        ("input_features",),
        0,
        True,
    )
    assert alignment.require("it") is alignment
    assert count_audio_frames(tiny_lalm.model, tiny_lalm.structure, prompt.inputs).problem is None


def test_the_model_is_left_as_it_was(tiny_lalm, prompt):
    before, drawn = tiny_lalm.logits(prompt), torch.get_rng_state()
    tiny_lalm.audio_alignment(prompt)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(tiny_lalm.logits(prompt), before)


def test_inputs_that_hold_sound():
    floats = torch.zeros(1, 2)
    inputs = dict.fromkeys(("input_features", "input_values", "pixel_values", "inputs_embeds"), floats)
    inputs |= {"feature_attention_mask": floats, "input_ids": floats.long()}
    assert audio_input_names(inputs) == ("input_features", "input_values")


def test_no_sound_among_the_inputs(tiny_lalm, prompt):
    mute = {name: x for name, x in prompt.inputs.items() if name != "input_features"}
    with pytest.raises(ModelError, match="audio placeholders and no audio among the inputs"):
        tiny_lalm.prompt_from_inputs(mute)
    text = tiny_lalm.prompt(prompt.items, audio=None)
    assert tiny_lalm.prompt_from_inputs(text.inputs).groups["audio"].sum() == 0


def meddled(change):
    """A tiny model whose inputs' embeddings are changed by ``change(embeddings, frames)``."""
    model, processor = tiny_qwen2_audio(seed=0)
    inner = model.model
    outputs = []
    inner.multi_modal_projector.register_forward_hook(lambda _, args, out: outputs.append(out))

    def before(module, args, kwargs):
        embeds = change(kwargs["inputs_embeds"].clone(), outputs[-1])
        return args, kwargs | {"inputs_embeds": embeds}

    inner.language_model.register_forward_pre_hook(before, with_kwargs=True)
    return LALM(model, processor)


def added(embeds, frames):
    return embeds + frames.mean((0, 1))


def leaking(embeds, frames):
    embeds[:, -1] += frames.mean((0, 1))
    return embeds


def deaf(embeds, frames):
    return torch.ones_like(embeds)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (added, "audio is added to every position"),
        (leaking, "moves 3 decoder inputs that are not audio placeholders"),
        (deaf, "the audio moves none of the .* audio placeholders"),
    ],
)
def test_other_ways_of_hearing_are_refused_at_the_first_forward(items, change, output):
    lalm = meddled(change)
    prompt = lalm.prompt(items)
    with pytest.raises(ModelError, match=f"Qwen2Audio.* cannot be traced on these inputs: .*{output}"):
        lalm.logits(prompt)


def test_a_prompt_is_built_without_running_the_model(items):
    model, processor = tiny_qwen2_audio(seed=0)
    calls = []
    for module in model.modules():
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    lalm = LALM(model, processor)
    prompt = lalm.prompt(items)
    assert calls == []
    lalm.logits(prompt)
    first = len(calls)
    lalm.logits(prompt)
    assert first > len(calls) - first > 0  # the probe runs with the first forward and not again


def test_placeholders_that_no_sound_reaches_are_counted(items):
    def fixed(embeds, frames):
        embeds[:, 10:20] = 0.5  # as a family that fills up to a fixed number of placeholders
        return embeds

    lalm = meddled(fixed)
    prompt = lalm.prompt(items)
    alignment = lalm.audio_alignment(prompt)
    assert alignment.problem is None
    assert alignment.padded == prompt.groups["audio"][:, 10:20].sum()


def test_frames_that_find_no_placeholder(tiny_lalm, prompt):
    """Qwen2-Audio counts them itself; families that do not are in tests/families."""
    ids = prompt.inputs["input_ids"].clone()
    ids[0, int(prompt.groups["audio"][0].nonzero()[0])] = 5
    with pytest.raises(ModelError, match="do not match"):
        tiny_lalm.prompt_from_inputs(prompt.inputs | {"input_ids": ids})


def test_too_few_placeholders():
    places = torch.tensor([[False, True, True, False]])
    alignment = AudioAlignment(places, places, 3, ("input_features",), True)
    assert "3 frames of audio for 2 audio placeholders" in alignment.problem
    longer = AudioAlignment(places, torch.ones(1, 6, dtype=torch.bool), None, ("input_features",), True)
    assert "its decoder sees 6 tokens for 4 of input" in longer.problem


def test_what_the_model_itself_refuses_is_one_line(tiny_lalm, prompt):
    broken = prompt.inputs | {"input_features": prompt.inputs["input_features"][:, :5]}
    with pytest.raises(ModelError, match=r"Qwen2Audio.* does not take these inputs: ") as caught:
        probe_audio_positions(tiny_lalm.model, tiny_lalm.structure, broken)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_random_says_so(items):
    model, processor = tiny_qwen2_audio(seed=0)
    lalm = LALM(model, processor)
    model.model.multi_modal_projector.register_forward_hook(lambda _, args, out: out + torch.randn_like(out))
    alignment = lalm.audio_alignment(lalm.prompt(items))
    assert not alignment.deterministic
    assert alignment.problem is None
