"""The longest audio of every family whose processor is built here, with the processors' own windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from mata_interp import Item
from mata_interp.errors import ItemError
from mata_interp.lalm import LALM
from mata_interp.lalm.prompting.lengths import PromptLengths
from mata_interp.lalm.prompting.prompts import audio_limit, build_prompt

from .all_processors import PROCESSORS, WINDOWS
from .full_processors import audio_id, model_for_items
from .mistral import MISSING, tekken, voxtral_processor
from .processors import RATE
from .registry import FAMILIES

LIMITS = {
    "qwen2_audio": 30.0,
    "audioflamingo3": 600.0,
    "musicflamingo": 1200.0,
    "glmasr": 630.0,  # its own 655 s are rounded down to whole windows of 30 s
    "qwen3_asr": None,
    "vibevoice_asr": None,
    "phi4_multimodal": None,
    "audioflamingo3 on qwen3_next": 600.0,
    "qwen2_5_omni": 300.0,
    "qwen3_omni_moe": None,
    "gemma3n": 30.0,
    "gemma4": 30.0,
    "gemma4_unified": None,
    "inkling_mm_model": None,
    "nemotron_h_omni": None,
    "granite_speech": None,
    "granite_speech_plus": None,
    "granite_speech on granitemoehybrid": None,
    "voxtral": None,
    "voxtral on lfm2": None,
}
"""Seconds; None: no clip of up to 32 minutes is cut."""


def clip(seconds: float) -> Item:
    samples = np.random.default_rng(3).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    return Item((samples, RATE), "Which?", choices=("dog", "a bell"))


def built(name, processor, items):
    return build_prompt(processor, items, audio_token_id=audio_id(name), sampling_rate=RATE)


def test_every_family_has_a_limit():
    assert set(WINDOWS) <= set(LIMITS) == set(FAMILIES)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_minute(name, verified):
    """Whole, with twice the tokens of half a minute, but for processors that take half a minute."""
    processor = WINDOWS[name]()
    long, short = (built(name, processor, clip(seconds)) for seconds in (61.0, 30.0))
    cut = 31.0 if LIMITS[name] == 30.0 else 0.0
    assert long.truncated_seconds == pytest.approx((cut,))
    assert long.audio_seconds == pytest.approx((61.0 - cut,))
    ratio = int(long.groups["audio"].sum()) / int(short.groups["audio"].sum())
    whole_windows = name.startswith("voxtral")
    expected = 1.0 if cut else 3.0 if whole_windows else 61 / 30
    assert ratio == pytest.approx(expected, rel=0.03)
    limit = audio_limit(processor, audio_id(name), RATE)
    assert limit.flaw(clip(61.0).load_audio().samples, round((61 - cut) * RATE)) == ""


@pytest.mark.acceptance
@pytest.mark.parametrize("name", WINDOWS)
def test_the_longest_audio(name, verified):
    processor = WINDOWS[name]()
    limit = audio_limit(processor, audio_id(name), RATE)
    assert limit.seconds() == LIMITS[name]
    seconds = LIMITS[name]
    verified(name, "longest audio", "32 min or more" if seconds is None else f"{seconds:g} s")
    if seconds is None or seconds > 700:
        return
    item = clip(seconds + 12.5)
    prompt = built(name, processor, item)
    assert prompt.truncated_seconds == pytest.approx((12.5,))
    assert limit.flaw(item.load_audio().samples, round(seconds * RATE)) == ""
    lalm = LALM(model_for_items(name), processor)
    assert PromptLengths(lalm)(item).truncated_seconds == pytest.approx(12.5)


GEMMAS = {
    "gemma3n": transformers.Gemma3nAudioFeatureExtractor,
    "gemma4": transformers.Gemma4AudioFeatureExtractor,
}


@pytest.mark.parametrize("name", GEMMAS)
def test_gemmas_extractors_drop_what_is_beyond_half_a_minute(name):
    """Their processors need torchvision; the extractors, called as those do, truncate without saying so."""
    from mata_interp.lalm.prompting.limits import AudioLimit

    extractor = GEMMAS[name]()
    assert not hasattr(extractor, "n_samples")
    limit = AudioLimit(lambda samples: dict(extractor([samples], return_tensors="pt")), RATE)
    assert limit.usable_samples(29 * RATE) == 29 * RATE
    assert limit.usable_samples(45 * RATE) == 30 * RATE
    assert limit.flaw(clip(45.0).load_audio().samples, 30 * RATE) == ""
    assert "change no feature" in limit.flaw(clip(45.0).load_audio().samples, 45 * RATE)


def test_voxtral_takes_more_than_a_window(tmp_path, verified):
    if MISSING:
        pytest.skip(MISSING)
    processor = voxtral_processor(tekken(tmp_path))
    limit = audio_limit(processor, 24, RATE)
    assert limit.usable_samples(61 * RATE) == 61 * RATE
    prompt = build_prompt(processor, clip(61.0), audio_token_id=24, sampling_rate=RATE)
    assert prompt.truncated_seconds == (0.0,)
    assert int(prompt.groups["audio"].sum()) == 3 * 375


TWO = Item([clip(0.9).audio, clip(0.5).audio], "Which?", choices=("dog", "a bell"), id="two")
ONE_CLIP = ("audioflamingo3", "audioflamingo3 on qwen3_next", "musicflamingo", "glmasr", "qwen3_asr")


@pytest.mark.parametrize("name", WINDOWS)
def test_several_clips_through_each_processor(name):
    """Groups for both clips, or one clear line where a processor takes one clip in a prompt."""
    processor = PROCESSORS[name]()
    if name in ONE_CLIP:
        with pytest.raises(ItemError, match=f"2 clips. {type(processor).__name__} takes one") as error:
            built(name, processor, [clip(0.5), TWO])
        assert (error.value.item, error.value.field) == ("two", "audio")
        return
    prompt = built(name, processor, [clip(0.5), TWO])
    lalm = LALM(model_for_items(name), processor)
    counts = [prompt.groups[f"audio_{n}"].sum(1).tolist() for n in (1, 2)]
    alone = [int(built(name, processor, clip(s)).groups["audio"].sum()) for s in (0.9, 0.5)]
    assert [counts[0][1], counts[1][1]] == alone
    assert counts[1][0] == 0
    assert lalm.audio_alignment(prompt).problem is None


def test_several_clips_through_voxtrals_messages(tmp_path):
    if MISSING:
        pytest.skip(MISSING)
    processor = voxtral_processor(tekken(tmp_path))
    prompt = build_prompt(processor, [TWO, clip(0.5)], audio_token_id=24, sampling_rate=RATE)
    assert [prompt.groups[f"audio_{n}"].sum(1).tolist() for n in (1, 2)] == [[375, 375], [375, 0]]
    decode = processor.tokenizer.decode
    question = prompt.inputs["input_ids"][0][prompt.groups["question"][0]]
    assert decode(question) == "Which?\n"
    assert torch.equal(prompt.groups["audio"], prompt.groups["audio_1"] | prompt.groups["audio_2"])
