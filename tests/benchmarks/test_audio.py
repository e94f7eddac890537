"""Audio from real files, intact and damaged."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
import soundfile

from mata_interp.benchmarks import Item, Items, load_audio
from mata_interp.benchmarks import audio as audio_module
from mata_interp.benchmarks.audio import AudioCache
from mata_interp.errors import BenchmarkError, ItemError


def tone(seconds: float = 0.5, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def refusal(source, **values) -> ItemError:
    with pytest.raises(ItemError) as caught:
        load_audio(source, 16_000, item="clip-7", **values)
    assert (caught.value.item, caught.value.field) == ("clip-7", "audio")
    return caught.value


def pitch(samples: np.ndarray, rate: int) -> float:
    """The loudest frequency, in Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_whole_files_of_every_kind(tmp_path, kind):
    soundfile.write(tmp_path / f"a.{kind}", tone(), 16_000)
    audio = load_audio(tmp_path / f"a.{kind}", 16_000)
    assert audio.samples.dtype == np.float32
    assert (audio.samples.shape, audio.rate, audio.seconds, audio.notes) == ((8000,), 16_000, 0.5, ())
    assert abs(pitch(audio.samples, 16_000) - 440) < 2


@pytest.mark.parametrize(("rate", "samples"), [(8_000, 4_000), (44_100, 22_050)])
def test_other_rates_are_resampled(tmp_path, rate, samples):
    soundfile.write(tmp_path / "a.wav", tone(rate=rate), rate)
    audio = load_audio(tmp_path / "a.wav", 16_000)
    assert audio.samples.shape == (8000,)
    assert audio.notes == (f"resampled from {rate} Hz",)
    np.testing.assert_allclose(audio.samples[400:-400], tone()[400:-400], atol=2e-3)
    audio = load_audio(tmp_path / "a.wav")
    assert (audio.samples.shape, audio.rate, audio.notes) == ((samples,), rate, ())


def test_channels_are_mixed_down(tmp_path):
    left, right = tone(), tone(hertz=880)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    audio = load_audio(tmp_path / "a.wav", 16_000)
    assert audio.notes == ("mixed down from 2 channels",)
    np.testing.assert_allclose(audio.samples, (left + right) / 2, atol=1e-7)


def test_missing_empty_and_silent_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.wav").problem
    assert "no such file" in refusal(tmp_path).problem
    (tmp_path / "empty.wav").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "empty.wav").problem
    soundfile.write(tmp_path / "zero.wav", np.zeros(0, np.float32), 16_000)
    assert "no samples" in refusal(tmp_path / "zero.wav").problem
    soundfile.write(tmp_path / "blip.wav", np.zeros(1, np.float32), 48_000)
    assert "too few to resample" in refusal(tmp_path / "blip.wav").problem
    soundfile.write(tmp_path / "silence.wav", np.zeros(1600, np.float32), 16_000)
    assert not load_audio(tmp_path / "silence.wav").samples.any()  # silence is audio


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite(tmp_path, bad):
    samples = tone()
    samples[7] = bad
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    assert "1 of its 8000 samples" in refusal(tmp_path / "a.wav").problem


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated_files(tmp_path, kind, fraction):
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    soundfile.write(whole, noise, 16_000)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(fraction * len(data))])
    problem = refusal(cut).problem
    assert "truncated" in problem or "cannot be decoded" in problem or "no samples" in problem
    assert str(cut) in problem or "no samples" in problem


def test_files_that_are_no_audio(tmp_path):
    (tmp_path / "a.wav").write_text("The quick brown fox jumps over the lazy dog. " * 99)
    assert "cannot be decoded" in refusal(tmp_path / "a.wav").problem
    assert "there is none" in refusal(None).problem


def test_the_audio_root_is_not_left(tmp_path):
    root = tmp_path / "root"
    (root / "clips").mkdir(parents=True)
    soundfile.write(root / "clips" / "in.wav", tone(), 16_000)
    soundfile.write(tmp_path / "out.wav", tone(), 16_000)
    (root / "link.wav").symlink_to(tmp_path / "out.wav")
    (root / "folder").symlink_to(tmp_path)
    for source in ("clips/in.wav", "./clips/../clips/in.wav", root / "clips" / "in.wav"):
        assert load_audio(source, audio_root=root).seconds == 0.5
    outside = ["../out.wav", "clips/../../out.wav", str(tmp_path / "out.wav"), "link.wav", "folder/out.wav"]
    for source in [*outside, "../none.wav", "/etc/passwd"]:
        error = refusal(source, audio_root=root)
        assert "leads out of audio_root" in error.problem
        assert repr(str(source)) in error.problem
    (tmp_path / "same").symlink_to(root)  # the root itself may be a link
    assert load_audio("clips/in.wav", audio_root=tmp_path / "same").seconds == 0.5


