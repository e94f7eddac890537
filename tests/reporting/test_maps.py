"""From items to a labelled map to a figure."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mata_interp as mi
from mata_interp.errors import FigureError
from mata_interp.reporting.maps import window_cube
from mata_interp.sweeps import by_alpha
from tests.reporting.small import small_study

MAPS = {
    "windows": lambda lalm: mi.window_configs(lalm, (0.5, 1.0)),
    "layers": lambda lalm: mi.layer_configs(lalm),
    "heads": lambda lalm: mi.head_configs(lalm, 1.0, "abs", queries="text"),
    "sets": lambda lalm: by_alpha([[0, 2], [1]], (0.5, 1.0)),
}


@pytest.fixture(scope="module")
def lalm():
    return mi.LALM.from_pretrained(small_study().model)


@pytest.fixture(scope="module")
def items():
    return mi.load_benchmark(small_study().benchmark).filter(condition="conflict")[:4]


@pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")  # what is left out is meant to be
@pytest.mark.parametrize("name", MAPS)
def test_every_kind_of_map_is_drawn(lalm, items, name, tmp_path):
    found = mi.causal_map(lalm, items, MAPS[name](lalm), progress=False)
    drawn = mi.figure(found)
    drawn.savefig(tmp_path / "map.png")
    text = " ".join(
        text.get_text().replace("\n", " ") for text in drawn.findobj(lambda a: hasattr(a, "get_text"))
    )
    assert (tmp_path / "map.png").read_bytes()[1:4] == b"PNG"
    if name != "sets":
        assert "4 items of 4 clips" in text
    if name == "heads":
        assert "queries text" in text
    again = tmp_path / "map.nc"
    found.to_netcdf(again, engine="scipy")
    xr.testing.assert_equal(xr.load_dataarray(again, engine="scipy"), found)


def test_windows_are_found_and_other_sets_are_not():
    def of(names):
        return xr.DataArray(np.ones((len(names), 1)), {"layers": names, "alpha": [1.0]}, ("layers", "alpha"))

    cube, layers = window_cube(of(["0", "2", "5", "0,2", "2,5"]))  # attention in every other layer
    assert layers == [0, 2, 5]
    assert np.isfinite(cube).sum() == 5
    assert window_cube(of(["0", "1-2", "0,2"]))[0] is None


def test_other_arrays_are_refused():
    with pytest.raises(FigureError, match="item"):
        mi.figure(xr.DataArray([1.0], dims="item"))
