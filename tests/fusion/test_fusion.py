"""mi.fusion_layers from items to the window, on the tiny model."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import InterventionError, RunError
from mata_interp.fusion import CRITERIA
from mata_interp.fusion.counterfactual_audio import other_sounds
from tests.sweeps.test_sweep import item
from tests.tiny import RATE, tiny_qwen2_audio

SWIFT = ("knockout_text", "restoration_audio", "attribution", "saliency_last", "depth")


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


@pytest.fixture(scope="module")
def items() -> list[mi.Item]:
    return [
        item(0.3 + 0.1 * i, f"What is heard, {i}?", ("a bell", "a crow", "rain"), seed=i) for i in range(5)
    ]


@pytest.fixture(scope="module")
def profile(lalm, items) -> mi.FusionProfile:
    return mi.fusion_layers(lalm, items, progress=False)


def test_a_profile_holds_all_it_rests_on(profile, items):
    assert profile.profiles.dims == ("criterion", "item", "layer")
    assert list(profile.profiles["criterion"].values) == list(CRITERIA)
    assert profile.profiles.sizes["item"] == len(items)
    assert np.isfinite(profile.profiles).all()
    assert set(profile.windows) == set(CRITERIA)
    assert set(profile.interval) == {"window", *CRITERIA}
    assert profile.chosen_on == tuple(sorted(i.cluster for i in items))
    assert list(profile.agreement) == ["window", *CRITERIA]
    assert (np.diag(profile.agreement) == 1).all()
    assert profile.heads.dims == ("layer", "head")
    np.testing.assert_allclose(
        profile.heads.sum("head"), profile.profiles.sel(criterion="attribution").mean("item"), atol=1e-4
    )
    assert str(profile) == profile.sentence
    assert profile.refused == {}


def test_heads_that_carry_the_sound_are_those_above_their_noise(profile):
    heads = profile.heads.copy(data=np.full(profile.heads.shape, -1.0))
    heads.values[1, 2], heads.values[3, 0], heads.values[2, 1] = 0.5, 2.0, 1.0
    heads["low"] = heads - 0.1
    heads["low"].values[2, 1] = -0.2  # large, and not to be told from nothing
    told = dataclasses.replace(profile, heads=heads).carriers
    assert told[["layer", "head"]].values.tolist() == [[3, 0], [1, 2]]
    assert told["low"].tolist() == pytest.approx([1.9, 0.4])
    assert len(dataclasses.replace(profile, heads=None).carriers) == 0


def test_random_weights_hear_nothing_and_none_is_the_answer(profile):
    assert profile.window == ()
    assert profile.verdict in ("no effect", "noise")
    assert "no window" in profile.sentence
    with pytest.raises(InterventionError, match=r"recommends no layers.*no window"):
        mi.Mata(0.1, layers=profile)


def test_json_and_back(profile, tmp_path):
    profile.to_json(tmp_path / "layers.json")
    data = json.loads((tmp_path / "layers.json").read_text())
    assert data["window"] == []
    again = mi.FusionProfile.from_json(tmp_path / "layers.json")
    assert again.to_json() == profile.to_json()
    np.testing.assert_allclose(again.profiles, profile.profiles, rtol=1e-6)
    assert mi.figure(again).get_axes()
    (tmp_path / "other.json").write_text("[3]")
    for name in ("other.json", "nowhere.json"):
        with pytest.raises(RunError, match="cannot read a fusion profile"):
            mi.FusionProfile.from_json(tmp_path / name)


def test_a_window_goes_to_mata_with_its_clips(profile):
    data = profile.to_dict() | {"window": [1, 3], "verdict": "found"}
    mata = mi.Mata(0.1, layers=mi.FusionProfile.from_dict(data))
    assert mata.layers == (1, 3)
    assert mata.chosen_on == profile.chosen_on
    assert mi.AttentionEdit.from_dict(mata.to_dict()).chosen_on == profile.chosen_on


def test_the_same_seed_gives_the_same_profile(lalm, items, profile):
    again = mi.fusion_layers(lalm, items[:3], criteria=SWIFT, progress=False)
    with torch.inference_mode():  # whatever the caller has switched off
        more = mi.fusion_layers(lalm, items[:3], criteria=SWIFT, progress=False)
    assert again.to_json() == more.to_json()
    both = [p.profiles.sel(criterion="knockout_text").values for p in (again, profile)]
    np.testing.assert_allclose(both[0], both[1][:3], atol=1e-5)


def test_prompts_need_targets_and_give_what_items_give(lalm, items):
    names = ("knockout_last", "saliency_text", "restoration_audio")
    prompt = lalm.prompt(items[:2])  # of two widths: the first row is padded
    targets = [(64, 87), (65, 70)]
    found = mi.fusion_layers(lalm, prompt, targets, criteria=names, progress=False)
    assert set(found.windows) == {"knockout_last", "saliency_text"}
    assert "no item has another sound" in found.refused["restoration_audio"]
    alone = [
        mi.fusion_layers(lalm, lalm.prompt(i), [t], criteria=names, progress=False)
        for i, t in zip(items, targets, strict=False)
    ]
    for row, one in enumerate(alone):
        np.testing.assert_allclose(found.profiles[:, row], one.profiles[:, 0], rtol=1e-3, atol=1e-4)
    plain = lalm.logits(prompt)
    edited = lalm.logits(prompt, mi.Mata(1.0, range(4), "knockout"))
    lost = [float((plain - edited)[row, a] - (plain - edited)[row, b]) for row, (a, b) in enumerate(targets)]
    told = found.profiles.sel(criterion="knockout_last").sum("layer")
    np.testing.assert_allclose(told, lost, atol=1e-4)
    with pytest.raises(ValueError, match=r"no target= for 2 rows: give \(right, wrong\)"):
        mi.fusion_layers(lalm, prompt, progress=False)
    with pytest.raises(ValueError, match="1 targets for 2 rows"):
        mi.fusion_layers(lalm, prompt, [(1, 2)], progress=False)
    with pytest.raises(ValueError, match="target= is for ready-made prompts"):
        mi.fusion_layers(lalm, items, targets, progress=False)


def test_what_cannot_be_used_is_named(lalm, items):
    lost = mi.Item(audio=items[0].audio, question="What?", choices=("a", "b"), id="lost")
    found = mi.fusion_layers(lalm, [*items[:2], lost], criteria=["depth"], progress=False)
    assert found.excluded == ("lost: answer: None is not among the choices.",)
    assert found.verdict == "nothing measured"
    with pytest.raises(RunError, match=r"No item can be used\. 1 left out, the first: item 'lost'"):
        mi.fusion_layers(lalm, lost, criteria=["depth"], progress=False)
    with pytest.raises(ValueError, match=r"'dept'.*Did you mean 'depth'"):
        mi.fusion_layers(lalm, items, criteria=["dept"], progress=False)
    with pytest.raises(ValueError, match="Nothing to look at"):
        mi.fusion_layers(lalm, [], progress=False)


def test_a_criterion_that_a_model_cannot_bear_is_refused_with_the_reason(lalm, items, monkeypatch):
    monkeypatch.setattr(lalm.model.model.language_model, "norm", torch.nn.LayerNorm(32))
    found = mi.fusion_layers(lalm, items[:2], criteria=SWIFT, progress=False)
    assert set(found.refused) == {"attribution"}
    assert "centres" in found.refused["attribution"]
    assert found.heads is None


def test_other_sounds_are_as_long_of_other_clips_and_other_answers(items):
    both = [*items, items[0].with_audio(items[0].audio)]
    others = other_sounds(both, RATE, seed=0)
    for one in items:
        own, other = one.load_audio(RATE), others[one.id].load_audio(RATE)
        assert len(own.samples) == len(other.samples)
        assert own.sha256 != other.sha256
        assert (others[one.id].question, others[one.id].answer) == (one.question, one.answer)
    assert other_sounds(items[:1], RATE, seed=0) == {}


def test_the_organism_is_read_whole():
    """No number of it is asked for: its weights may change."""
    lalm = mi.LALM.from_pretrained("organism")
    items = mi.load_benchmark("listening").split("selection").sample(3)
    found = mi.fusion_layers(lalm, items, criteria=SWIFT, progress=False)
    parts = found.profiles.sel(criterion="knockout_text")
    assert float(np.abs(parts).max()) > 0.01
    assert found.sentence
