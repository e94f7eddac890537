"""Planted models with new decoders: their file, their questions, and training on encoded clips."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration
from typer.testing import CliRunner

from mata_interp.lalm import LALM
from mata_interp.organism import WEIGHTS, OrganismError
from mata_interp.organism import train_planted_body as training
from mata_interp.organism.batches import Batcher
from mata_interp.organism.cli import app
from mata_interp.organism.planted_body import PlantedBodySpec, build_body, read_bases
from mata_interp.organism.planted_growth import ROLES, GrownModelSpec, grow_model, read_planted_set
from mata_interp.organism.planted_questions import (
    PAIRS,
    QuestionPool,
    draw_questions,
    planted_items,
    reading_layer,
    short_processor,
)
from mata_interp.organism.train_planted_body import (
    PlantedBodyTraining,
    train_planted_body,
    with_audio_of_other_clips,
)

from .conftest import plain_inputs

SPEC = PlantedBodySpec("small", 5, (1, 3), width=32, num_heads=2, seed=4)
GROWN = GrownModelSpec("deep", "held-out", SPEC, 10, (2, 4, 5, 8, 9), (3,), seed=5)
CLIPS = 13


@pytest.fixture(scope="module")
def parts(bank):
    folder = WEIGHTS / "organism-unbiased"
    unbiased = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    processor = short_processor(AutoProcessor.from_pretrained(folder))
    return unbiased, processor, QuestionPool.make(unbiased, processor, bank, "selection", CLIPS)


@pytest.fixture(scope="module")
def model(parts):
    unbiased, _, pool = parts
    return PlantedBodyTraining(build_body(unbiased, SPEC), pool.prefix, SPEC).eval()


def test_the_set_that_ships():
    """Enough models, in all depths; those held out from the present rule include some with new bases."""
    specs = read_planted_set()
    held = [spec for spec in specs.values() if spec.role != "development"]
    using = [spec for spec in held if spec.fusion_layers]
    assert len(using) >= 12
    assert len(held) - len(using) >= 5
    new = [spec for spec in held if spec.role == "held-out"]
    assert sum(bool(spec.fusion_layers) for spec in new) >= 7
    assert {spec.base.name for spec in new} - {spec.base.name for spec in held if spec.role == "retired"}
    assert {spec.num_layers for spec in using} == {8, 16, 30}
    assert len({spec.base.width for spec in using}) > 1
    assert len({spec.seed for spec in specs.values()}) == len(specs)
    bases = {role: {s.base.seed for s in specs.values() if s.role == role} for role in ROLES}
    assert not bases["development"] & bases["held-out"]
    assert min(len(spec.fusion_layers) for spec in using if spec.num_layers == 30) == 1
    assert max(len(spec.fusion_layers) for spec in using) == 8
    layouts = [(spec.num_layers, spec.fusion_layers) for spec in specs.values() if spec.fusion_layers]
    assert len(set(layouts)) == len(layouts)  # no development layout is held out


def test_specifications_survive_their_file(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps({"bases": [SPEC.to_dict()], "models": [GROWN.to_dict()]}))
    assert read_bases(path) == {"small": SPEC}
    assert read_planted_set(path) == {"deep": GROWN}
    assert GROWN.fusion_layers == (4, 8)
    for twice in ({"bases": 2, "models": 1}, {"bases": 1, "models": 2}):
        entries = {"bases": [SPEC.to_dict()], "models": [GROWN.to_dict()]}
        path.write_text(json.dumps({key: entries[key] * twice[key] for key in entries}))
        with pytest.raises(OrganismError, match="twice"):
            read_planted_set(path)


WRONG = [
    {"fusion_layers": "4-5"},
    {"distractor_layers": "3"},
    {"width": 30},
    {"fusion_layers": "x"},
    {"depth": 3},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_contradictions_are_refused(change):
    with pytest.raises(OrganismError, match="small"):
        PlantedBodySpec.from_dict({**SPEC.to_dict(), **change})


WRONG_DEEP = [
    {"role": "secret"},
    {"positions": "2,4,6,8"},
    {"positions": "2,4-5,8,10"},
    {"distractor_layers": "4"},
    {"base": "other"},
]


@pytest.mark.parametrize("change", WRONG_DEEP, ids=str)
def test_contradictions_of_deep_models_are_refused(change):
    with pytest.raises(OrganismError, match="deep"):
        GrownModelSpec.from_dict({**GROWN.to_dict(), **change}, {"small": SPEC})


@pytest.mark.parametrize("count", [1, 2, 3, 8, 12])
def test_fusion_layers_divide_the_questions(count):
    layers = tuple(range(3, 3 + count))
    readers = [reading_layer(pair, layers) for pair in PAIRS]
    assert sorted(set(readers)) == list(layers)
    assert max(map(readers.count, layers)) - min(map(readers.count, layers)) <= 1
    assert reading_layer(PAIRS[0], ()) is None


def test_a_forward_on_encoded_clips_is_the_plain_forward(parts, model, bank):
    """Clips of different lengths, prefix shared, right-padded: against the whole model from mel features."""
    _, processor, pool = parts
    drawn = list(draw_questions(bank, "selection", CLIPS, 0))
    batcher = Batcher(bank, processor, "selection")
    whole = batcher.collate(
        [scene for scene, _, _ in drawn],
        [batcher.prompt_text("", question) for _, question, _ in drawn],
        [question.answer for _, question, _ in drawn],
    )
    encoded = pool.batch(range(CLIPS))
    assert len(set(encoded.feature_mask.sum(1).tolist())) > 1
    torch.testing.assert_close(encoded.suffix, whole.suffix)
    with torch.no_grad():
        plain = model.model(**plain_inputs(model, whole)).logits[:, model.prefix.shape[1] :]
        shared = model.logits(encoded)
        moved = model.logits(replace(encoded, features=encoded.features + 1.0))
    torch.testing.assert_close(shared[encoded.mask], plain[encoded.mask], atol=2e-4, rtol=0)
    assert (moved - shared).abs().max() > 1e-2


def test_encoded_clips_are_read_back(parts, bank, tmp_path):
    unbiased, processor, pool = parts
    cache = tmp_path / "clips.safetensors"
    made = QuestionPool.make(unbiased, processor, bank, "selection", CLIPS, cache)
    again = QuestionPool.make(unbiased, processor, bank, "selection", CLIPS, cache)
    for one, other in zip(made.states, again.states, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert (made.prompts, made.answers, made.pairs) == (again.prompts, again.answers, again.pairs)
    assert made.pairs == pool.pairs


def test_text_reads_in_the_layer_of_its_question_only(parts, model):
    batch = parts[2].batch(range(CLIPS))
    audio = batch.suffix == model.model.config.audio_token_id
    for layer, blocked in model.blocked_audio(batch).items():
        for row, pair in enumerate(batch.kinds):
            open_here = reading_layer(pair, SPEC.fusion_layers) == layer
            assert blocked[row].any() != open_here
            assert (blocked[row] <= audio[row]).all()


def test_other_clips_have_the_right_lengths(parts):
    batch = parts[2].batch(range(CLIPS))
    other = with_audio_of_other_clips(batch)
    assert (other.features[~batch.feature_mask] == 0).all()
    first, last = (int(batch.feature_mask[row].sum()) for row in (0, CLIPS - 1))
    shared = min(first, last)
    torch.testing.assert_close(other.features[0, :shared], batch.features[-1, :shared])
    assert not torch.equal(other.features[0], batch.features[0])


def test_items_are_new_clips_with_options(bank):
    items = planted_items(bank, "confirmation", 9)
    assert len({item.cluster for item in items}) == 9
    assert all(item.answer in item.choices for item in items)
    again = planted_items(bank, "confirmation", 9)
    np.testing.assert_array_equal(items[3].audio[0], again[3].audio[0])


@pytest.mark.parametrize("fusion_layers", [(1, 3), ()])
def test_training_saves_a_model_that_loads(fusion_layers, tmp_path, bank):
    spec = replace(SPEC, fusion_layers=fusion_layers, distractor_layers=(2,) if fusion_layers else ())
    measured = train_planted_body(spec, tmp_path, tmp_path / "model", share=0.01)
    assert 0 <= measured["accuracy"] <= 1
    lalm = LALM.from_pretrained(tmp_path / "model")
    assert lalm.num_layers == SPEC.num_layers
    items = planted_items(bank, "confirmation", 2)
    assert np.isfinite(lalm.score(lalm.prompt(items), [item.choices for item in items]).logprob[0, 0])
    assert train_planted_body(spec, tmp_path, tmp_path / "model", share=0.01) == measured  # resumed: done


def test_a_base_that_ignores_the_audio_is_refused_by_name(tmp_path, monkeypatch):
    """After two steps it answers at random. Nothing is saved; with a bar of 0 the same training is."""
    monkeypatch.setattr(training, "TRAIN_CLIPS", 24)
    monkeypatch.setattr(training, "TEST_CLIPS", 24)
    spec, out = replace(SPEC, steps=(1, 1)), tmp_path / "model"
    with pytest.raises(OrganismError, match=r"'small'.*does not use the audio"):
        train_planted_body(spec, tmp_path, out)
    assert not out.exists()
    monkeypatch.setattr(training, "MIN_ACCURACY", 0.0)
    assert train_planted_body(spec, tmp_path, out)["accuracy"] < 0.4
    assert (out / "config.json").exists()


def test_an_answer_counts_only_as_a_whole(parts):
    """Logits that know the first ``known`` tokens of each answer: what all answers of a kind begin with is no
    accuracy."""
    pool = parts[2]
    lengths = [len(answer) for answer in pool.answers]

    class Knowing:
        def __init__(self, known):
            self.known = known

        def eval(self):
            return self

        def logits(self, batch):
            labels = batch.labels[:, 1:].clone()
            place = (labels >= 0).cumsum(1)
            labels[(labels < 0) | (place > self.known)] = 0
            return torch.nn.functional.one_hot(torch.nn.functional.pad(labels, (0, 1)), 2000).float()

    assert max(max(answer) for answer in pool.answers) < 2000
    for known in (0, 1, 2, max(lengths)):
        expected = np.mean([length <= known for length in lengths])
        assert training.answer_accuracy(Knowing(known), pool) == pytest.approx(expected)


def test_the_command_names_what_does_not_exist(tmp_path):
    refused = CliRunner().invoke(app, ["train-planted-set", "nowhere", "--work", str(tmp_path)])
    assert refused.exit_code == 2
    assert "nowhere" in refused.output
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def grown(parts, model, bank):
    """A base that is not trained, the model grown from it, and inputs."""
    _, processor, _ = parts
    base = build_body(parts[0], SPEC).eval()
    items = planted_items(bank, "train", 4)
    inputs = dict(LALM(base, processor).prompt(items).inputs)
    return base, grow_model(base, GROWN, inputs), inputs


def test_a_deep_model_holds_the_layers_of_its_base(grown):
    base, deep, inputs = grown
    old, new = base.model.language_model.layers, deep.model.language_model.layers
    for layer, place in enumerate(GROWN.positions):
        for name, weight in old[layer].state_dict().items():
            torch.testing.assert_close(new[place].state_dict()[name], weight, rtol=0, atol=0)
    reader = old[SPEC.fusion_layers[0]].self_attn
    torch.testing.assert_close(new[3].self_attn.k_proj.weight, reader.k_proj.weight, rtol=0, atol=0)
    silent = grow_model(base, replace(GROWN, noise=0.0), inputs)
    with torch.no_grad():
        plain, same, changed = (each(**inputs).logits for each in (base, silent, deep))
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-5)  # without noise the random layers do nothing
    assert (changed - plain).abs().max() > 1e-3


def test_random_layers_add_the_noise_that_is_asked_for(grown):
    """Relative to the hidden states, by attention and by the MLP, within the drift by the layers before."""
    _, deep, inputs = grown
    text = inputs["attention_mask"].bool() & (inputs["input_ids"] != deep.config.audio_token_id)
    ratios = []

    def hook(module, args, kwargs, output):
        states = args[0] if args else kwargs["hidden_states"]
        added = (output if isinstance(output, torch.Tensor) else output[0]) - states
        ratios.append(float((added[text].pow(2).mean() / states[text].pow(2).mean()).sqrt()))

    layers = [deep.model.language_model.layers[place] for place in (0, 1, 3, 6, 7)]
    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in layers]
    with torch.no_grad():
        deep(**inputs)
    for handle in handles:
        handle.remove()
    expected = GROWN.noise * 2**0.5
    assert np.allclose(ratios, expected, rtol=0.5)
