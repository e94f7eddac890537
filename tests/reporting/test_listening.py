import numpy as np
import pytest
import soundfile

import mata_interp as mi
from mata_interp.errors import InterventionError, ItemError
from mata_interp.interventions import published_convention
from mata_interp.reporting.listening_page import render_html
from mata_interp.reporting.terminal import bar, columns, pad, render_text, sparkline

CHOICES = ("a dog", "a bell", "rain")


@pytest.fixture(scope="module")
def sound():
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, 12_000).astype(np.float32), 16_000


@pytest.fixture(scope="module")
def listening(tiny_lalm, sound):
    return mi.listen(tiny_lalm, sound, "What is it?", CHOICES, alpha=2.0, layers=[1, 2])


def test_probabilities_are_those_of_the_scores(listening, tiny_lalm):
    prompt = tiny_lalm.prompt(listening.item)
    for probabilities, mata in ((listening.before, None), (listening.after, listening.mata)):
        logprob = tiny_lalm.score(prompt, [CHOICES], mata).logprob[0]
        np.testing.assert_allclose(probabilities, np.exp(logprob) / np.exp(logprob).sum(), rtol=1e-6)
    assert listening.answer_before == CHOICES[int(listening.before.argmax())]
    assert not np.allclose(listening.before, listening.after, rtol=0.01, atol=0)


def test_attention_over_time_sums_to_the_mass_on_audio(listening, tiny_lalm):
    trace = mi.trace(tiny_lalm, tiny_lalm.prompt(listening.item), query="last", progress=False)
    mass = trace["mass"].sel(group="audio").isel(item=0)
    np.testing.assert_allclose(listening.attention.sum(1), mass.mean("head"), rtol=1e-5)
    np.testing.assert_allclose(listening.share, mi.audio_share(trace).isel(item=0).mean("head"), rtol=1e-5)
    assert listening.attention.shape == (tiny_lalm.num_layers, len(listening.edges) - 1)
    assert listening.edges[0] == 0
    assert listening.seconds == pytest.approx(0.75)
    assert (np.diff(listening.edges) > 0).all()


def test_attention_is_in_the_order_of_time(listening, tiny_lalm):
    """Token by token, against a trace that calls one stretch the audio and the rest something else."""
    from dataclasses import replace

    prompt = tiny_lalm.prompt(listening.item)
    first = prompt.groups["audio"].int().argmax(1)
    alone = prompt.groups["audio"].clone()
    alone[0, first + 1 :] = False
    other_audio = prompt.groups["audio"] & ~alone
    groups = {**prompt.groups, "audio": alone, "template": prompt.groups["template"] | other_audio}
    mass = mi.trace(tiny_lalm, replace(prompt, groups=groups), query="last", progress=False)["mass"]
    np.testing.assert_allclose(
        listening.attention[:, 0], mass.sel(group="audio").isel(item=0).mean("head"), rtol=1e-5, atol=1e-9
    )


def test_without_options_it_generates_an_answer(tiny_lalm, sound):
    listening = mi.listen(tiny_lalm, sound, "What is it?", max_new_tokens=9)
    assert len(listening.before) == len(listening.after) == 0
    tokens = tiny_lalm.generate(tiny_lalm.prompt(listening.item), None, max_new_tokens=9)
    answer = tiny_lalm.processor.tokenizer.decode(tokens[0], skip_special_tokens=True).strip()
    assert listening.answer_before == answer
    assert answer in str(listening)


def test_caption_and_prompt_format_reach_the_prompt(tiny_lalm, sound):
    settings = {"caption": "A cat meows.", "prompt_format": "lmms-eval"}
    listening = mi.listen(tiny_lalm, sound, "What is it?", CHOICES, **settings)
    prompt = tiny_lalm.prompt(listening.item, format="lmms-eval")
    assert prompt.groups["caption"].any()
    logprob = tiny_lalm.score(prompt, [CHOICES]).logprob[0]
    np.testing.assert_allclose(listening.before, np.exp(logprob) / np.exp(logprob).sum(), rtol=1e-6)
    assert "A cat meows." in str(listening)
    assert "A cat meows." in render_html(listening)


def test_repr_is_one_short_line(listening):
    assert len(repr(listening)) < 200
    assert "\n" not in repr(listening)
    assert repr(listening.answer_after) in repr(listening)


def test_save_writes_what_render_html_returns(listening, tmp_path):
    path = listening.save(tmp_path / "page.html")
    assert path.read_text("utf-8") == render_html(listening)
    assert str(listening) == render_text(listening)


def test_a_clip_that_is_too_long_is_cut_and_reported(tiny_lalm, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(
        path, np.random.default_rng(0).normal(0, 0.1, 3 * 8000), 8000
    )  # 3 s at 8 kHz; it takes 1 s
    listening = mi.listen(tiny_lalm, path, "What is it?", CHOICES)
    assert listening.seconds == pytest.approx(1.0)
    assert listening.truncated_seconds == pytest.approx(2.0)
    assert len(listening.samples) == listening.rate == 16_000
    assert "2.0 s" in str(listening)


def test_bad_input_is_refused(tiny_lalm, sound, tmp_path):
    with pytest.raises(ItemError, match="audio"):
        mi.listen(tiny_lalm, tmp_path / "none.wav", "What?", CHOICES)
    with pytest.raises(ItemError, match="repeated"):
        mi.listen(tiny_lalm, sound, "What?", ("a", "a"))
    with pytest.raises(InterventionError, match="layer 9"):
        mi.listen(tiny_lalm, sound, "What?", CHOICES, layers=[9])


def test_plain_data(listening):
    data = listening.to_dict()
    assert [row["option"] for row in data["options"]] == list(CHOICES)
    assert sum(row["after"] for row in data["options"]) == pytest.approx(1)
    assert data["mata"]["layers"] == [1, 2]
    assert np.shape(data["attention"]) == (4, len(data["edges"]) - 1)


def test_terminal(listening):
    text = str(listening)
    for option, before, after in zip(CHOICES, listening.before, listening.after, strict=True):
        line = next(line for line in text.splitlines() if line.strip().startswith(option))
        assert f"{100 * before:.0f}\u202f%" in line
        assert f"{100 * after:.0f}\u202f%" in line
    assert sparkline(listening.profile) in text


def test_bars_and_sparks():
    assert bar(0.5, 4) == "██  "
    assert bar(1 / 32, 4) == "▏   "
    assert bar(-1, 3) == "   "
    assert bar(2, 3) == "███"
    assert sparkline([0, 1, 4, 8]) == "▁▁▄█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""
    assert columns("狗叫") == 4
    assert columns("e\u0301") == 1
    assert pad("狗", 4) == "狗  "


def test_the_published_layers_name_their_convention(tiny_lalm, sound):
    convention = mi.listen(tiny_lalm, sound, "What is it?", CHOICES).layers_convention
    assert convention == published_convention(tiny_lalm)
    listening = mi.listen(tiny_lalm, sound, "What is it?", CHOICES)
    assert convention in str(listening)
    assert convention in render_html(listening)
    assert mi.listen(tiny_lalm, sound, "What is it?", CHOICES, layers=[1]).layers_convention == ""
