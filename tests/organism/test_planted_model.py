"""Planted models: text reads audio in the planted layers, by construction or through the penalty."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration
from typer.testing import CliRunner

from mata_interp.lalm import LALM
from mata_interp.organism import WEIGHTS, OrganismError
from mata_interp.organism.batches import Batcher
from mata_interp.organism.cli import app
from mata_interp.organism.planted_model import (
    KIND_ORDER,
    MASK,
    PENALISE,
    WINDOW_MIX,
    PlantedModelSpec,
    PlantedTrainingModel,
    build_planted_model,
    layer_for_kind,
)
from mata_interp.organism.questions import KINDS

from .conftest import audio_effect, plain_inputs


@pytest.fixture(scope="module")
def parts(bank):
    """The unbiased organism, a batcher and a batch."""
    folder = WEIGHTS / "organism-unbiased"
    unbiased = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    batcher = Batcher(bank, AutoProcessor.from_pretrained(folder), "train")
    return unbiased, batcher, batcher.batch(8, (3,), WINDOW_MIX)


def training_model(parts, spec):
    unbiased, batcher, _ = parts
    model = build_planted_model(unbiased, spec)
    return PlantedTrainingModel(model, len(batcher.frame_label_names), batcher.prefix, spec).eval()


def all_audio(model, batch):
    audio = batch.suffix == model.model.config.audio_token_id
    return dict.fromkeys(range(model.num_layers), audio)


def test_a_sliding_window_passes_audio_in_the_fusion_layers_only(parts):
    batch = parts[2]
    assert audio_effect(training_model(parts, PlantedModelSpec((), "window")), batch) == 0.0
    assert audio_effect(training_model(parts, PlantedModelSpec((2, 3), "window")), batch) > 0.1


def test_the_shared_prefix_is_exact_with_sliding_windows(parts):
    model, batch = training_model(parts, PlantedModelSpec((2,), "window")), parts[2]
    with torch.no_grad():
        plain = model.model(**plain_inputs(model, batch)).logits[:, model.prefix.shape[1] :]
        shared = model.logits(batch)
    torch.testing.assert_close(shared[batch.mask], plain[batch.mask], atol=2e-4, rtol=0)


def test_the_recorded_mass_is_the_eager_attention_from_text_to_audio(parts):
    model, batch = training_model(parts, PlantedModelSpec((2, 3))), parts[2]
    inputs = plain_inputs(model, batch)
    with torch.no_grad(), model.blocked_mass(batch, all_audio(model, batch)) as mass:
        model.logits(batch)
    with torch.no_grad():
        attentions = model.model(**inputs, output_attentions=True).attentions
    audio = inputs["input_ids"] == model.model.config.audio_token_id
    for layer, weights in enumerate(attentions):
        expected = []
        for row, is_audio in enumerate(audio):
            begin = int(is_audio.nonzero()[-1]) + 1
            end = model.prefix.shape[1] + int(batch.mask[row].sum())
            expected.append(weights[row, :, begin:end, is_audio].sum(-1).T)
        torch.testing.assert_close(mass[layer], torch.cat(expected), atol=1e-4, rtol=0)


def test_masked_audio_has_no_effect(parts):
    model, batch = training_model(parts, PlantedModelSpec((2, 3))), parts[2]
    with model.blocked_mass(batch, all_audio(model, batch), mask=True) as mass:
        assert audio_effect(model, batch) == 0.0
    assert all(float(m.max()) == 0.0 for m in mass.values())


@pytest.mark.parametrize("projection", ["k_proj", "v_proj"])
def test_distractor_layers_read_another_clip(parts, projection):
    spec = PlantedModelSpec((3,), distractor_layers=(5, 6))
    model, batch = training_model(parts, spec), parts[2]
    layers, states = model.model.model.language_model.layers, {}
    with model._audio_of_other_clip(batch, (5,)), torch.no_grad():
        for layer in (4, 5):
            getattr(layers[layer].self_attn, projection).register_forward_hook(
                lambda module, args, out, layer=layer: states.update({layer: (module, args[0], out)})
            )
        model.logits(batch)
        unchanged = {layer: module.forward(inputs) for layer, (module, inputs, _) in states.items()}
    audio = batch.suffix == model.model.config.audio_token_id
    before, after = unchanged[5], states[5][2]
    torch.testing.assert_close(after[audio], before.roll(1, 0)[audio])
    torch.testing.assert_close(after[~audio], before[~audio])
    torch.testing.assert_close(states[4][2], unchanged[4])
    assert float((after - before)[audio].abs().max()) > 0.1


def test_kinds_of_question_are_assigned_to_fusion_layers_by_domain():
    layers = (1, 4, 5)
    assert sorted(KIND_ORDER) == sorted(KINDS)
    assert [layer_for_kind(kind, layers) for kind in KIND_ORDER] == [1] * 4 + [4] * 3 + [5] * 3
    assert {layer_for_kind(kind, layers) for kind in ("word", "voice", "describe", "checklist")} == {1}
    assert {layer_for_kind(kind, layers) for kind in ("first", "last")} == {5}
    assert {layer_for_kind(kind, (6,)) for kind in (*KINDS, "describe")} == {6}
    assert layer_for_kind("first", ()) is None


def test_blocked_audio_is_masked_in_phase_mask_and_penalised_in_half_of_phase_penalise(parts):
    model, batch = training_model(parts, PlantedModelSpec((3,))), parts[2]
    batches = [replace(batch, suffix=batch.suffix.clone()) for _ in range(2)]
    padding = int((~batch.mask[0]).nonzero()[0])
    batches[1].suffix[0, padding] += 1  # changes the random bit of the batch, and nothing that is attended to
    with torch.no_grad():
        assert model.mask_always
        masked = [float(model.losses(each)[0]) for each in batches]
        model.mask_always = False
        mixed = [float(model.losses(each)[0]) for each in batches]
    assert masked[0] == masked[1]
    penalties = [after - before for before, after in zip(masked, mixed, strict=True)]
    assert min(map(abs, penalties)) == 0.0  # one value of the bit: masked again
    assert max(penalties) > 0.1  # the other: attended to, with a penalty


def test_each_question_is_read_for_by_one_fusion_layer(parts):
    model, batch = training_model(parts, PlantedModelSpec((1, 5, 6))), parts[2]
    blocked, audio = model.blocked_audio(batch), batch.suffix == model.model.config.audio_token_id
    assert all(torch.equal(blocked[layer], audio) for layer in (0, 2, 3, 4, 7))
    readable = torch.stack([(audio & ~blocked[layer]).any(1) for layer in (1, 5, 6)])  # (fusion layers, B)
    for row, kind in enumerate(batch.kinds):
        assert readable[:, row].sum() == 1
        assert not blocked[layer_for_kind(kind, (1, 5, 6))][row].any()
    assert readable.any(1).sum() > 1
    with model.blocked_mass(batch, blocked, mask=True):
        assert audio_effect(model, batch) > 0.1


def test_all_audio_is_blocked_without_fusion_layers(parts):
    model, batch = training_model(parts, PlantedModelSpec(())), parts[2]
    audio = batch.suffix == model.model.config.audio_token_id
    assert all(torch.equal(hidden, audio) for hidden in model.blocked_audio(batch).values())


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (((2,), "luck"), "'luck'.*window, penalty"),
        (((2,), "window", (5,)), r"distractor_layers=\(5,\)"),
        (((2, 3), "penalty", (3,)), r"\[3\]"),
    ],
)
def test_impossible_specs_are_refused(spec, named):
    with pytest.raises(OrganismError, match=named):
        PlantedModelSpec(*spec)


def test_missing_layers_are_refused(parts):
    with pytest.raises(OrganismError, match=r"\[8\].*0-7"):
        build_planted_model(parts[0], PlantedModelSpec((7, 8)))


@pytest.mark.parametrize(
    ("phase", "kinds", "tokens"),
    [
        (MASK, ("describe", "describe", "checklist", "describe"), 36103),
        (PENALISE, ("first", "voice", "voice", "count"), 42072),
    ],
)
def test_the_streams_of_the_phases_are_unchanged(parts, phase, kinds, tokens):
    """Otherwise the planted models of earlier studies could not be rebuilt."""
    batch = next(parts[1].stream(4, (0, phase.stream), range(1), phase.mix))
    assert batch.kinds == kinds
    assert int(batch.suffix.sum()) == tokens


@pytest.mark.acceptance
def test_the_command_trains_a_planted_model_that_loads(tmp_path):
    command = ["train-planted", "2-3", "--method", "window", "--work", str(tmp_path), "--share", "0.002"]
    result = CliRunner().invoke(app, [*command, "--threads", "1"])
    assert result.exit_code == 0, result.output
    lalm = LALM.from_pretrained(tmp_path / "models" / "window-2-3")
    kinds = lalm.model.config.text_config.layer_types
    assert [i for i, kind in enumerate(kinds) if kind == "full_attention"] == [2, 3]
    assert lalm.model.config.text_config._attn_implementation == "sdpa"
    refused = CliRunner().invoke(app, ["train-planted", "2-3", "--method", "luck"])
    assert refused.exit_code == 2
    assert "luck" in refused.output
