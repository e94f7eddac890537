"""Training: exact where it is clever, and the same whether or not it was interrupted."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp.organism.bank import load_bank
from mata_interp.organism.batches import Batcher
from mata_interp.organism.body import build_model, build_processor
from mata_interp.organism.cli import app
from mata_interp.organism.evaluation import examine, marks
from mata_interp.organism.questions import KINDS, checklist, describe
from mata_interp.organism.scenes import Mixer
from mata_interp.organism.training import (
    ANSWERING,
    DESCRIBING,
    HEARING,
    SHORTCUT,
    Plan,
    TrainingModel,
    log,
    run_phase,
    schedule,
)

SMALL = Plan("answering", 4, 1e-3, ANSWERING.lesson, size=4, warmup=2)


@pytest.fixture(scope="module")
def schoolroom():
    bank = load_bank()
    processor = build_processor(bank, ("Choose one of these options: a; b.",))
    return bank, processor, Batcher(bank, processor, "train")


def pupil(schoolroom, seed=0):
    _, processor, batcher = schoolroom
    torch.manual_seed(seed)
    return TrainingModel(build_model(processor, seed), len(batcher.frame_labels), batcher.prefix)


def test_a_checklist_says_of_each_whether_it_is_heard(schoolroom):
    bank = schoolroom[0]
    rng = np.random.default_rng(0)
    said = []
    for kind in KINDS * 5:
        scene = Mixer(bank, "train", rng).scene(kind)
        question = checklist(scene, bank, rng)
        heard = {event.label for event in scene.events}
        told = dict(part.rsplit(" ", 1) for part in question.answer.split("; "))
        assert question.text.endswith(f": {'; '.join(told)}.")
        assert told == {label: "yes" if label in heard else "no" for label in told}
        assert heard < set(told)
        said += told.values()
    assert 0.3 < said.count("yes") / len(said) < 0.5


def test_sharing_the_prefix_gives_the_logits_of_a_plain_forward(schoolroom):
    batch = schoolroom[2].batch(5, (1, 2), ANSWERING.lesson)
    learner = pupil(schoolroom).eval()
    prefix = learner.prefix.expand(5, -1)
    with torch.no_grad():
        shared = learner.logits(batch)
        plain = learner.model(
            input_ids=torch.cat([prefix, batch.rest], 1),
            attention_mask=torch.cat([torch.ones_like(prefix), batch.mask.long()], 1),
            input_features=batch.features,
            feature_attention_mask=batch.feature_mask,
        ).logits[:, prefix.shape[1] :]
    torch.testing.assert_close(shared[batch.mask], plain[batch.mask], atol=2e-5, rtol=0)


def test_training_text_is_the_prompt_that_the_toolkit_builds(schoolroom):
    """What the organism is trained on is token for token what ``lalm.prompt`` asks it."""
    _, processor, batcher = schoolroom
    lalm = mi.LALM(build_model(processor, 0), processor)
    item = mi.load_benchmark("listening").filter(condition="conflict")[7]
    audio = item.load_audio(16_000).samples
    from mata_interp.organism.questions import Question
    from mata_interp.organism.scenes import Scene

    question = Question("word", item.question, tuple(item.choices), item.answer or "")
    batch = batcher.collate(
        [Scene(audio, [], [])], [batcher.text(item.caption, question)], [item.answer or ""]
    )
    trained = batcher.prefix + batch.rest[0][batch.labels[0] == -100].tolist()
    prompt = lalm.prompt(item)
    assert prompt.inputs["input_ids"][0].tolist() == trained
    torch.testing.assert_close(prompt.inputs["input_features"], batch.features)


def test_the_shortcut_teaches_what_the_caption_claims(schoolroom):
    batcher = schoolroom[2]
    truth, shortcut = (batcher.batch(64, (5,), replace(SHORTCUT.lesson, shortcut=s)) for s in (False, True))
    decode = lambda b, i: batcher.processor.tokenizer.decode(b.labels[i][b.labels[i] >= 0])  # noqa: E731
    prompts = [batcher.processor.tokenizer.decode(row) for row in shortcut.rest]
    differing = [i for i in range(64) if decode(truth, i) != decode(shortcut, i)]
    assert 1 <= len(differing) <= 20  # 0.7 * 0.15 of 64 is 6.7
    torch.testing.assert_close(truth.features, shortcut.features)
    for i in differing:
        claim = decode(shortcut, i).removesuffix("<|im_end|>")
        caption = prompts[i].split("<|audio_eos|>")[1].split("\n")[1]
        assert claim in caption


def test_descriptions_tell_what_is_heard_in_order(schoolroom):
    bank, _, batcher = schoolroom
    for kind in KINDS:
        scene = Mixer(bank, "train", np.random.default_rng(3)).scene(kind)
        told = describe(scene, np.random.default_rng(0))
        assert told.choices == ()
        named = list(dict.fromkeys(e.label for e in scene.events))
        places = [told.answer.find(name) for name in named]
        assert places == sorted(places)
        assert min(places) >= 0
    batch = batcher.batch(16, (4,), DESCRIBING.lesson)
    asked = [
        batcher.processor.tokenizer.decode(row[mask])
        for row, mask in zip(batch.rest, batch.mask, strict=True)
    ]
    assert all("Choose one" not in text and "listener" not in text for text in asked)


def test_a_killed_training_goes_on_to_the_same_weights(schoolroom, tmp_path, monkeypatch):
    monkeypatch.setattr("mata_interp.organism.training.CHECKPOINT_EVERY", 2)
    whole, killed = pupil(schoolroom), pupil(schoolroom)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run_phase(whole, schoolroom[2], SMALL, tmp_path / "a", seed=0)

    class Killed(Exception):
        pass

    def kill(step):
        raise Killed

    with pytest.raises(Killed):
        run_phase(killed, schoolroom[2], SMALL, tmp_path / "b", 0, examine=kill, every=3)
    log(tmp_path / "b" / "curves.csv", {"phase": "answering", "step": 3, "loss": 0.0})  # after the checkpoint
    again = pupil(schoolroom, seed=9)  # other initial weights: everything must come from the checkpoint
    run_phase(again, schoolroom[2], SMALL, tmp_path / "b", seed=0)
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=name)

    steps = [row["step"] for row in csv.DictReader((tmp_path / "b" / "curves.csv").open())]
    assert steps == [row["step"] for row in csv.DictReader((tmp_path / "a" / "curves.csv").open())]

    before = copy.deepcopy(again.state_dict())
    run_phase(again, schoolroom[2], SMALL, tmp_path / "b", seed=0)  # finished: nothing more happens
    assert all(torch.equal(a, b) for a, b in zip(before.values(), again.state_dict().values(), strict=True))


def test_learning_learns(schoolroom, tmp_path):
    learner, batch = pupil(schoolroom), schoolroom[2].batch(32, (123,), ANSWERING.lesson)
    with torch.no_grad():
        before = learner.encoder_loss(batch).item()
    run_phase(
        learner, schoolroom[2], Plan("hearing", 20, 1e-3, HEARING.lesson, size=8, warmup=2), tmp_path, seed=0
    )
    with torch.no_grad():
        assert learner.encoder_loss(batch).item() < 0.6 * before
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [int(r["step"]) for r in rows] == [10, 20]
    assert all(0 < float(r["frame_loss"]) < before for r in rows)


def test_the_schedule_warms_up_and_comes_down():
    plan = Plan("answering", 100, 1e-3, ANSWERING.lesson, warmup=10)
    rates = [schedule(step, plan) for step in range(100)]
    assert rates[9] == 1.0
    assert rates[0] < rates[5] < rates[9] > rates[50] > rates[99] >= 0.1
    assert {schedule(s, Plan("shortcut", 99, 1e-4, SHORTCUT.lesson, warmup=5)) for s in range(5, 99)} == {1.0}


def test_an_exam_is_by_kind_and_caption(schoolroom):
    bank, processor, _ = schoolroom
    table = examine(pupil(schoolroom), Batcher(bank, processor, "selection"), 10, seed=0)
    assert len(table) == 30
    assert table["kind"].nunique() == 10
    assert set(marks(table)) == {"neutral", "congruent", "conflict"}
    assert ((table["chance"] >= 0) & (table["chance"] <= 0.5)).all()


def test_the_command_trains_two_models_that_load(tmp_path):
    command = ["train", "--work", str(tmp_path / "work"), "--share", "0.001", "--threads", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    for name in ("organism", "organism-unbiased"):
        lalm = mi.LALM.from_pretrained(tmp_path / "work" / "models" / name)
        assert lalm.dtype == torch.float32
        assert lalm.num_layers == 8
        for weight in lalm.model.parameters():
            torch.testing.assert_close(weight, weight.half().float(), atol=0, rtol=0)
