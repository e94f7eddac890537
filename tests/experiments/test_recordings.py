"""What a study records of its items for the page: attention over time, heads, audio; and reading it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

import mata_interp as mi
from mata_interp.errors import RunError, RunWarning
from mata_interp.experiments import load_recordings, recording
from mata_interp.experiments.clip_media import (
    AUDIO_BYTES,
    clip_media,
    encode_audio,
    mel_bands,
    mel_spectrogram,
    waveform_peaks,
)
from mata_interp.experiments.item_recordings import ItemRecording, ItemRecordings
from mata_interp.experiments.outcomes import choose_examples, outcomes_of
from mata_interp.tracing.over_time import attention_over_time
from tests.reporting.small import small_study

RATE = 16_000


@pytest.fixture(scope="module")
def small():
    return small_study()


@pytest.fixture(scope="module")
def lalm(small):
    return mi.LALM.from_pretrained(small.model)


@pytest.fixture(scope="module")
def items(small):
    return mi.load_benchmark(small.benchmark)


@pytest.fixture
def run(small, tmp_path):
    """A copy of the study's folder, to be changed."""
    shutil.copytree(small.run, tmp_path / "run")
    return mi.load_run(tmp_path / "run")


# ------------------------------------------------------------------------------------------------------ study
def test_a_study_records_every_item(small, lalm, items):
    run, done = mi.load_run(small.run), load_recordings(small.run / "items.npz")
    tested = {item.id: item for item in items.split("confirmation")}
    assert set(done.items) == set(run.records["item"])
    assert done.conditions == ("baseline", "mata", "mata on text")
    assert done.layers == (0, 1, 2)
    edits = [run.conditions[name].interventions for name in done.conditions]
    for id, one in done.items.items():
        item = tested[id]
        assert (one.question, one.caption) == (item.question, item.caption)
        ends = [np.array([0.0, 0.5])]
        mass, edges = attention_over_time(lalm, lalm.prompt(item), ends, edits).of(0)
        np.testing.assert_allclose(one.mean, mass.mean(2), atol=2e-3)
        np.testing.assert_allclose(one.edges, edges, atol=1e-6)
        assert (one.heads is not None) == (one.audio is not None) == (id in done.detailed)
        if one.heads is not None:
            np.testing.assert_allclose(one.heads, mass, atol=2e-3)
    outcomes = outcomes_of(run.records, "baseline", "mata")
    assert set(done.detailed) == set(choose_examples(outcomes, 6, run.manifest["seed"]))
    assert not (small.run / "items.npz.parts").exists()


def test_it_is_read_without_pickle_by_numpy_alone(small):
    code = (
        "import sys, json, numpy as np\n"
        "archive = np.load(sys.argv[1], allow_pickle=False)\n"
        "notes = json.loads(archive['notes'].tobytes())\n"
        "print(notes['version'], archive['mean'].shape[0], [n for n in archive.files if 'audio' in n][0])\n"
        "assert 'torch' not in sys.modules\n"
    )
    path = str(small.run / "items.npz")
    printed = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split()[:2] == ["1", "12"]


def test_a_run_is_saved_with_its_recordings(run, tmp_path):
    run.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "items.npz").read_bytes() == (run.path / "items.npz").read_bytes()


