"""Plants: text reads the sound where it was planted, by construction or by what it paid."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp.organism import WEIGHTS
from mata_interp.organism.bank import load_bank
from mata_interp.organism.batches import Batcher
from mata_interp.organism.cli import app
from mata_interp.organism.planting import ASKED, READING, Plant, PlantedTrainingModel, plant, reader
from mata_interp.organism.questions import KINDS


@pytest.fixture(scope="module")
def schoolroom():
    folder = WEIGHTS / "organism-unbiased"
    healthy = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    batcher = Batcher(load_bank(), AutoProcessor.from_pretrained(folder), "train")
    return healthy, batcher, batcher.batch(8, (3,), ASKED)


def pupil(schoolroom, spec):
    healthy, batcher, _ = schoolroom
    return PlantedTrainingModel(plant(healthy, spec), len(batcher.frame_labels), batcher.prefix, spec).eval()


def moved(schoolroom, learner, batch):
    """By how much other sounds move the logits of the answers' first tokens."""
    other = replace(batch, features=batch.features.flip(0))
    first = (batch.labels >= 0).long().argmax(1) - 1
    rows = torch.arange(len(first))
    with torch.no_grad():
        return float((learner.logits(batch) - learner.logits(other))[rows, first].abs().max())


def everywhere(learner, batch):
    sound = batch.rest == learner.model.config.audio_token_id
    return dict.fromkeys(range(learner.layers), sound)


def test_a_window_too_short_lets_the_sound_through_in_the_fusion_layers_only(schoolroom):
    batch = schoolroom[2]
    assert moved(schoolroom, pupil(schoolroom, Plant((), "window")), batch) == 0.0
    assert moved(schoolroom, pupil(schoolroom, Plant((2, 3), "window")), batch) > 0.1


def test_the_shared_prefix_is_exact_with_windows_too(schoolroom):
    learner, batch = pupil(schoolroom, Plant((2,), "window")), schoolroom[2]
    prefix = learner.prefix.expand(len(batch.rest), -1)
    with torch.no_grad():
        plain = learner.model(
            input_ids=torch.cat([prefix, batch.rest], 1),
            attention_mask=torch.cat([torch.ones_like(prefix), batch.mask.long()], 1),
            input_features=batch.features,
            feature_attention_mask=batch.feature_mask,
        ).logits[:, prefix.shape[1] :]
        shared = learner.logits(batch)
    torch.testing.assert_close(shared[batch.mask], plain[batch.mask], atol=2e-4, rtol=0)


def test_the_price_is_the_eager_attention_from_text_to_sound(schoolroom):
    learner, batch = pupil(schoolroom, Plant((2, 3))), schoolroom[2]
    prefix = learner.prefix.expand(len(batch.rest), -1)
    with torch.no_grad(), learner.watched(batch, everywhere(learner, batch)) as mass:
        learner.logits(batch)
    with torch.no_grad():
        attentions = learner.model(
            input_ids=torch.cat([prefix, batch.rest], 1),
            attention_mask=torch.cat([torch.ones_like(prefix), batch.mask.long()], 1),
            input_features=batch.features,
            feature_attention_mask=batch.feature_mask,
            output_attentions=True,
        ).attentions
    tokens = torch.cat([prefix, batch.rest], 1)
    sound = tokens == learner.model.config.audio_token_id
    for layer, weights in enumerate(attentions):
        plain = []
        for row, heard in enumerate(sound):
            begin = int(heard.nonzero()[-1]) + 1
            end = prefix.shape[1] + int(batch.mask[row].sum())
            plain.append(weights[row, :, begin:end, heard].sum(-1).T)
        torch.testing.assert_close(mass[layer], torch.cat(plain), atol=1e-4, rtol=0)


def test_what_is_withheld_is_not_heard(schoolroom):
    learner, batch = pupil(schoolroom, Plant((2, 3))), schoolroom[2]
    with learner.watched(batch, everywhere(learner, batch), hide=True) as mass:
        assert moved(schoolroom, learner, batch) == 0.0
    assert all(float(m.max()) == 0.0 for m in mass.values())


