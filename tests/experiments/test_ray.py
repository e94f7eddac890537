"""Runs on a real Ray cluster of this machine: the same parts as one process, whoever dies."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from mata_interp.errors import ItemError, RunError, RunWarning
from mata_interp.execution import RayWorkers
from mata_interp.execution.ray_backend import _demand
from mata_interp.execution.serialization import deserialize_model, loading_arguments, serialize_model
from mata_interp.execution.worker_pool import WorkerPool
from mata_interp.experiments import Condition, load_run, run
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM, Decoding
from tests.support.sounds import make_items

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mata-interp[ray]'")

MATA = Mata(alpha=0.5, layers=[1, 2])
CONDITIONS = {
    "baseline": None,
    "mata": MATA,
    "other audio": Condition(MATA, audio="other"),
    "words": Condition(MATA, decoding=Decoding(6, temperature=1.0)),
}
STORE = 80_000_000  # bytes; the least that Ray takes is 75 MiB


@pytest.fixture(autouse=True, scope="module")
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written to the home folder
        yield


@pytest.fixture
def one_node():
    """A cluster of this machine with room for one worker."""
    ray.init(num_cpus=1, num_gpus=0, object_store_memory=STORE, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=6)


def parts_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "parts").iterdir()}


def test_one_worker_writes_what_one_process_writes(one_node, tiny_lalm, items, tmp_path, monkeypatch):
    few = {name: CONDITIONS[name] for name in ("mata", "words")}
    monkeypatch.chdir(items[0].audio.parent)  # relative paths mean this folder, whatever a worker's is
    items = [replace(item, audio=item.audio.name, audio_root=(None, ".")[n % 2])
             for n, item in enumerate(items)]  # fmt: skip
    here = run(tiny_lalm, items[:6], few, tmp_path / "here", batch_size=3, progress=False)
    there = run(
        tiny_lalm, items[:6], few, tmp_path / "there", batch_size=3, progress=False, ray=RayWorkers(workers=1)
    )
    assert parts_of(tmp_path / "there") == parts_of(tmp_path / "here")
    pd.testing.assert_frame_equal(there.records, here.records, check_exact=True)
    assert ray.is_initialized()  # what was open before is left open
    finished = run(tiny_lalm, items[:6], few, tmp_path / "there", batch_size=3, progress=False, ray=True)
    assert finished.missing == 0


def test_a_serialized_model_is_the_same_model(tiny_lalm, items):
    assert loading_arguments(tiny_lalm) is None
    payload = serialize_model(tiny_lalm)
    again = deserialize_model(payload)
    assert again.fingerprint() == tiny_lalm.fingerprint()
    prompt = tiny_lalm.prompt(items[:3])
    assert torch.equal(again.logits(prompt, MATA), tiny_lalm.logits(prompt, MATA))
    with torch.no_grad():
        next(again.model.parameters()).zero_()  # a copy of its own
    assert deserialize_model(payload).fingerprint() == tiny_lalm.fingerprint()


def test_as_many_workers_as_there_is_room_for():
    eight = {"CPU": 64.0, "GPU": 8.0}
    assert _demand(eight, RayWorkers()) == (8, {"num_cpus": 1, "num_gpus": 1.0})
    assert _demand(eight, RayWorkers(gpus=0.5))[0] == 16
    assert _demand(eight, RayWorkers(gpus=2)) == (4, {"num_cpus": 1, "num_gpus": 2})
    assert _demand(eight, RayWorkers(cpus=32))[0] == 2
    assert _demand(eight, RayWorkers(workers=3))[0] == 3
    assert _demand({"CPU": 4.0}, RayWorkers()) == (4, {"num_cpus": 1, "num_gpus": 0.0})
    assert _demand({}, RayWorkers())[0] == 1  # waits for a cluster that grows


def test_without_ray_it_is_said(tiny_lalm, items, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"mata-interp\[ray\]"):
        run(tiny_lalm, items[:3], {"a": None}, tmp_path / "run", progress=False, ray=True)


@pytest.fixture
def three_nodes():
    """A head without room for workers, and two nodes with room for one each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False},
    )
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.acceptance
def test_a_node_is_killed_midway(three_nodes, items, tmp_path, monkeypatch):
    """The other goes on, with the batch that was in hand; the parts are those of one process."""
    cluster, nodes = three_nodes
    organism = LALM.from_pretrained("organism")
    arguments = loading_arguments(organism)
    assert arguments is not None
    assert arguments["name"] == "organism"
    conditions = {name: replace(c, decoding=None) if isinstance(c, Condition) else c
                  for name, c in CONDITIONS.items()}  # fmt: skip
    run(organism, items, conditions, tmp_path / "here", batch_size=1, progress=False)
    out = tmp_path / "there"
    registered, register, killed = [], WorkerPool._register, threading.Event()
    monkeypatch.setattr(
        WorkerPool,
        "_register",
        lambda self, reference: (register(self, reference), registered.append(reference)),
    )

    def kill() -> None:
        while len(registered) < 2 or len(list((out / "parts").glob("*.parquet"))) < 10:
            time.sleep(0.01)
        cluster.remove_node(nodes[0], allow_graceful=False)
        killed.set()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with pytest.warns(RunWarning, match=r"Ray worker died.* batch \d+"):
        run(organism, items, conditions, out, batch_size=1, progress=False, ray=True)
    assert killed.is_set()
    assert parts_of(out) == parts_of(tmp_path / "here")
    pd.testing.assert_frame_equal(
        load_run(out).records, load_run(tmp_path / "here").records, check_exact=True
    )


