"""Sweeps, maps and answers through a file and back."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mata_interp as mi
from mata_interp.errors import ArgumentError
from tests.sweeps.test_sweep import ITEMS
from tests.tiny import tiny_qwen2_audio


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3))


MAKE = {
    "named": lambda lalm: mi.sweep(lalm, ITEMS, {"none": None, "Ä": mi.Mata(1.0, [1])}, progress=False),
    "numbered": lambda lalm: mi.sweep(lalm, ITEMS, [None, mi.Mata(1.0, [1])], progress=False),
    "prompts": lambda lalm: mi.sweep(lalm, lalm.prompt(ITEMS), [None], progress=False),
    "generated": lambda lalm: mi.sweep_generate(
        lalm, ITEMS, {"none": None}, decoding=mi.Decoding(3), progress=False
    ),
    "margins": lambda lalm: mi.margin(mi.sweep(lalm, ITEMS, [None], progress=False)),
}


@pytest.mark.parametrize("kind", MAKE)
def test_it_comes_back_exactly(lalm, tmp_path, kind):
    swept = MAKE[kind](lalm)
    back = mi.load_sweep(mi.save_sweep(swept, tmp_path / "new" / "sweep.nc"))
    assert type(back) is type(swept)
    xr.testing.assert_identical(back, swept)
    assert {n: type(v) for n, v in back.attrs.items()} == {n: type(v) for n, v in swept.attrs.items()}
    arrays = back.data_vars if isinstance(back, xr.Dataset) else {"": back}
    expected = swept.data_vars if isinstance(swept, xr.Dataset) else {"": swept}
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array.values, expected[name].values)
    for name, coordinate in back.coords.items():
        assert coordinate.dtype == swept.coords[name].dtype
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sweep.nc"]


def test_other_tools_read_it(lalm, tmp_path):
    swept = MAKE["named"](lalm)
    stored = xr.open_dataset(mi.save_sweep(swept, tmp_path / "sweep.nc"), engine="scipy")
    np.testing.assert_array_equal(stored["sweep"].values, swept.values)
    assert stored.attrs["model"] == lalm.name


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(ArgumentError, match=r"text\.nc"):
        mi.load_sweep(tmp_path / "text.nc")
    with pytest.raises(ArgumentError, match=r"gone\.nc"):
        mi.load_sweep(tmp_path / "gone.nc")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="scipy")
    with pytest.raises(ArgumentError, match=r"other\.nc"):
        mi.load_sweep(tmp_path / "other.nc")
