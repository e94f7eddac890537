"""A trace's masses are those of eager attention, whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.errors import ExclusionWarning, ItemError, MataWarning, RunError
from mata_interp.lalm import GROUPS, LALM
from mata_interp.tracing import audio_share, trace
from tests import reference
from tests.tiny import RATE, tiny_qwen2_audio


@pytest.fixture(scope="module")
def items() -> list[Item]:
    noise = np.random.default_rng(1)

    def sound(seconds: float):
        return noise.normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE

    return [
        Item(audio=sound(1.0), question="Which?", choices=("a", "b"), domain="speech", kind="who"),
        Item(
            audio=sound(0.4),
            question="How many are there?",
            choices=("1", "2"),
            caption="Two.",
            source="tape 7",
        ),
        Item(audio=sound(0.2), question="When?", choices=("x", "yes"), condition="neutral"),
    ]


@pytest.fixture(scope="module")
def traced(tiny_lalm, items) -> xr.Dataset:
    return trace(tiny_lalm, items, progress=False)


@pytest.mark.parametrize("hop_length", [160, 320])
def test_masses_are_those_of_eager_attention(items, hop_length):
    """All layers; one prompt alone, and three left-padded."""
    lalm = LALM(*tiny_qwen2_audio(hop_length=hop_length))
    eager = tiny_qwen2_audio(hop_length=hop_length, attention="eager")[0]
    for batch in (items[:1], items):
        prompt = lalm.prompt(batch)
        mass = trace(lalm, prompt, progress=False)["mass"]
        for layer, weights in enumerate(reference.last_row(eager, prompt.inputs)):
            for group, mask in prompt.groups.items():
                expected = (weights * mask[:, None]).sum(-1)
                measured = mass.sel(layer=layer, group=group).values
                np.testing.assert_allclose(measured, expected, atol=1e-5)


def test_masses_of_all_groups_sum_to_one(traced):
    np.testing.assert_allclose(traced["mass"].sum("group"), 1, atol=1e-5)


def test_labels(traced, tiny_lalm, items):
    assert traced["mass"].dims == ("item", "layer", "head", "group")
    assert traced["mass"].dtype == np.float32
    assert traced["group"].values.tolist() == list(GROUPS)
    assert traced["layer"].values.tolist() == [0, 1, 2, 3]
    assert traced["item"].values.tolist() == [item.id for item in items]
    assert traced["domain"].values.tolist() == ["speech", "", ""]
    assert traced["kind"].values.tolist() == ["who", "", ""]
    assert traced["condition"].values.tolist() == ["", "", "neutral"]
    assert traced["cluster"].values.tolist() == [item.cluster for item in items]
    prompt = tiny_lalm.prompt(items)
    for group, mask in prompt.groups.items():
        assert traced["n_tokens"].sel(group=group).values.tolist() == mask.sum(1).tolist()
    assert int(traced["n_tokens"].sum()) == int(prompt.inputs["attention_mask"].sum())
    assert traced.attrs["model_weights_sha256"] == tiny_lalm.fingerprint()["weights_sha256"]
    assert traced.attrs["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("size", [1, 2])
def test_batches_do_not_matter(tiny_lalm, items, traced, size):
    again = trace(tiny_lalm, items, batch_size=size, progress=False)
    xr.testing.assert_allclose(again, traced, atol=1e-5)


def test_items_and_prompts_may_be_mixed(tiny_lalm, items, traced):
    mixed = trace(tiny_lalm, [items[0], tiny_lalm.prompt(items[1:])], progress=False)
    xr.testing.assert_allclose(mixed, traced, atol=1e-5)
    xr.testing.assert_allclose(trace(tiny_lalm, items[1], progress=False), traced.isel(item=[1]), atol=1e-5)


def test_groups_of_ones_own(tiny_lalm, items, traced):
    """The groups of a prompt are what is traced, also finer ones; their masses add up."""
    prompt = tiny_lalm.prompt(items)
    early = prompt.groups["audio"].cumsum(1) <= 2
    groups = prompt.groups | {
        "audio": prompt.groups["audio"] & ~early,
        "early": prompt.groups["audio"] & early,
    }
    finer = trace(tiny_lalm, replace(prompt, groups=groups), progress=False)["mass"]
    both = finer.sel(group=["audio", "early"]).sum("group")
    np.testing.assert_allclose(both, traced["mass"].sel(group="audio"), atol=1e-6)
    assert (finer.sel(group="early") > 0).all()


def test_through_a_file(traced, tmp_path):
    traced.to_netcdf(tmp_path / "trace.nc", engine="scipy")
    back = xr.load_dataset(tmp_path / "trace.nc", engine="scipy")
    np.testing.assert_array_equal(back["mass"], traced["mass"])
    np.testing.assert_allclose(audio_share(back), audio_share(traced), atol=1e-6)
    assert back.attrs["query"] == "last"


def test_what_cannot_be_traced(tiny_lalm, items):
    with pytest.raises(ValueError, match="No query 'first'"):
        trace(tiny_lalm, items, query="first")
    with pytest.raises(ValueError, match="at least one item"):
        trace(tiny_lalm, [])


def test_an_item_that_cannot_be_used_is_left_out_and_named(tiny_lalm, items, traced, tmp_path):
    broken = Item(audio=str(tmp_path / "missing.wav"), question="Which?", choices=("a", "b"), id="broken")
    with pytest.warns(ExclusionWarning, match=r"3 items used, 1 left out.*'broken'"):
        usable = trace(tiny_lalm, [items[0], broken, *items[1:]], progress=False)
    xr.testing.assert_allclose(usable, traced, atol=1e-5)
    assert usable.attrs["n_excluded"] == 1
    assert usable.attrs["excluded"].startswith("broken: audio: ")
    assert (traced.attrs["n_excluded"], traced.attrs["excluded"]) == (0, "")
    with pytest.raises(ItemError, match="'broken'"):
        trace(tiny_lalm, [items[0], broken], progress=False, strict=True)
    with pytest.raises(RunError, match=r"1 left out.*'broken'"):
        trace(tiny_lalm, broken, progress=False)
    assert issubclass(ExclusionWarning, MataWarning)