@pytest.mark.acceptance
def test_errors_of_workers_are_those_of_one_process(one_node, tiny_lalm, items, tmp_path, monkeypatch):
    moved = [replace(item, audio=(item.load_audio(16_000).samples, 16_000)) for item in items[:3]]
    lost = tmp_path / "lost.wav"
    lost.write_bytes(items[3].audio.read_bytes())
    batch = [*moved, replace(items[3], audio=lost)]
    start = WorkerPool._start

    def lose(self, queued):
        lost.unlink(missing_ok=True)
        start(self, queued)

    monkeypatch.setattr(WorkerPool, "_start", lose)
    with pytest.raises(ItemError, match=r"item 'clip01-neutral', field 'audio': no such file"):
        run(tiny_lalm, batch, {"a": None}, tmp_path / "run", batch_size=1, progress=False, ray=True)


DRIVER = """
import sys
from pathlib import Path
import torch
from mata_interp.execution import RayWorkers
from mata_interp.experiments import run
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio

torch.set_num_threads(1)
folder = Path(sys.argv[1])
run(LALM(*tiny_qwen2_audio(seed=0)), make_items(folder), {"baseline": None, "mata": Mata(0.5, [1, 2])},
    folder / "run", batch_size=1, progress=False, ray=RayWorkers(workers=1))
"""


@pytest.mark.acceptance
def test_the_process_that_started_it_is_killed(tiny_lalm, tmp_path):
    """Its cluster ends with it, and the same run goes on without Ray, bit for bit."""
    out = tmp_path / "run"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], start_new_session=True)
    deadline = time.monotonic() + 300
    while len(list((out / "parts").glob("*.parquet"))) < 4:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    driver.kill()
    driver.wait()
    while raylets := raylets_started_after(driver.pid):
        assert time.monotonic() < deadline, raylets
        time.sleep(0.2)
    torch.set_num_threads(1)
    conditions, items = {"baseline": None, "mata": MATA}, make_items(tmp_path)
    with pytest.warns(RunWarning, match="are missing"):
        assert 0 < load_run(out).missing < 36
    again = run(tiny_lalm, items, conditions, out, batch_size=1, progress=False)
    run(tiny_lalm, items, conditions, tmp_path / "alone", batch_size=1, progress=False)
    assert again.missing == 0
    assert parts_of(out) == parts_of(tmp_path / "alone")


def raylets_started_after(process: int) -> list[str]:
    """Ray's own processes in the session of a process that is gone."""
    commands = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, ValueError):
            continue
        if session == process and command:
            commands.append(command[:80])
    return commands