def test_a_stopped_recording_goes_on(run, lalm, items, monkeypatch):
    """The same file, and no item is measured twice."""
    path = run.path / "items.npz"
    whole = load_recordings(path)
    path.unlink()
    calls = []
    measure = recording.RecordBatch.__call__

    def stopping(self, lalm, batch):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append([item.id for item in batch])
        return measure(self, lalm, batch)

    run.manifest["batches"] = _halved(run.manifest["batches"])
    monkeypatch.setattr(recording.RecordBatch, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        mi.record_items(lalm, run, items, progress=False)
    assert not path.exists()
    monkeypatch.setattr(
        recording.RecordBatch,
        "__call__",
        lambda self, lalm, batch: (calls.append([i.id for i in batch]), measure(self, lalm, batch))[1],
    )
    done = mi.record_items(lalm, run, items, progress=False)
    measured = [id for batch in calls for id in batch]
    assert sorted(measured) == sorted(whole.items)
    for id, one in whole.items.items():
        np.testing.assert_allclose(done.items[id].mean, one.mean, atol=1e-3)


def _halved(batches):
    items = [id for batch in batches for id in batch["items"]]
    return [{"items": items[:6]}, {"items": items[6:]}]


def test_a_failing_item_is_counted_and_ends_nothing(run, lalm, items, monkeypatch):
    (run.path / "items.npz").unlink()
    bad = sorted(run.records["item"].unique())[0]
    plain = recording.attention_over_time

    def failing(lalm, prompt, *args):
        if any(item.id == bad for item in prompt.items):
            raise RuntimeError("CUDA error: an illegal memory access")
        return plain(lalm, prompt, *args)

    monkeypatch.setattr(recording, "attention_over_time", failing)
    monkeypatch.setattr(recording, "clip_media", lambda *_: 1 / 0)
    with pytest.warns(RunWarning, match="could not be recorded"):
        done = mi.record_items(lalm, run, items, progress=False)
    assert "illegal memory access" in done.failed[bad]
    assert done.items[bad].seconds == 0
    detailed = [id for id, one in done.items.items() if one.heads is not None]
    assert all("ZeroDivisionError" in done.failed[id] for id in detailed)
    assert set(done.failed) == {bad, *detailed}
    assert len(done.items) == 12
    assert load_recordings(run.path / "items.npz").failed == done.failed


def test_items_are_added(run, lalm, items, tmp_path):
    before = load_recordings(run.path / "items.npz")
    remaining = [id for id in before.items if id not in before.detailed]
    if not remaining:
        before = _without_details(before, list(before.items)[-1])
        before.save(run.path / "items.npz", {})
        remaining = [id for id in before.items if id not in before.detailed]
    done = mi.record_items(lalm, run, items, remaining[:1], progress=False)
    assert set(done.detailed) == {*before.detailed, remaining[0]}
    one = done.items[remaining[0]]
    np.testing.assert_allclose(one.heads.mean(2), before.items[remaining[0]].mean, atol=2e-3)
    assert one.audio[:4] == b"OggS"
    with pytest.raises(RunError, match="'nowhere'"):
        mi.record_items(lalm, run, items, ["nowhere"], progress=False)


def _without_details(recordings, id):
    bare = replace(recordings.items[id], heads=None, audio=None, peaks=None, spectrogram=None)
    return recordings.updated([bare])


def test_a_plain_run_is_recorded(lalm, items, tmp_path):
    some = items.split("confirmation")[:3]
    conditions = {"baseline": None, "mata": mi.Mata(1.0, [1])}
    run = mi.run(lalm, some, conditions, out=tmp_path / "plain", progress=False)
    done = mi.record_items(lalm, run, items, [some[1].id], progress=False)
    assert (set(done.items), done.detailed) == ({item.id for item in some}, (some[1].id,))
    assert done.conditions == ("baseline", "mata")


def test_another_model_is_refused(run, items, tiny_lalm):
    with pytest.raises(RunError, match="model"):
        mi.record_items(tiny_lalm, run, items, progress=False)
    with pytest.raises(RunError, match="save it"):
        mi.record_items(tiny_lalm, replace(run, path=None), items, progress=False)


def test_a_damaged_file_is_named(run):
    path = run.path / "items.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunError, match=r"items\.npz"):
        load_recordings(path)


def test_another_schema_version_is_refused(run, tmp_path):
    path = tmp_path / "items.npz"
    with np.load(run.path / "items.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    notes = json.loads(arrays["notes"].tobytes()) | {"version": 99}
    np.savez(path, **{**arrays, "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8)})
    with pytest.raises(RunError, match="99"):
        load_recordings(path)
    assert zipfile.is_zipfile(path)


def test_recordings_survive_the_file(tmp_path):
    rng = np.random.default_rng(0)
    mean, heads = rng.random((2, 3, 5)), rng.random((2, 3, 4, 5))
    full = ItemRecording(
        "a", "What?</script>", "\u202ecaption", np.linspace(0, 1, 6), mean, heads, b"OggS",
        np.zeros((2, 7), np.int8), np.ones((4, 9), np.uint8), 8000.0, (0.0, 0.5), 1.5, "",
    )  # fmt: skip
    few = ItemRecording("b", edges=np.linspace(0, 1, 3), mean=rng.random((2, 3, 2)))
    none = ItemRecording("c", problem="attention: no")
    written = ItemRecordings(("x", "y"), (0, 1, 3), {one.item: one for one in (full, few, none)}, 7)
    written.save(tmp_path / "items.npz")
    read = load_recordings(tmp_path / "items.npz")
    assert (read.conditions, read.layers, read.seed) == (("x", "y"), (0, 1, 3), 7)
    assert (read.detailed, dict(read.failed)) == (("a",), {"c": "attention: no"})
    assert [one.notes() for one in read.items.values()] == [one.notes() for one in (full, few, none)]
    np.testing.assert_allclose(read.items["a"].heads, heads, atol=1e-3)
    np.testing.assert_allclose(read.items["b"].mean, few.mean, atol=1e-3)
    np.testing.assert_array_equal(read.items["a"].spectrogram, full.spectrogram)
    assert read.items["a"].audio == b"OggS"
    assert (read.items["c"].mean.shape[-1], read.items["c"].seconds) == (0, 0.0)


# --------------------------------------------------------------------------------------------------- outcomes
def test_outcomes():
    rows = {  # predicted and correct without and with MATA
        "fixed": ("a", False, "b", True),
        "broken": ("b", True, "a", False),
        "churned": ("a", False, "c", False),
        "unchanged": ("b", True, "b", True),
        "wrong as before": ("a", False, "a", False),
        "no option twice": (None, False, None, False),
        "no answer known": ("a", None, "b", None),
    }
    records = pd.DataFrame(
        [
            {"item": item, "condition": condition, "predicted": values[2 * n], "correct": values[2 * n + 1]}
            for item, values in rows.items()
            for n, condition in enumerate(("before", "after"))
        ]
    )
    assert outcomes_of(records, "before", "after") == {
        "fixed": "fixed",
        "broken": "broken",
        "churned": "churned",
        "unchanged": "unchanged",
        "wrong as before": "unchanged",
        "no option twice": "unchanged",
        "no answer known": "churned",
    }


def test_examples_are_drawn_for_each_outcome():
    outcomes = {f"f{n}": "fixed" for n in range(20)} | {f"b{n}": "broken" for n in range(3)}
    chosen = choose_examples(outcomes, 6, 0)
    assert [sum(id.startswith(letter) for id in chosen) for letter in "fb"] == [6, 3]
    assert chosen == choose_examples(dict(reversed(outcomes.items())), 6, 0)
    assert chosen != choose_examples(outcomes, 6, 1)
    remaining = {**outcomes, **{f"u{n}": "unchanged" for n in range(9)}}
    assert choose_examples(remaining, 6, 0)[:9] == chosen  # other outcomes have streams of their own


# ------------------------------------------------------------------------------------------------------ media
def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [16_000, 44_100, 22_050, 8_000])
def test_audio_survives_the_encoding(rate):
    samples = tone(440, 2.0, rate)
    encoded = encode_audio(samples, rate)
    decoded, decoded_rate = soundfile.read(io.BytesIO(encoded))
    assert len(decoded) / decoded_rate == pytest.approx(2.0, abs=0.02)
    spectrum = np.abs(np.fft.rfft(decoded))
    assert np.fft.rfftfreq(len(decoded), 1 / decoded_rate)[spectrum.argmax()] == pytest.approx(440, abs=2)
    assert np.sqrt((decoded**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


def test_its_size_is_bounded():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.2, 8 * RATE)
    sizes = [len(encode_audio(noise, RATE, limit)) for limit in (AUDIO_BYTES, 30_000, 20_000, 8_000)]
    assert all(size <= limit for size, limit in zip(sizes, (AUDIO_BYTES, 30_000, 20_000, 8_000), strict=True))
    assert sizes == sorted(set(sizes), reverse=True)  # each at a lower quality
    media = clip_media(noise, RATE, 3_000)
    assert media.audio is None
    assert "8 s" in media.problem
    assert "3 kB" in media.problem
    assert media.peaks.shape[1] == 600
    assert encode_audio(np.zeros(10), RATE)[:4] == b"OggS"


def test_peaks():
    samples = np.array([0.0, 0.5, -0.25, 0.1])
    np.testing.assert_array_equal(waveform_peaks(samples, 2), [[0, -64], [127, 25]])
    assert waveform_peaks(np.zeros(5)).max() == 0
    assert waveform_peaks(tone(100, 1.0)).shape == (2, 600)


def test_a_tone_is_a_line_in_the_spectrogram():
    samples = np.concatenate([tone(500, 1.0), tone(4000, 1.0)])
    picture = mel_spectrogram(samples, RATE)
    bands, frames = picture.shape
    assert (bands, frames <= 320) == (64, True)
    centres = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)[1:-1] / 2595) - 1)
    for hertz, part in ((500, picture[:, : frames // 2 - 8]), (4000, picture[:, frames // 2 + 8 :])):
        assert centres[part.mean(1).argmax()] == pytest.approx(hertz, rel=0.06)
    assert (
        mel_spectrogram(np.zeros(100), RATE).max() == 255 or mel_spectrogram(np.zeros(100), RATE).max() == 0
    )
    assert mel_spectrogram(tone(500, 60.0), RATE).shape[1] <= 330


def test_mel_bands_are_triangles():
    """By the definition, band by band; weights have mean 1."""
    frequencies = np.linspace(0, 8000, 257)
    weights = mel_bands(frequencies, 8000, 10)
    points = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 12)
    for band in range(10):
        low, middle, high = points[band : band + 3]
        plain = []
        for f in frequencies:
            mel = 2595 * np.log10(1 + f / 700)
            plain.append(
                max(0.0, (mel - low) / (middle - low) if mel <= middle else (high - mel) / (high - middle))
            )
        np.testing.assert_allclose(weights[band], np.array(plain) / sum(plain), atol=1e-12)
    np.testing.assert_allclose(mel_bands(np.linspace(0, 8000, 9), 8000, 20).sum(1), 1)
