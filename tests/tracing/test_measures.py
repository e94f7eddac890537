"""Measures of a trace, against their formulas by hand and the bounds they must keep."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mata_interp.tracing.measures import aei, audio_share, audio_text_ratio, mdi

few = settings(max_examples=20, deadline=None)
GROUPS = ["audio", "question", "options", "caption", "template", "sink", "generated"]


def a_trace(mass: np.ndarray, tokens: np.ndarray) -> xr.Dataset:
    """mass [item, layer, head, group], tokens [item, group]; layers are the odd ones of a decoder."""
    items, layers = [f"i{i}" for i in range(mass.shape[0])], 2 * np.arange(mass.shape[1]) + 1
    return xr.Dataset(
        {
            "mass": (("item", "layer", "head", "group"), mass.astype(np.float32)),
            "n_tokens": (("item", "group"), tokens),
        },
        coords={"item": items, "layer": layers, "group": GROUPS},
    )


@st.composite
def traces(draw) -> xr.Dataset:
    items, layers, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    weight = st.floats(0.015625, 1.0, width=32)
    mass = draw(hnp.arrays(np.float32, (items, layers, heads, len(GROUPS)), elements=weight))
    tokens = draw(hnp.arrays(np.int64, (items, len(GROUPS)), elements=st.integers(1, 900)))
    return a_trace(mass / mass.sum(-1, keepdims=True), tokens)


@pytest.fixture
def small() -> xr.Dataset:
    """One item, one layer, two heads: 20 audio tokens and 10 of text."""
    mass = np.array([[[[0.2, 0.05, 0.05, 0, 0.1, 0.6, 0], [0.4, 0.1, 0.1, 0, 0.2, 0.2, 0]]]])
    return a_trace(mass, np.array([[20, 4, 3, 0, 2, 1, 0]]))


def test_by_hand(small):
    np.testing.assert_allclose(audio_share(small)[0, 0], [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(audio_share(small, sink=True)[0, 0], [0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(audio_text_ratio(small)[0, 0], [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(audio_text_ratio(small, sink=True)[0, 0], [0.25, 2 / 3], rtol=1e-6)
    # means over heads: audio 0.3 over 20 tokens, text 0.7 over 10
    np.testing.assert_allclose(mdi(small), [[(0.7 / 10) / (0.3 / 20)]], rtol=1e-6)
    np.testing.assert_allclose(aei(small), [[0.7 / (10 / 30)]], rtol=1e-6)


@few
@given(traces(), st.booleans())
def test_share_and_ratio_are_one_thing(ds, sink):
    share, ratio = audio_share(ds, sink), audio_text_ratio(ds, sink)
    assert share.dims == ratio.dims == ("item", "layer", "head")
    assert ((share > 0) & (share < 1)).all()
    xr.testing.assert_allclose(share, (ratio / (1 + ratio)).rename("audio_share"))
    assert (audio_share(ds, sink=True) <= audio_share(ds, sink=False)).all()


@few
@given(traces())
def test_indices_agree_on_who_dominates(ds):
    dominance, efficiency = mdi(ds), aei(ds)
    assert dominance.dims == efficiency.dims == ("item", "layer")
    assert dominance.layer.equals(ds.layer)
    clear = abs(dominance - 1) > 1e-6
    assert ((dominance > 1) == (efficiency > 1)).where(clear, True).all()
    # AEI = MDI (|T| + |O|) / (MDI |T| + |O|), from the two definitions
    n_audio = ds.n_tokens.sel(group="audio", drop=True)
    n_text = ds.n_tokens.sum("group") - n_audio
    expected = dominance * (n_text + n_audio) / (dominance * n_text + n_audio)
    np.testing.assert_allclose(efficiency, expected, rtol=1e-6)


@few
@given(traces(), st.floats(0.1, 1.0))
def test_a_remainder_outside_all_groups_changes_nothing(ds, fraction):
    """Learned sinks take part of the mass: what is left is compared with itself."""
    less = ds.assign(mass=ds.mass * np.float32(fraction))
    for measure in (audio_share, audio_text_ratio, mdi, aei):
        xr.testing.assert_allclose(measure(less), measure(ds), rtol=1e-5)


@few
@given(traces())
def test_attention_in_proportion_to_tokens_is_neutral(ds):
    even = (ds.n_tokens / ds.n_tokens.sum("group")).broadcast_like(ds.mass).transpose(*ds.mass.dims)
    even = ds.assign(mass=even)
    np.testing.assert_allclose(mdi(even), 1.0)
    np.testing.assert_allclose(aei(even), 1.0)


def test_heads_a_layer_lacks_stay_missing_and_leave_means_alone(small):
    wide = xr.concat([small.mass, small.mass.isel(head=[0]) * np.nan], "head")
    padded = small.drop_vars("mass").assign(mass=wide)
    assert np.isnan(audio_share(padded)).values.tolist() == [[[False, False, True]]]
    assert np.isnan(audio_text_ratio(padded)).values.tolist() == [[[False, False, True]]]
    xr.testing.assert_allclose(mdi(padded), mdi(small))
    xr.testing.assert_allclose(aei(padded), aei(small))


def test_an_item_without_audio(small):
    deaf = small.copy(deep=True)
    deaf.mass.loc[{"group": "audio"}] = 0
    deaf.n_tokens.loc[{"group": "audio"}] = 0
    assert (audio_share(deaf) == 0).all()
    assert (audio_text_ratio(deaf) == 0).all()
    assert np.isnan(mdi(deaf)).all()
    np.testing.assert_allclose(aei(deaf), 1.0)


def test_queries_are_kept_apart(small):
    both = xr.concat([small.mass, small.mass.isel(head=[1, 0])], "query")
    ds = small.drop_vars("mass").assign(mass=both)
    assert audio_share(ds, sink=True).sizes["query"] == 2
    np.testing.assert_allclose(audio_share(ds, sink=True).isel(query=1)[0, 0], [0.4, 0.2], rtol=1e-6)
    assert mdi(ds).sizes == {"query": 2, "item": 1, "layer": 1}
