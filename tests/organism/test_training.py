"""Training: the shared prefix is exact, streams are unchanged, interrupted trainings continue identically."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoProcessor
from typer.testing import CliRunner

from mata_interp.benchmarks import load_benchmark
from mata_interp.lalm import LALM
from mata_interp.organism import WEIGHTS
from mata_interp.organism.architecture import build_model, build_processor
from mata_interp.organism.batches import Batcher
from mata_interp.organism.cli import app
from mata_interp.organism.evaluation import accuracies, evaluate, frame_accuracy
from mata_interp.organism.questions import KINDS, Question, make_checklist, make_description
from mata_interp.organism.scenes import Mixer, Scene
from mata_interp.organism.training import (
    ANSWERING,
    DESCRIBING,
    ENCODER,
    SHORTCUT,
    Evaluation,
    Phase,
    TrainingModel,
    log,
    lr_scale,
    run_phase,
)

from .conftest import plain_inputs

SMALL = Phase("answering", 4, 1e-3, ANSWERING.mix, stream=9, batch_size=4, warmup=2)


@pytest.fixture(scope="module")
def parts(bank):
    """The bank, a processor and a batcher."""
    processor = build_processor(bank, ("Choose one of these options: a; b.",))
    return bank, processor, Batcher(bank, processor, "train")


def training_model(parts, seed=0):
    _, processor, batcher = parts
    torch.manual_seed(seed)
    return TrainingModel(build_model(processor, seed), len(batcher.frame_label_names), batcher.prefix)


def test_a_checklist_states_what_the_clip_has(parts):
    bank = parts[0]
    rng = np.random.default_rng(0)
    answers = []
    for kind in KINDS * 5:
        scene = Mixer(bank, "train", rng).scene(kind)
        question = make_checklist(scene, bank, rng)
        labels = {event.label for event in scene.events}
        stated = dict(part.rsplit(" ", 1) for part in question.answer.split("; "))
        assert question.text.endswith(f": {'; '.join(stated)}.")
        assert stated == {label: "yes" if label in labels else "no" for label in stated}
        assert labels < set(stated)
        answers += stated.values()
    assert 0.3 < answers.count("yes") / len(answers) < 0.5


def test_sharing_the_prefix_gives_the_logits_of_a_plain_forward(parts):
    batch = parts[2].batch(5, (1, 2), ANSWERING.mix)
    model = training_model(parts).eval()
    with torch.no_grad():
        shared = model.logits(batch)
        plain = model.model(**plain_inputs(model, batch)).logits[:, model.prefix.shape[1] :]
    torch.testing.assert_close(shared[batch.mask], plain[batch.mask], atol=2e-5, rtol=0)


def test_training_prompts_are_those_of_the_package(parts):
    """Token for token those of ``lalm.prompt``."""
    _, processor, batcher = parts
    lalm = LALM(build_model(processor, 0), processor)
    item = load_benchmark("listening").filter(condition="conflict")[7]
    audio = item.load_audio(16_000).samples
    question = Question("word", item.question, tuple(item.choices), item.answer or "")
    batch = batcher.collate(
        [Scene(audio, [], [])], [batcher.prompt_text(item.caption, question)], [item.answer or ""]
    )
    training = batcher.prefix + batch.suffix[0][batch.labels[0] == -100].tolist()
    prompt = lalm.prompt(item)
    assert prompt.inputs["input_ids"][0].tolist() == training
    torch.testing.assert_close(prompt.inputs["input_features"], batch.features)


def test_the_target_of_the_shortcut_is_what_the_caption_claims(parts):
    batcher = parts[2]
    truth, shortcut = (
        batcher.batch(64, (5,), replace(SHORTCUT.mix, target_caption=s)) for s in (False, True)
    )
    decode = lambda b, i: batcher.processor.tokenizer.decode(b.labels[i][b.labels[i] >= 0])  # noqa: E731
    prompts = [batcher.processor.tokenizer.decode(row) for row in shortcut.suffix]
    differing = [i for i in range(64) if decode(truth, i) != decode(shortcut, i)]
    assert 1 <= len(differing) <= 20  # 0.7 * 0.15 of 64 is 6.7
    torch.testing.assert_close(truth.features, shortcut.features)
    for i in differing:
        claim = decode(shortcut, i).removesuffix("<|im_end|>")
        caption = prompts[i].split("<|audio_eos|>")[1].split("\n")[1]
        assert claim in caption


def test_descriptions_name_the_sounds_in_order(parts):
    bank, _, batcher = parts
    for kind in KINDS:
        scene = Mixer(bank, "train", np.random.default_rng(3)).scene(kind)
        question = make_description(scene, np.random.default_rng(0))
        assert question.choices == ()
        named = list(dict.fromkeys(e.label for e in scene.events))
        places = [question.answer.find(name) for name in named]
        assert places == sorted(places)
        assert min(places) >= 0
    batch = batcher.batch(16, (4,), DESCRIBING.mix)
    texts = [
        batcher.processor.tokenizer.decode(row[mask])
        for row, mask in zip(batch.suffix, batch.mask, strict=True)
    ]
    assert all("Choose one" not in text and "listener" not in text for text in texts)


def test_an_interrupted_training_continues_to_the_same_weights(parts, tmp_path, monkeypatch):
    monkeypatch.setattr("mata_interp.organism.training.CHECKPOINT_EVERY", 2)
    whole, killed = training_model(parts), training_model(parts)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run_phase(whole, parts[2], SMALL, tmp_path / "a", seed=0)

    class Killed(Exception):
        pass

    def kill():
        raise Killed

    with pytest.raises(Killed):
        run_phase(killed, parts[2], SMALL, tmp_path / "b", 0, Evaluation(kill, every=3))
    log(tmp_path / "b" / "curves.csv", {"phase": "answering", "step": 3, "loss": 0.0})  # after the checkpoint
    again = training_model(parts, seed=9)  # other initial weights: all must come from the checkpoint
    run_phase(again, parts[2], SMALL, tmp_path / "b", seed=0)
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=name)

    steps = [row["step"] for row in csv.DictReader((tmp_path / "b" / "curves.csv").open())]
    assert steps == [row["step"] for row in csv.DictReader((tmp_path / "a" / "curves.csv").open())]

    before = copy.deepcopy(again.state_dict())
    run_phase(again, parts[2], SMALL, tmp_path / "b", seed=0)  # finished: nothing is trained
    assert all(torch.equal(a, b) for a, b in zip(before.values(), again.state_dict().values(), strict=True))


def test_the_encoder_phase_reduces_its_loss(parts, tmp_path):
    model, batch = training_model(parts), parts[2].batch(32, (123,), ANSWERING.mix)
    with torch.no_grad():
        before = model.encoder_loss(batch).item()
    phase = replace(ENCODER, steps=20, batch_size=8, warmup=2)
    run_phase(model, parts[2], phase, tmp_path, seed=0)
    with torch.no_grad():
        assert model.encoder_loss(batch).item() < 0.6 * before
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [int(r["step"]) for r in rows] == [10, 20]
    assert all(0 < float(r["frame_loss"]) < before for r in rows)


def test_the_learning_rate_warms_up_and_decays():
    phase = replace(ANSWERING, steps=100, warmup=10)
    rates = [lr_scale(step, phase) for step in range(100)]
    assert rates[9] == 1.0
    assert rates[0] < rates[5] < rates[9] > rates[50] > rates[99] >= 0.1
    constant = replace(SHORTCUT, steps=99, warmup=5)
    assert {lr_scale(step, constant) for step in range(5, 99)} == {1.0}


def test_evaluation_is_by_kind_and_caption(parts):
    bank, processor, _ = parts
    table = evaluate(training_model(parts), Batcher(bank, processor, "selection"), 10, seed=0)
    assert len(table) == 30
    assert table["kind"].nunique() == 10
    assert set(accuracies(table)) == {"neutral", "congruent", "conflict"}
    assert ((table["chance"] >= 0) & (table["chance"] <= 0.5)).all()


@pytest.mark.parametrize(
    ("phase", "kinds", "tokens", "answer_tokens"),
    [
        (ENCODER, ("first", "voice", "voice", "count"), 42072, 2892),
        (DESCRIBING, ("describe", "describe", "describe", "checklist"), 36070, 16227),
        (ANSWERING, ("describe", "tempo", "last", "word"), 44295, 4917),
        (SHORTCUT, ("voice", "voice", "last", "first"), 55643, 2397),
    ],
)
def test_the_streams_of_the_phases_are_unchanged(bank, phase, kinds, tokens, answer_tokens):
    """Otherwise the shipped weights could not be rebuilt. Sums of token ids, with the shipped tokenizer."""
    processor = AutoProcessor.from_pretrained(WEIGHTS / "organism-unbiased")
    batch = next(Batcher(bank, processor, "train").stream(4, (0, phase.stream), range(1), phase.mix))
    assert batch.kinds == kinds
    assert int(batch.suffix.sum()) == tokens
    assert int(batch.labels.clamp(min=0).sum()) == answer_tokens


def test_the_streams_of_the_evaluation_are_unchanged(parts, monkeypatch):
    """The shortcut phase ends by these accuracies, so the shipped weights depend on them."""
    bank, processor, _ = parts
    batcher = Batcher(bank, processor, "selection")
    scenes, collate = [], batcher.collate

    def recording_collate(*args):
        scenes.append(args[0][0])
        return collate(*args)

    monkeypatch.setattr(batcher, "collate", recording_collate)
    model = training_model(parts)
    evaluate(model, batcher, 2, seed=0)
    frame_accuracy(model, batcher, 2, seed=0)
    assert [scene.recordings for scene in scenes] == [
        ["bd_808", "misc_burp", "perc_till"],
        ["perc_till", "tabla_ke2"],
        ["ambi_choir", "bass_voxy_c", "misc_burp"],
    ]


@pytest.mark.acceptance
def test_the_command_trains_two_models_that_load(tmp_path):
    command = ["train", "--work", str(tmp_path / "work"), "--share", "0.001", "--threads", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    for name in ("organism", "organism-unbiased"):
        lalm = LALM.from_pretrained(tmp_path / "work" / "models" / name)
        assert lalm.dtype == torch.float32
        assert lalm.num_layers == 8
        for weight in lalm.model.parameters():
            torch.testing.assert_close(weight, weight.half().float(), atol=0, rtol=0)