@pytest.mark.parametrize("name", ["a\0b.wav", "x" * 5000])
def test_impossible_names(tmp_path, name):
    assert "no usable path" in refusal(name, audio_root=tmp_path).problem


def test_arrays():
    pcm = np.round(tone() * 2**15).astype(np.int16)
    floats = load_audio((tone(), 16_000))
    np.testing.assert_allclose(load_audio((pcm, 16_000)).samples, floats.samples, atol=2**-15)
    unsigned = (pcm // 256 + 128).astype(np.uint8)
    np.testing.assert_allclose(load_audio((unsigned, 16_000)).samples, floats.samples, atol=2**-6)
    stereo = load_audio((np.stack([tone(), -tone() / 2], 1), 8_000), 16_000)
    assert stereo.notes == ("mixed down from 2 channels", "resampled from 8000 Hz")
    assert stereo.samples.shape == (16_000,)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ((np.zeros((2, 100)), 16_000), r"shape (2, 100)"),
        ((np.zeros((4, 3, 2)), 16_000), r"shape (4, 3, 2)"),
        ((np.float32(1), 16_000), r"shape ()"),
        ((np.zeros(0), 16_000), "no samples"),
        ((np.zeros(9), 0), "rate is 0 Hz"),
        ((np.zeros(9), float("nan")), "rate is nan Hz"),
        ((np.full(9, "a"), 16_000), "<U1"),
        ((np.full(9, np.nan), 16_000), "9 of its 9 samples"),
    ],
)
def test_bad_arrays(source, problem):
    assert problem in refusal(source).problem


def test_the_hash_is_of_the_audio_not_of_its_file(tmp_path):
    pcm = np.round(tone() * 2**15).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, 16_000)
    soundfile.write(tmp_path / "b.flac", pcm, 16_000)
    soundfile.write(tmp_path / "c.wav", tone(hertz=441), 16_000)
    soundfile.write(tmp_path / "d.wav", pcm, 8_000)
    a, b, c, d = (load_audio(tmp_path / name).sha256 for name in ("a.wav", "b.flac", "c.wav", "d.wav"))
    assert a == b
    assert len({a, c, d}) == 3


def test_a_file_is_decoded_once_and_again_when_it_changes(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, tone(), 16_000)
    first = load_audio(file, 16_000)
    assert load_audio("a.wav", 16_000, audio_root=tmp_path) is first
    assert load_audio(file, 8_000) is not first
    with pytest.raises(ValueError, match="read-only"):
        first.samples[0] = 1
    soundfile.write(file, tone(seconds=0.25), 16_000)
    assert load_audio(file, 16_000).seconds == 0.25


def test_the_cache_has_a_limit():
    clips = [load_audio((tone(seconds=0.1 * n), 16_000)) for n in (1, 2, 3)]
    cache = AudioCache(limit=clips[0].samples.nbytes + clips[1].samples.nbytes)
    decoded = []

    def get(n):
        return cache.get(n, lambda: decoded.append(n) or clips[n])

    assert [get(n) for n in (0, 1, 0, 1)] == [clips[n] for n in (0, 1, 0, 1)]
    assert decoded == [0, 1]
    get(0)
    assert get(2) is clips[2]  # as long as both others
    assert (decoded, len(cache)) == ([0, 1, 2], 1)
    cache = AudioCache(limit=100)
    assert cache.get("too long", lambda: clips[0]) is clips[0]
    assert len(cache) == 0


def test_the_limit_of_the_cache_is_an_environment_variable(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    new_cache = functools.cache(audio_module._audio_cache.__wrapped__)
    monkeypatch.setattr(audio_module, "_audio_cache", new_cache)
    monkeypatch.setenv("MATA_AUDIO_CACHE_MB", "0")
    assert load_audio(tmp_path / "a.wav") is not load_audio(tmp_path / "a.wav")
    new_cache.cache_clear()
    monkeypatch.setenv("MATA_AUDIO_CACHE_MB", "0.1")
    assert load_audio(tmp_path / "a.wav") is load_audio(tmp_path / "a.wav")
    new_cache.cache_clear()
    monkeypatch.setenv("MATA_AUDIO_CACHE_MB", "much")
    with pytest.raises(BenchmarkError, match="MATA_AUDIO_CACHE_MB='much'"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("samples", [[0, 1000, -1000, 500], np.array([0, 1000, -1000, 500])])
def test_integers_of_unknown_full_scale_are_refused(samples):
    """A list of int16 values would come out at 2**-48 of its level."""
    assert "int64" in refusal((samples, 16_000)).problem


def test_channels_that_cancel_each_other_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -tone()], 1), 16_000)
    assert "cancel" in refusal(tmp_path / "a.wav").problem
    soundfile.write(tmp_path / "b.wav", np.zeros((800, 2)), 16_000)
    assert not load_audio(tmp_path / "b.wav").samples.any()  # silence in both channels is no error


