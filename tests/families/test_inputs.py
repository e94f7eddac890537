"""Inputs other than one clip per prompt, inconsistent inputs, and models whose audio cannot be separated."""

from __future__ import annotations

import pytest
import torch

import mata_interp as mi
from mata_interp import Mata
from mata_interp.errors import ModelError
from mata_interp.lalm import LALM
from mata_interp.lalm.discovery.audio_positions import probe_audio_positions

from . import conformers, reference, whispers
from .family import AUDIO
from .registry import FAMILIES
from .test_families import as_reference, close


def changed(built, change) -> dict:
    """The family's inputs with other token ids, their number the same."""
    inputs = dict(built.family.inputs(2))
    inputs["input_ids"] = change(inputs["input_ids"].clone())
    return inputs


def test_fewer_placeholders_than_frames_are_caught(built, verified):
    """Several families silently drop frames that have no placeholder."""

    def one_less(ids):
        ids[0, int((ids[0] == built.family.audio).nonzero()[-1])] = 65
        return ids

    with pytest.raises(ModelError, match=r"frames of|does not take") as error:
        built.lalm.prompt_from_inputs(changed(built, one_less))
    verified(
        built,
        "too few placeholders",
        "refused" if "frames of" in str(error.value) else "refused by the model",
    )


def test_a_prompt_without_its_audio_is_refused(built):
    alignment = built.lalm.audio_alignment(built.prompt)
    without_audio = {
        name: x for name, x in built.family.inputs(2).items() if name not in alignment.audio_inputs
    }
    with pytest.raises(ModelError, match="placeholders"):
        built.lalm.prompt_from_inputs(without_audio)


def test_audio_changes_its_placeholders_and_nothing_else(built, verified):
    alignment = built.lalm.audio_alignment(built.prompt)
    assert not (alignment.moved & ~built.prompt.groups["audio"]).any()
    assert bool(alignment.padded) == (
        built.family.name == "gemma3n"
    )  # a fixed number, the rest of it padding
    assert alignment.deterministic
    verified(built, "hearing")


def test_time_marks_between_placeholders(built):
    """Text among the placeholders is text: the groups are masks of ids, not spans."""

    def marked(ids):
        for row in ids:
            places = (row == built.family.audio).nonzero()[:, 0]
            middle = int(places[len(places) // 2])
            # one placeholder moves one place to the right, over a token of text
            end = int(places[-1])
            row[middle : end + 2] = torch.cat([row[end + 1 : end + 2], row[middle : end + 1]])
        return ids

    prompt = built.lalm.prompt_from_inputs(changed(built, marked))
    mata = built.placed(Mata(1.5, [0, 1], "add"))
    edited = built.lalm.logits(prompt, mata)
    for row in range(2):
        real = prompt.inputs["attention_mask"][row].bool()
        edit = as_reference(mata, prompt.groups["audio"][row, real])
        alone = reference.single(prompt.inputs, row)
        close(
            edited[row],
            reference.forward(built.eager, built.modules, alone, [edit])[-1],
            built.family.rounding,
        )


@pytest.mark.parametrize("name", ["qwen2_audio", "qwen2_5_omni", "voxtral", "glmasr"])
def test_several_clips_in_one_prompt(name):
    """Two clips in one row; frames are in the order of the clips, and both are audio."""
    family = FAMILIES[name]
    two = family.inputs(2)
    rows = [row[keep.bool()] for row, keep in zip(two["input_ids"], two["attention_mask"], strict=True)]
    ids = torch.cat(rows)[None]
    inputs = two | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    lalm, eager = LALM(family.model(None)), family.model("eager")
    modules = {module: layer for layer, module in LALM(eager).structure.attention.items()}
    prompt = lalm.prompt_from_inputs(inputs)
    assert prompt.groups["audio"].sum() == (two["input_ids"] == AUDIO).sum()
    assert lalm.audio_alignment(prompt).problem is None
    mata = Mata(1.5, [0, 1], "add")
    edit = as_reference(mata, prompt.groups["audio"][0])
    close(lalm.logits(prompt, mata)[0], reference.forward(eager, modules, inputs, [edit])[-1])
    mass = mi.trace(lalm, prompt, progress=False)["mass"]
    close(mass.sum("group").values, torch.ones(mass.sum("group").shape))


@pytest.mark.parametrize("build", [conformers.voxtral_realtime, conformers.kyutai], ids=["voxtral", "kyutai"])
def test_audio_that_is_added_to_every_position_is_refused(build):
    with pytest.raises(ModelError, match="no audio token"):
        LALM(build(None))


def test_naming_a_token_does_not_make_added_audio_separable():
    """Voxtral Realtime with an audio token put into its config: the probe finds out."""
    model = conformers.voxtral_realtime(None)
    model.config.audio_token_id = AUDIO
    lalm = LALM(model)
    ids = torch.full((1, 10), AUDIO)
    ids[:, -3:] = 65
    inputs = {"input_ids": ids, "input_features": torch.randn(1, whispers.MELS, 80), "num_delay_tokens": 1}
    with pytest.raises(ModelError, match="every position"):
        probe_audio_positions(model, lalm.structure, inputs).require("it")
    with pytest.raises(ModelError, match="every position"):
        lalm.prompt_from_inputs(inputs)
