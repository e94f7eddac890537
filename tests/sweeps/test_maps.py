"""Maps: the right configurations, and each number where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mata_interp as mi
from mata_interp import Item, Mata
from mata_interp.ranges import brief
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
    assert heads["layer 2, head 3"] == Mata(1.0, [2], "knockout", heads=[3])


def test_the_margin_is_that_of_the_records(lalm, items):
    configurations = {"baseline": None, "mata": Mata(1.0, [1, 2])}
    swept = margin(sweep(lalm, items, configurations, progress=False))
    records = mi.run(lalm, items, configurations, progress=False).records
    for _, row in records[records["answer"].notna()].iterrows():
        found = float(swept.sel(item=row["item"], configuration=row["condition"]))
        assert found == pytest.approx(row["margin"], abs=1e-4)
    assert np.isnan(swept.sel(item=items[2].id)).all()
    with pytest.raises(ValueError, match="needs options"):
        margin(sweep(lalm, lalm.prompt(items), configurations, progress=False))


@pytest.mark.parametrize(
    ("make", "dims"),
    [
        (window_configs, ("layers", "alpha")),
        (lambda lalm: window_configs(lalm, rule="knockout"), ("layers", "alpha")),
        (layer_configs, ("layer",)),
        (lambda lalm: layer_configs(lalm, 0.5, "abs"), ("layer",)),
        (head_configs, ("layer", "head")),
    ],
)
def test_each_number_is_where_it_belongs(lalm, items, make, dims):
    configurations = make(lalm)
    swept = sweep(lalm, items, {"baseline": None, **configurations}, progress=False)
    found = change(swept, configurations, "baseline")
    assert found.dims == dims
    assert (found.attrs["items"], found.attrs["clips"]) == (2, 2)  # of one the answer is not known
    assert ((found["low"] <= found) & (found <= found["high"])).all()
    assert found.attrs["rule"] == next(iter(configurations.values())).rule
    if "layers" in dims:
        assert found["first"].sel(layers="1-2") == 1
        assert found["last"].sel(layers="1-2") == 2
    xr.testing.assert_allclose(found, causal_map(lalm, items, configurations, progress=False), atol=1e-5)
    assert found.notnull().all()
    margins = margin(swept)
    for name, mata in configurations.items():
        place = {
            "layer": mata.layers[0],
            "layers": brief(mata.layers),
            "alpha": mata.alpha,
        }
        place["head"] = mata.heads[0] if mata.heads != "all" else None
        by_hand = margins.sel(configuration=name) - margins.sel(configuration="baseline")
        assert float(found.sel({d: place[d] for d in dims})) == pytest.approx(float(by_hand.mean()), abs=1e-9)
    assert float(abs(found).max()) > 0.01


def test_two_numbers_for_one_place_are_refused(lalm, items):
    twins = {"a": Mata(1.0, [1]), "b": Mata(1.0, [1], "mul")}
    swept = sweep(lalm, items, {"baseline": None, **twins}, progress=False)
    with pytest.raises(ValueError, match="same place"):
        change(swept, twins, "baseline")


def test_a_head_that_is_knocked_out_reads_no_audio(lalm, items):
    """All heads of a layer at once are the layer; the sum of one by one is not, but each moves something."""
    prompt = lalm.prompt(items)
    whole = lalm.logits(prompt, layer_configs(lalm)["layer 1"])
    by_heads = lalm.logits(prompt, [m for n, m in head_configs(lalm).items() if n.startswith("layer 1,")])
    np.testing.assert_allclose(whole, by_heads, atol=1e-5)