@pytest.mark.parametrize("stated", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_has_an_unknown_length(tmp_path, stated):
    write_with_length(tmp_path / "a.wav", stated)
    assert load_audio(tmp_path / "a.wav").samples.shape == (8000,)


@pytest.mark.parametrize("kind", ["wav", "aiff"])
@pytest.mark.parametrize("stated", [0, 8, 100])
def test_a_header_with_too_small_a_length_is_refused(tmp_path, kind, stated):
    file = tmp_path / f"a.{kind}"
    write_with_length(file, stated)
    problem = refusal(file).problem
    assert str(file) in problem or "no samples" in problem


def test_a_wav_with_other_chunks_after_its_audio_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(data + b"LIST" + (4000).to_bytes(4, "little") + bytes(4000))
    (tmp_path / "c.wav").write_bytes(data + bytes(500))  # padding
    for name in ("b.wav", "c.wav"):
        assert load_audio(tmp_path / name).samples.shape == (8000,)


def write_with_length(file, stated: int) -> None:
    """A WAV or AIFF of 8000 samples whose header states another number of bytes."""
    soundfile.write(file, tone(), 16_000)
    data = file.read_bytes()
    name, order = (b"data", "little") if file.suffix == ".wav" else (b"SSND", "big")
    at = data.index(name) + 4
    file.write_bytes(data[:at] + stated.to_bytes(4, order) + data[at + 4 :])


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    assert load_audio("~/a.wav").seconds == 0.5
    assert load_audio("~/a.wav", audio_root="~").seconds == 0.5
    assert load_audio("a.wav", audio_root="~").seconds == 0.5


def damaged_files(folder) -> dict[str, str]:
    """Files that cannot be decoded, each for another reason: name -> fact in the message."""
    soundfile.write(folder / "whole.wav", tone(), 16_000)
    whole = (folder / "whole.wav").read_bytes()
    at = whole.index(b"fmt ") + 8
    content = {
        "zero.wav": (b"", "0 bytes"),
        "header.wav": (whole[:20], "cannot be decoded"),
        "text.wav": (b"not a sound" * 99, "cannot be decoded"),
        "page.mp3": (b"<html><body>404</body></html>" * 99, "cannot be decoded"),
        "suffix.raw": (whole, "cannot be decoded"),  # libsndfile asks for a rate, with a TypeError
        "codec.m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(4000), "cannot be decoded"),
        "format.wav": (whole[:at] + b"\x77\x77" + whole[at + 2 :], "cannot be decoded"),
        "rate.wav": (whole[: at + 4] + bytes(4) + whole[at + 8 :], "cannot be decoded"),
        "channels.wav": (whole[: at + 2] + b"\0\0" + whole[at + 4 :], "cannot be decoded"),
        "cut.flac": (b"fLaC" + bytes(100), "cannot be decoded"),
        "cut.wav": (whole[: len(whole) // 2], "truncated"),
    }
    for name, (data, _) in content.items():
        (folder / name).write_bytes(data)
    (folder / "folder.wav").mkdir()
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    facts = {name: fact for name, (_, fact) in content.items()}
    return facts | {
        "folder.wav": "no such file",
        "loop.wav": "",
        "none.wav": "no such file",
        "a\0.wav": "path",
    }


def test_a_clip_that_cannot_be_decoded_is_left_out_with_the_reason(tmp_path):
    facts = damaged_files(tmp_path)
    items = Items.from_records(
        [
            Item(name, "Which?", ["a", "b"], "a", id=name, audio_root=tmp_path)
            for name in [*facts, "whole.wav"]
        ]
    )
    for rate in (16_000, 8_000, None):
        usable = items.drop_undecodable(rate)
        assert [item.id for item in usable] == ["whole.wav"]
        reasons = {left.item: left.reason for left in usable.excluded}
        assert reasons.keys() == facts.keys()
        for name, fact in facts.items():
            assert fact in reasons[name], (name, reasons[name])
            assert len(reasons[name]) < 600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    (tmp_path / "a.wav").chmod(0)
    assert "cannot be decoded" in refusal(tmp_path / "a.wav").problem
