"""Audio that enters as codes: which inputs hold it, and where it enters. The rest is in test_families."""

from __future__ import annotations

import pytest
import torch

import mata_interp as mi
from mata_interp import Mata
from mata_interp.errors import ModelError
from mata_interp.lalm import LALM
from mata_interp.lalm.discovery.audio_positions import audio_input_names, probe_audio_positions

from . import codes, reference
from .family import AUDIO
from .registry import FAMILIES


def test_codes_are_told_from_flags_lengths_and_tokens():
    ids = torch.randint(0, 9, (2, 7))
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones(2, 7, dtype=torch.long),
        "token_type_ids": torch.full((2, 7), 3),
        "position_ids": torch.arange(7).expand(3, 2, 7),
        "audio_input_ids": torch.randint(0, 9, (2, 4, 8)),
        "audio_codes": torch.randint(2, 9, (2, 5)),
        "audio_input_ids_mask": torch.ones(2, 4, dtype=torch.long),
        "frames_are_real": torch.ones(2, 4, dtype=torch.bool),
        "frame_flags": torch.ones(2, 4, dtype=torch.long),
        "audio_lengths": torch.tensor([[4, 4]]),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "audio_embed_sizes": torch.tensor([4, 3]),
    }
    assert audio_input_names(inputs) == ("audio_input_ids", "audio_codes")


@pytest.mark.parametrize("value", [0, 3, None])
def test_every_frame_moves_whatever_its_codes(value):
    """Also where all codes are equal, and where they are in the middle of their range."""
    family = FAMILIES["inkling_mm_model"]
    inputs = family.inputs(2)
    if value is not None:
        inputs["audio_input_ids"] = torch.full_like(inputs["audio_input_ids"], value)
    lalm = LALM(family.model(None))
    prompt = lalm.prompt_from_inputs(inputs)
    alignment = lalm.audio_alignment(prompt)
    assert alignment.audio_inputs == ("audio_input_ids",)
    assert torch.equal(alignment.moved, inputs["input_ids"] == AUDIO)
    assert alignment.frames == int(prompt.groups["audio"].sum())
    assert alignment.padded == 0


def test_a_codec_model_is_found_and_traced():
    """Higgs Audio: real codebooks, padding among the frames; a trace and an edit equal eager attention."""
    inputs, eager = codes.higgs_inputs(), codes.higgs("eager")
    model = codes.higgs(None)
    model.load_state_dict(eager.state_dict())
    lalm = LALM(model)
    prompt = lalm.prompt_from_inputs(inputs)
    assert lalm.audio_alignment(prompt).problem is None
    mass = mi.trace(lalm, prompt, progress=False)["mass"]
    modules = {module: layer for layer, module in LALM(eager).structure.attention.items()}
    mata = Mata(1.5, [0, 1], "add")
    edited = lalm.logits(prompt, mata)
    for row in range(2):
        real = prompt.inputs["attention_mask"][row].bool()
        alone = reference.single(inputs, row)
        frames = int(inputs["audio_input_ids_mask"][row].sum())
        for name in ("audio_input_ids", "audio_input_ids_mask"):
            alone[name] = inputs[name][row : row + 1, :frames]
        with torch.no_grad():
            weights = eager(**alone, output_attentions=True, use_cache=False).attentions
        audio = prompt.groups["audio"][row, real]
        for layer, one in enumerate(weights):
            expected = one[0, :, -1, audio].sum(-1)
            result = torch.as_tensor(mass.sel(layer=layer, group="audio").values[row])
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
        edit = reference.Edit(1.5, [0, 1], "add", audio)
        expected = reference.forward(eager, modules, alone, [edit])[-1]
        torch.testing.assert_close(edited[row], expected, atol=1e-5, rtol=0)


def test_codes_at_tokens_that_the_config_does_not_name_are_refused():
    """Higgs Audio also puts frames at its delay tokens."""
    inputs, model = codes.higgs_inputs(), codes.higgs(None)
    inputs["input_ids"][0, 15] = model.config.audio_delay_token_id
    lalm = LALM(model)
    with pytest.raises(ModelError, match="1 decoder inputs that are not audio placeholders"):
        probe_audio_positions(model, lalm.structure, inputs).require("it")


def test_too_few_placeholders_and_missing_codes_are_refused():
    family = FAMILIES["inkling_mm_model"]
    lalm, inputs = LALM(family.model(None)), family.inputs(1)
    with pytest.raises(ModelError, match="no audio among the inputs"):
        lalm.prompt_from_inputs({n: x for n, x in inputs.items() if not n.startswith("audio")})
    inputs["input_ids"][0, int((inputs["input_ids"][0] == AUDIO).nonzero()[0])] = 65
    with pytest.raises(ModelError):
        lalm.prompt_from_inputs(inputs)