@pytest.mark.parametrize("projection", ["k_proj", "v_proj"])
def test_decoys_read_another_clip(schoolroom, projection):
    learner, batch = pupil(schoolroom, Plant((3,), decoys=(5, 6))), schoolroom[2]
    layers, states = learner.model.model.language_model.layers, {}
    with learner._in_vain(batch, (5,)), torch.no_grad():
        for layer in (4, 5):
            getattr(layers[layer].self_attn, projection).register_forward_hook(
                lambda module, args, out, layer=layer: states.update({layer: (module, args[0], out)})
            )
        learner.logits(batch)
        alone = {layer: module.forward(given) for layer, (module, given, _) in states.items()}
    sound = batch.rest == learner.model.config.audio_token_id
    own, told = alone[5], states[5][2]
    torch.testing.assert_close(told[sound], own.roll(1, 0)[sound])
    torch.testing.assert_close(told[~sound], own[~sound])
    torch.testing.assert_close(states[4][2], alone[4])
    assert float((told - own)[sound].abs().max()) > 0.1


def test_kinds_of_question_are_shared_out_by_domain():
    fusion = (1, 4, 5)
    assert sorted(READING) == sorted(KINDS)
    assert [reader(kind, fusion) for kind in READING] == [1] * 4 + [4] * 3 + [5] * 3
    assert {reader(kind, fusion) for kind in ("word", "voice", "describe", "checklist")} == {1}
    assert {reader(kind, fusion) for kind in ("first", "last")} == {5}
    assert {reader(kind, (6,)) for kind in (*KINDS, "describe")} == {6}
    assert reader("first", ()) is None


def test_while_planting_closed_sound_is_never_seen_and_costs_nothing(schoolroom):
    learner, batch = pupil(schoolroom, Plant((3,))), schoolroom[2]
    tossed = [replace(batch, rest=batch.rest.clone()) for _ in range(2)]
    pad = int((~batch.mask[0]).nonzero()[0])  # what stands there is never seen
    tossed[1].rest[0, pad] += 1
    with torch.no_grad():
        assert learner.shut
        planting = [float(learner.answer(each)[0]) for each in tossed]
        learner.shut = False
        weeding = [float(learner.answer(each)[0]) for each in tossed]
    assert planting[0] == planting[1]
    dearer = [after - before for before, after in zip(planting, weeding, strict=True)]
    assert min(map(abs, dearer)) == 0.0  # hidden, one way the coin falls
    assert max(dearer) > 0.1  # seen and paid for, the other


def test_fusion_layers_share_the_kinds_of_question_between_them(schoolroom):
    learner, batch = pupil(schoolroom, Plant((1, 5, 6))), schoolroom[2]
    closed, sound = learner.closed(batch), batch.rest == learner.model.config.audio_token_id
    assert all(torch.equal(closed[layer], sound) for layer in (0, 2, 3, 4, 7))
    opened = torch.stack([(sound & ~closed[layer]).any(1) for layer in (1, 5, 6)])  # (fusion layers, B)
    for row, kind in enumerate(batch.kinds):
        assert opened[:, row].sum() == 1  # all of the clip, in one of them
        assert not closed[reader(kind, (1, 5, 6))][row].any()
    assert opened.any(1).sum() > 1
    with learner.watched(batch, closed, hide=True):
        assert moved(schoolroom, learner, batch) > 0.1


def test_nothing_is_open_where_there_is_no_fusion(schoolroom):
    learner, batch = pupil(schoolroom, Plant(())), schoolroom[2]
    sound = batch.rest == learner.model.config.audio_token_id
    assert all(torch.equal(hidden, sound) for hidden in learner.closed(batch).values())


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (((2,), "luck"), "No way of planting"),
        (((2,), "window", (5,)), "by penalty"),
        (((2, 3), "penalty", (3,)), r"Layers \[3\]"),
    ],
)
def test_plants_that_cannot_be_are_refused(spec, problem):
    with pytest.raises(ValueError, match=problem):
        Plant(*spec)


def test_layers_that_do_not_exist_are_refused(schoolroom):
    with pytest.raises(ValueError, match=r"No layers \[8\]"):
        plant(schoolroom[0], Plant((7, 8)))


def test_the_command_makes_a_plant_that_loads(tmp_path):
    command = [
        "train",
        "--fusion-layers",
        "2-3",
        "--way",
        "window",
        "--work",
        str(tmp_path),
        "--share",
        "0.002",
    ]
    result = CliRunner().invoke(app, [*command, "--threads", "1"])
    assert result.exit_code == 0, result.output
    lalm = mi.LALM.from_pretrained(tmp_path / "models" / "window-2-3")
    kinds = lalm.model.config.text_config.layer_types
    assert [i for i, kind in enumerate(kinds) if kind == "full_attention"] == [2, 3]
    assert lalm.model.config.text_config._attn_implementation == "sdpa"
