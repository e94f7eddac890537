"""Every stage on a real Ray cluster of this machine that declares eight GPUs: the bytes of one process."""

from __future__ import annotations

import pandas as pd
import pytest

import mata_interp as mi
from mata_interp.execution.ray_backend import _demand, open_cluster
from mata_interp.execution.serialization import loading_arguments
from mata_interp.fusion.recommend import DECIDING
from tests.reporting.small import write_model
from tests.support.sounds import make_items

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mata-interp[ray]'")

STORE = 80_000_000  # bytes; the least that Ray takes is 75 MiB
PAIRS = mi.RayWorkers(workers=2, gpus=4)  # two workers, each with a group of four GPUs


@pytest.fixture
def eight_gpus(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written to the home folder
    ray.init(num_cpus=8, num_gpus=8, object_store_memory=STORE, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def lalm(tmp_path_factory) -> mi.LALM:
    """A model that workers reload from its folder, with options that are not the defaults."""
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    return mi.LALM.from_pretrained(folder, device="cpu", attn_implementation="eager")


def test_workers_reload_with_the_same_options(lalm):
    arguments = loading_arguments(lalm)
    assert arguments == {"name": lalm.name, "attn_implementation": "eager"}  # each uses the GPUs it is given
    again = mi.LALM.from_pretrained(**arguments)
    assert again.fingerprint() == lalm.fingerprint()
    split = mi.LALM.from_pretrained(lalm.name, device_map="cpu", dtype="bf16")
    split.model.hf_device_map = {"audio_tower": 0, "language_model": 1}
    assert loading_arguments(split) == {"name": lalm.name, "device_map": "auto", "dtype": "bf16"}


@pytest.mark.acceptance
def test_trace_sweep_and_layers(eight_gpus, lalm, tmp_path):
    assert _demand(ray.cluster_resources(), mi.RayWorkers(gpus=4)) == (2, {"num_cpus": 1, "num_gpus": 4})
    items = make_items(tmp_path, clips=3)
    edits = mi.window_configs(lalm, (0.5, 2.0))
    criteria = [*DECIDING, "restoration_audio"]

    def compute(where: str, ray) -> None:
        settings = {"batch_size": 2, "progress": False, "ray": ray}
        mi.trace(lalm, items, out=tmp_path / f"trace-{where}", **settings)
        mi.sweep(lalm, items, edits, out=tmp_path / f"sweep-{where}", **settings)
        mi.fusion_layers(lalm, items, criteria=criteria, out=tmp_path / f"layers-{where}", **settings)

    compute("here", False)
    with open_cluster(lalm, PAIRS) as cluster:  # the workers load the model once, for all three
        compute("there", cluster)
    for name in ("trace", "sweep", "layers"):
        assert (tmp_path / f"{name}-there").read_bytes() == (tmp_path / f"{name}-here").read_bytes()
    assert ray.is_initialized()  # what was open before is left open


@pytest.mark.acceptance
def test_a_study(eight_gpus, lalm, tmp_path):
    items = make_items(tmp_path, clips=8, splits=("selection", "test"))
    settings = {"batch_size": 3, "progress": False}
    here = mi.study(lalm, items, tmp_path / "here", **settings)
    there = mi.study(lalm, items, tmp_path / "there", ray=PAIRS, **settings)
    pd.testing.assert_frame_equal(there.records, here.records, check_exact=True)
    assert there.effects == here.effects
    assert there.trace.identical(here.trace)
    assert (tmp_path / "there" / "sham.json").read_bytes() == (tmp_path / "here" / "sham.json").read_bytes()
