"""mi.fusion_layers from items to the window, on the tiny model."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import ArgumentError, ExclusionWarning, InterventionError, ItemError, RunError
from mata_interp.fusion import CRITERIA
from mata_interp.fusion.counterfactual_audio import counterfactual_items
from mata_interp.fusion.recommend import DECIDING
from tests.sweeps.test_sweep import item
from tests.tiny import RATE, tiny_qwen2_audio

FAST = (*DECIDING, "knockout_text", "restoration_audio", "attribution", "saliency_last", "depth")


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


def test_a_profile_holds_everything_it_rests_on(profile, items):
    assert profile.profiles.dims == ("criterion", "item", "layer")
    assert list(profile.profiles["criterion"].values) == list(CRITERIA)
    assert profile.profiles.sizes["item"] == len(items)
    assert np.isfinite(profile.profiles).all()
    assert set(profile.windows) == set(CRITERIA)
    assert set(profile.boundaries) == {"window", *CRITERIA}
    assert profile.chosen_on == tuple(sorted(i.cluster for i in items))
    assert list(profile.agreement) == ["window", *CRITERIA]
    assert (np.diag(profile.agreement) == 1).all()
    assert profile.heads.dims == ("layer", "head")
    np.testing.assert_allclose(
        profile.heads.sum("head"), profile.profiles.sel(criterion="attribution").mean("item"), atol=1e-4
    )
    assert profile.effect.dims == ("item",)
    np.testing.assert_allclose(
        profile.effect, profile.profiles.sel(criterion="knockout_text").sum("layer"), atol=2e-4
    )
    assert str(profile) == profile.summary
    assert profile.refused == {}


def test_audio_heads_are_those_whose_interval_is_above_zero(profile):
    heads = profile.heads.copy(data=np.full(profile.heads.shape, -1.0))
    heads.values[1, 2], heads.values[3, 0], heads.values[2, 1] = 0.5, 2.0, 1.0
    heads["low"] = heads - 0.1
    heads["low"].values[2, 1] = -0.2  # large, with 0 in its interval
    heads_above_zero = dataclasses.replace(profile, heads=heads).audio_heads
    assert heads_above_zero[["layer", "head"]].values.tolist() == [[3, 0], [1, 2]]
    assert heads_above_zero["low"].tolist() == pytest.approx([1.9, 0.4])
    assert len(dataclasses.replace(profile, heads=None).audio_heads) == 0


def test_random_weights_give_no_window(profile):
    assert profile.window == ()
    assert profile.verdict in ("no effect", "too few clips")
    assert profile.window == ()
    with pytest.raises(InterventionError):
        mi.Mata(0.1, layers=profile)


def equal(a: mi.FusionProfile, b: mi.FusionProfile) -> None:
    """All fields, bit for bit."""
    for field in dataclasses.fields(a):
        value, read = getattr(a, field.name), getattr(b, field.name)
        if hasattr(value, "identical"):
            assert read.identical(value), field.name
        else:
            assert read == value, field.name


def test_saved_and_loaded_profiles_are_equal(profile, tmp_path):
    path = tmp_path / "layers.json"
    path.write_text("an older file")
    assert profile.save(path) is None
    assert [file.name for file in tmp_path.iterdir()] == ["layers.json"]  # no temporary file is left
    assert json.loads(path.read_text())["window"] == []
    again = mi.FusionProfile.load(path)
    equal(profile, again)
    equal(profile, mi.FusionProfile.from_json(path))
    equal(profile, mi.FusionProfile.from_json(str(path)))
    equal(profile, mi.FusionProfile.from_json(profile.to_json()))
    assert mi.plot.criteria(again).get_axes()


def test_save_is_of_the_class_and_not_of_nnsight(profile):
    assert "save" in vars(mi.FusionProfile)


def test_a_failed_save_keeps_the_old_file(profile, tmp_path, monkeypatch):
    path = tmp_path / "layers.json"
    profile.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(RunError, match=r"layers\.json"):
        profile.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["layers.json"]


def test_files_of_something_else_are_refused_briefly(profile, tmp_path):
    (tmp_path / "other.json").write_text("[3]")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    for name in ("other.json", "bytes.json", "nowhere.json"):
        with pytest.raises(RunError, match=name):
            mi.FusionProfile.load(tmp_path / name)
    data = profile.to_dict()
    for version in (None, 0, 99):
        with pytest.raises(RunError, match=f"{version!r}.* 3"):
            mi.FusionProfile.from_dict(data | {"schema_version": version})
    (tmp_path / "newer.json").write_text(json.dumps(data | {"schema_version": 99}))
    with pytest.raises(RunError, match=r"newer\.json.*99"):
        mi.FusionProfile.load(tmp_path / "newer.json")
    for text in ('{"schema_version": 1}', profile.to_json()[:-5]):
        with pytest.raises(RunError) as error:
            mi.FusionProfile.from_json(text)
        assert len(str(error.value)) < 300


def test_representations_are_short(profile):
    assert len(repr(profile)) < 120
    assert profile.verdict in repr(profile)


def test_a_window_goes_to_mata_with_its_clips(profile):
    data = profile.to_dict() | {"window": [1, 3], "verdict": "found"}
    mata = mi.Mata(0.1, layers=mi.FusionProfile.from_dict(data))
    assert mata.layers == (1, 3)
    assert mata.chosen_on == profile.chosen_on
    assert mi.AttentionEdit.from_dict(mata.to_dict()).chosen_on == profile.chosen_on


def test_the_same_seed_gives_the_same_profile(lalm, items, profile):
    again = mi.fusion_layers(lalm, items[:3], criteria=FAST, progress=False)
    with torch.inference_mode():  # whatever the caller has switched off
        more = mi.fusion_layers(lalm, items[:3], criteria=FAST, progress=False)
    assert again.to_json() == more.to_json()
    both = [p.profiles.sel(criterion="knockout_text").values for p in (again, profile)]
    np.testing.assert_allclose(both[0], both[1][:3], atol=1e-5)


def test_prompts_need_targets_and_give_what_items_give(lalm, items):
    names = ("knockout_last", "saliency_text", "restoration_audio")
    prompt = lalm.prompt(items[:2])  # of two widths: the first row is padded
    targets = [(64, 87), (65, 70)]
    result = mi.fusion_layers(lalm, prompt, targets, criteria=names, progress=False)
    assert set(result.windows) == {"knockout_last", "saliency_text"}
    assert set(result.refused) == {"restoration_audio"}
    alone = [
        mi.fusion_layers(lalm, lalm.prompt(i), [t], criteria=names, progress=False)
        for i, t in zip(items, targets, strict=False)
    ]
    for row, one in enumerate(alone):
        np.testing.assert_allclose(result.profiles[:, row], one.profiles[:, 0], rtol=1e-3, atol=1e-4)
    plain = lalm.logits(prompt)
    edited = lalm.logits(prompt, mi.Mata(1.0, range(4), "knockout"))
    lost = [float((plain - edited)[row, a] - (plain - edited)[row, b]) for row, (a, b) in enumerate(targets)]
    total = result.profiles.sel(criterion="knockout_last").sum("layer")
    np.testing.assert_allclose(total, lost, atol=1e-4)
    with pytest.raises(ArgumentError, match="no target= for 2 rows"):
        mi.fusion_layers(lalm, prompt, progress=False)
    with pytest.raises(ArgumentError, match="1 targets for 2 rows"):
        mi.fusion_layers(lalm, prompt, [(1, 2)], progress=False)
    with pytest.raises(ArgumentError, match="target="):
        mi.fusion_layers(lalm, items, targets, progress=False)
    with pytest.raises(ArgumentError):
        mi.fusion_layers(lalm, [items[0], prompt], progress=False)


def test_unusable_items_are_excluded_by_name(lalm, items):
    lost = mi.Item(audio=items[0].audio, question="What?", choices=("a", "b"), id="lost")
    with pytest.warns(ExclusionWarning, match=r"1 of 3 items.*'lost'"):
        result = mi.fusion_layers(lalm, [*items[:2], lost], criteria=["depth"], progress=False)
    (left,) = result.excluded
    assert left.startswith("lost: answer: ")
    assert result.profiles.sizes["item"] == 2
    assert result.verdict == "nothing measured"
    with pytest.raises(ItemError, match="'lost'"):
        mi.fusion_layers(lalm, [*items[:2], lost], criteria=["depth"], strict=True, progress=False)
    with pytest.raises(RunError, match=r"1 left out.*'lost'"):
        mi.fusion_layers(lalm, lost, criteria=["depth"], progress=False)
    with pytest.raises(ArgumentError, match=r"'dept'.*'depth'"):
        mi.fusion_layers(lalm, items, criteria=["dept"], progress=False)
    with pytest.raises(ArgumentError):
        mi.fusion_layers(lalm, [], progress=False)


def test_nothing_left_out_gives_no_warning(lalm, items):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ExclusionWarning)
        mi.fusion_layers(lalm, items[:1], criteria=["depth"], progress=False, strict=True)


def test_a_criterion_that_is_not_defined_on_a_model_is_refused_with_the_reason(lalm, items, monkeypatch):
    monkeypatch.setattr(lalm.model.model.language_model, "norm", torch.nn.LayerNorm(32))
    result = mi.fusion_layers(lalm, items[:2], criteria=FAST, progress=False)
    assert set(result.refused) == {"attribution"}
    assert "centres" in result.refused["attribution"]
    assert result.heads is None


def test_counterfactual_clips_have_equal_length_and_other_answers(items):
    both = [*items, items[0].with_audio(items[0].audio)]
    swaps = counterfactual_items(both, RATE, seed=0)
    for one in items:
        original, other = one.load_audio(RATE), swaps[one.id].load_audio(RATE)
        assert len(original.samples) == len(other.samples)
        assert original.sha256 != other.sha256
        assert (swaps[one.id].question, swaps[one.id].answer) == (one.question, one.answer)
    assert counterfactual_items(items[:1], RATE, seed=0) == {}


def test_the_organism_is_measured():
    """No number is tested: its weights may change."""
    lalm = mi.LALM.from_pretrained("organism")
    items = mi.load_benchmark("listening").split("selection").sample(3)
    result = mi.fusion_layers(lalm, items, criteria=FAST, progress=False)
    parts = result.profiles.sel(criterion="knockout_text")
    assert float(np.abs(parts).max()) > 0.01
    assert result.summary
