"""Maps: the right configurations, and each number where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mata_interp as mi
from mata_interp import Item, Mata
from mata_interp.errors import InterventionError
from mata_interp.sweeps import causal_map, change, head_configs, layer_configs, margin, sweep, window_configs
from tests.tiny import RATE, tiny_qwen2_audio

CHOICES = ("a bell", "no", "three times")


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


@pytest.fixture(scope="module")
def items() -> list[Item]:
    rng = np.random.default_rng(0)
    sounds = [(rng.normal(0, 0.1, n).astype(np.float32), RATE) for n in (9_000, 14_000, 5_000)]
    answers = ("no", "a bell", None)
    return [
        Item(audio=sound, question=f"Which, {n}?", choices=CHOICES[: 3 - n % 2], answer=answer)
        for n, (sound, answer) in enumerate(zip(sounds, answers, strict=True))
    ]


def test_the_configurations(lalm):
    windows = window_configs(lalm, (0.1, 1.0))
    assert len(windows) == 10 * 2
    assert windows["layers 1-2, alpha 0.1"] == Mata(0.1, [1, 2])
    assert {len(m.layers) for m in window_configs(lalm, widths=[2]).values()} == {2}
    assert list(layer_configs(lalm)) == [f"layer {n}" for n in range(4)]
    heads = head_configs(lalm)
    assert len(heads) == 16
    assert heads["layer 2, head 3"] == mi.Knockout([2], heads=[3])


def test_the_margin_is_that_of_the_records(lalm, items):
    configurations = {"baseline": None, "mata": Mata(1.0, [1, 2])}
    swept = margin(sweep(lalm, items, configurations, progress=False))
    records = mi.run(lalm, items, configurations, progress=False).records
    for _, row in records[records["answer"].notna()].iterrows():
        value = float(swept.sel(item=row["item"], configuration=row["condition"]))
        assert value == pytest.approx(row["margin"], abs=1e-4)
    assert np.isnan(swept.sel(item=items[2].id)).all()
    with pytest.raises(ValueError, match="has no answer options"):
        margin(sweep(lalm, lalm.prompt(items), configurations, progress=False))


def changes_by_name(swept, configurations) -> dict[str, float]:
    margins = margin(swept)
    return {
        name: float((margins.sel(configuration=name) - margins.sel(configuration="baseline")).mean())
        for name in configurations
    }


def mapped(lalm, items, configurations):
    """The map, and the mean change of each configuration by its name."""
    swept = sweep(lalm, items, {"baseline": None, **configurations}, progress=False)
    return change(swept, configurations, "baseline"), changes_by_name(swept, configurations)


@pytest.mark.parametrize("rule", ["abs", "knockout"])
def test_a_map_of_windows(lalm, items, rule):
    causal, by_name = mapped(lalm, items, window_configs(lalm, (0.1, 1.0), rule))
    assert causal.dims == ("layers", "alpha")
    assert causal.shape == (10, 2)
    for layers, alpha, name in [
        ("0", 0.1, "layer 0, alpha 0.1"),
        ("1-2", 1.0, "layers 1-2, alpha 1"),
        ("0-3", 0.1, "layers 0-3, alpha 0.1"),
    ]:
        assert float(causal.sel(layers=layers, alpha=alpha)) == pytest.approx(by_name[name], abs=1e-9)
    assert causal["first"].sel(layers="1-2") == 1
    assert causal["last"].sel(layers="1-2") == 2
    assert (causal.attrs["rule"], causal.attrs["heads"]) == (rule, "all")
    assert (causal.attrs["items"], causal.attrs["clips"]) == (2, 2)  # of one the answer is not known
    assert ((causal["low"] <= causal) & (causal <= causal["high"])).all()


def test_the_noise_floor_of_a_map(lalm, items):
    """Two clips have two patterns of signs (and their opposites): alike and different."""
    configurations = layer_configs(lalm, 0.5, "abs")
    swept = sweep(lalm, items, {"baseline": None, **configurations}, progress=False)
    margins = margin(swept).isel(item=[0, 1])
    moved = (margins - margins.sel(configuration="baseline")).sel(configuration=list(configurations)).values
    expected = max(np.abs(moved.sum(0)).max(), np.abs(moved[0] - moved[1]).max()) / 2
    assert change(swept, configurations, "baseline").attrs["noise_floor"] == pytest.approx(expected)


def test_a_map_of_layers(lalm, items):
    configurations = layer_configs(lalm, 0.5, "abs")
    causal, by_name = mapped(lalm, items, configurations)
    assert causal.dims == ("layer",)
    assert causal["layer"].values.tolist() == [0, 1, 2, 3]
    assert float(causal.sel(layer=2)) == pytest.approx(by_name["layer 2"], abs=1e-9)
    assert float(abs(causal).max()) > 0.01
    xr.testing.assert_allclose(causal, causal_map(lalm, items, configurations, progress=False), atol=1e-5)


def test_a_map_of_heads(lalm, items):
    causal, by_name = mapped(lalm, items, head_configs(lalm))
    assert causal.dims == ("layer", "head")
    assert causal.shape == (4, 4)
    assert float(causal.sel(layer=1, head=3)) == pytest.approx(by_name["layer 1, head 3"], abs=1e-9)
    assert float(causal.sel(layer=3, head=0)) == pytest.approx(by_name["layer 3, head 0"], abs=1e-9)
    assert causal.notnull().all()


def test_layers_under_some_heads_are_a_map_of_layers(lalm, items):
    """`sweep --layers each --heads 0-1` is no map of heads: neither head is alone."""
    causal, by_name = mapped(lalm, items, layer_configs(lalm, heads=[0, 1]))
    assert causal.dims == ("layer",)
    assert causal.attrs["heads"] == "0-1"
    assert float(causal.sel(layer=3)) == pytest.approx(by_name["layer 3"], abs=1e-9)


def test_windows_under_some_heads_are_a_map_of_windows(lalm, items):
    causal, by_name = mapped(lalm, items, window_configs(lalm, (1.0,), widths=[2], heads=[1, 2]))
    assert causal.dims == ("layers", "alpha")
    assert causal.attrs["heads"] == "1-2"
    assert float(causal.sel(layers="2-3", alpha=1.0)) == pytest.approx(
        by_name["layers 2-3, alpha 1"], abs=1e-9
    )


@pytest.mark.parametrize(
    ("configurations", "message"),
    [
        ({"a": Mata(1.0, [1]), "b": Mata(1.0, [1], "mul")}, "differ in rule .abs, mul"),
        ({"a": Mata(1.0, [1]), "b": Mata(1.0, [2], keys="text")}, "differ in keys"),
        ({"a": Mata(1.0, [1]), "b": Mata(1.0, [1])}, "same place"),
        ({"a": Mata(1.0, [1], heads=[0, 1]), "b": Mata(1.0, [1], heads=[2])}, "differ in heads"),
        ({"a": Mata(1.0, [1], heads=[0]), "b": Mata(1.0, [2])}, "differ in heads"),
        ({"a": Mata(1.0, [1, 2], heads=[0]), "b": Mata(1.0, [1, 2], heads=[1])}, "differ in heads"),
        ({"a": Mata(1.0, [1], heads=[0]), "b": Mata(0.5, [1], heads=[1])}, "differ in heads"),
        ({}, "no configurations to map"),
    ],
)
def test_what_has_no_place_is_refused_before_the_sweep(lalm, items, configurations, message):
    with pytest.raises(InterventionError, match=message):
        causal_map(lalm, items, configurations, progress=False)


def test_a_head_that_is_knocked_out_reads_no_audio(lalm, items):
    """All heads of a layer at once are the layer; the sum of one by one is not, but each moves something."""
    prompt = lalm.prompt(items)
    whole = lalm.logits(prompt, layer_configs(lalm)["layer 1"])
    by_heads = lalm.logits(prompt, [m for n, m in head_configs(lalm).items() if n.startswith("layer 1,")])
    np.testing.assert_allclose(whole, by_heads, atol=1e-5)
