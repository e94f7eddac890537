"""Voxtral's own processor, whose tokens come from mistral-common: groups, features, numbers, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from transformers.models.auto import tokenization_auto

import mata_interp as mi
from mata_interp import Item, Mata
from mata_interp.errors import ItemError, ModelError
from mata_interp.lalm import LALM
from mata_interp.lalm.prompting.groups import GROUPS
from tests.reference import Edit

from . import reference
from .family import byte_tokenizer
from .mistral import MISSING, tekken, voxtral, voxtral_processor
from .whispers import MELS

RATE = 16_000
MATA = Mata(1.5, [0, 1], "add")


def item(seconds: float, question: str, choices: tuple[str, ...], caption: str = "", seed: int = 3) -> Item:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    return Item(audio=(samples, RATE), question=question, choices=choices, caption=caption)


ITEMS = [
    item(0.9, "Which is it, é or 犬?", ("ein Hündchen", "a bell", "鐘 [rings]"), "🐕 barks."),
    item(0.5, "Which?", ("no", "rain"), seed=4),
]
USER = [
    {"caption": "🐕 barks.\n", "question": "Which is it, é or 犬?\n"},
    {"caption": "", "question": "Which?\n"},
]


def test_a_missing_package_is_recorded_for_the_table(verified):
    if MISSING:
        verified("voxtral", "processor", f"not verified here: {MISSING}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tekken(tmp_path_factory.mktemp("voxtral"))


@pytest.fixture(scope="module")
def lalm(folder):
    if MISSING:
        pytest.skip(MISSING)
    return LALM(voxtral(None), voxtral_processor(folder))


def texts(lalm: LALM, prompt: mi.Prompt, row: int) -> dict[str, str]:
    ids = prompt.inputs["input_ids"][row]
    return {name: lalm.processor.tokenizer.decode(ids[mask[row]]) for name, mask in prompt.groups.items()}


def test_each_group_holds_its_text_in_a_padded_batch(lalm):
    prompt = lalm.prompt(ITEMS)
    memberships = torch.stack([prompt.groups[name] for name in GROUPS]).sum(0)
    assert torch.equal(memberships, prompt.inputs["attention_mask"])
    assert not prompt.inputs["attention_mask"][1, 0]
    for row, one in enumerate(ITEMS):
        options = f"Choose one of these options: {'; '.join(one.choices)}."
        assert texts(lalm, prompt, row) == {
            "audio": "[AUDIO]" * 375, "sink": "<s>", "template": "[INST][BEGIN_AUDIO][/INST]",
            "options": options, "generated": "", **USER[row],
        }  # fmt: skip


def test_features_are_those_of_the_samples(lalm):
    prompt = lalm.prompt(ITEMS)
    for row, one in enumerate(ITEMS):
        samples = one.load_audio(RATE).samples
        features = lalm.processor.feature_extractor(
            samples, sampling_rate=RATE, pad_to_multiple_of=480_000, truncation=False, return_tensors="pt"
        )
        assert torch.equal(prompt.inputs["input_features"][row], features["input_features"][0])


def test_padding_to_a_width_and_prompts_without_audio(lalm):
    wide = lalm.prompt(ITEMS[1], width=500)
    assert wide.inputs["input_ids"].shape == (1, 500)
    assert texts(lalm, wide, 0)["question"] == "Which?\n"
    without_audio = lalm.prompt(ITEMS, audio=None)
    assert not without_audio.groups["audio"].any()
    assert "input_features" not in without_audio.inputs
    assert texts(lalm, without_audio, 0)["template"] == "[INST][/INST]"
    assert texts(lalm, without_audio, 1)["question"] == "Which?\n"


def test_masses_and_scores_equal_eager_attention(lalm):
    """Each row of a padded batch against its prompt alone in the plain reference, edited and not."""
    eager = voxtral("eager")
    modules = {module: layer for layer, module in LALM(eager).structure.attention.items()}
    prompt = lalm.prompt(ITEMS)
    mass = mi.trace(lalm, ITEMS, query="last", progress=False)["mass"]
    scores = lalm.score_each(prompt, [one.choices for one in ITEMS], [None, MATA])
    for row, one in enumerate(ITEMS):
        alone = lalm.prompt(one)
        audio = alone.groups["audio"][0]
        with torch.no_grad(), reference.edited(modules, [], audio.numel()) as weights_of_layer:
            eager(**alone.inputs, use_cache=False)
        for layer, weights in weights_of_layer.items():
            for name in GROUPS:
                expected = weights[0, :, -1, alone.groups[name][0]].sum(-1)
                measured = mass.sel(layer=layer, group=name)[row]
                np.testing.assert_allclose(measured, expected, atol=1e-5)
        edit = Edit(MATA.alpha, MATA.layers, MATA.rule, audio, phase=MATA.phase)
        for option, tokens in enumerate(lalm.option_tokens(one, one.choices)):
            for result, edits in zip(scores, ([], [edit]), strict=True):
                logits = reference.forward(eager, modules, alone.inputs, edits, tokens[:-1])
                expected = logits.double().log_softmax(-1)[range(len(tokens)), tokens].sum()
                assert abs(float(expected) - float(result.logprob[row][option])) < 2e-4
    moved = np.nanmax(np.abs(np.asarray(scores[1].logprob) - np.asarray(scores[0].logprob)))
    assert moved > 0.01
    swept = mi.sweep(lalm, ITEMS, {"none": None, "mata": MATA}, progress=False)
    np.testing.assert_allclose(swept, np.stack([s.logprob for s in scores], 1), atol=2e-5)
    assert len(lalm.answer(prompt).texts) == 2


def test_long_audio_is_encoded_in_windows(lalm):
    """Its features have more rows than there are prompts."""
    items = [item(31, "Which?", ("a", "bc")), ITEMS[1]]
    prompt = lalm.prompt(items)
    assert prompt.truncated_seconds == (0, 0)
    assert prompt.groups["audio"].sum(1).tolist() == [750, 375]
    assert len(prompt.inputs["input_features"]) == 3
    scores = lalm.score_each(prompt, [one.choices for one in items], [None, MATA])
    for row, one in enumerate(items):
        alone = lalm.score_each(lalm.prompt(one), [one.choices], [None, MATA])
        for measured, expected in zip(scores, alone, strict=True):
            np.testing.assert_allclose(measured.logprob[row], expected.logprob[0], atol=2e-5)


def test_saved_and_loaded(lalm, tmp_path, verified):
    lalm.model.save_pretrained(tmp_path)
    lalm.processor.save_pretrained(tmp_path)
    assert (tmp_path / "tekken.json").is_file()
    again, prompt = LALM.from_pretrained(tmp_path), lalm.prompt(ITEMS)
    twice = again.prompt(ITEMS)
    assert type(again.processor.tokenizer) is type(lalm.processor.tokenizer)
    for name, values in prompt.inputs.items():
        assert torch.equal(twice.inputs[name], values)
    assert torch.equal(again.logits(twice, MATA), lalm.logits(prompt, MATA))
    verified("voxtral", "processor")


def test_control_tokens_in_a_text_are_refused(lalm):
    with pytest.raises(ItemError, match=r"\[AUDIO\]"):
        lalm.prompt(item(0.5, "What is [AUDIO]?", ("a", "b")))


@pytest.mark.parametrize("templated", [False, True])
def test_a_plain_tokenizer_in_its_place_is_refused(folder, templated):
    """transformers accepts it, and makes prompts without audio."""
    names = {"<pad>": None, **{f"<SPECIAL_{number}>": None for number in range(3)}, "[AUDIO]": "audio_token"}
    plain = byte_tokenizer(names, pad_token="<pad>")
    if templated:
        plain.chat_template = "{% for m in messages %}[AUDIO]{{ m.content[-1].text }}{% endfor %}"
    model = voxtral(None, audio=plain.get_vocab()["[AUDIO]"])
    lalm = LALM(model, voxtral_processor(folder, plain))
    with pytest.raises(ModelError, match=type(plain).__name__):
        lalm.prompt(ITEMS)


def test_what_is_missing_is_named(lalm_without):
    """A Voxtral folder where mistral-common is missing or too old: it loads, but makes no prompts."""
    with pytest.raises(ModelError, match="VoxtralProcessor"):
        lalm_without.prompt(ITEMS)
    with pytest.raises(ModelError, match="VoxtralProcessor"):
        mi.trace(lalm_without, ITEMS, query="last", progress=False)


@pytest.fixture
def lalm_without(folder, tmp_path, monkeypatch):
    """What ``from_pretrained`` gives there, of a folder as on the hub."""
    monkeypatch.setitem(tokenization_auto.TOKENIZER_MAPPING_NAMES, "voxtral", "TokenizersBackend")
    voxtral(None).save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=MELS).save_pretrained(tmp_path)
    (tmp_path / "tekken.json").write_bytes((folder / "tekken.json").read_bytes())
    return LALM.from_pretrained(tmp_path)
