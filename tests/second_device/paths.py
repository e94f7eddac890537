"""Every public path of the package, as functions from a model and some items to plain numbers and texts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mata_interp as mi
from mata_interp.interventions.catalogue import Aad, Array, InstABoost, Steering
from mata_interp.lalm import LALM
from tests.second_device import accelerator
from tests.support.sounds import make_items

__all__ = ["LONG", "PATHS", "Path_"]

Result = dict[str, Any]
"""Names of results -> arrays of numbers, or whatever has to be equal."""

Path_ = Callable[[LALM, Sequence[mi.Item]], Result]

MATA = mi.Mata(1.0, [1, 2])
EDITS = {
    "mata": MATA,
    "heads": mi.Mata(2.0, [0, 3], "add", heads={0: [1], 3: [0, 2]}),
    "both": (MATA, mi.Mata(-1.0, [2, 3], "add", keys="text")),
    "knockout": mi.Knockout([3]),
}
ON_TEXT = {"text": mi.Mata(1.0, [1], queries="text"), "knockout text": mi.Knockout([1, 3], queries="text")}


def numbers(values: Any) -> np.ndarray:
    """As float64 on the CPU."""
    return np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64)


def prompt(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    made = lalm.prompt(items)
    devices = {x.device for x in (*made.inputs.values(), *made.groups.values()) if hasattr(x, "device")}
    assert devices == {lalm.device}, devices
    return {"tokens": numbers(made.inputs["input_ids"]), "features": numbers(made.inputs["input_features"])}


def logits(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    made = lalm.prompt(items)
    outcome = {
        name: numbers(lalm.logits(made, edit)) for name, edit in {"plain": None, **EDITS, **ON_TEXT}.items()
    }
    unchanged = torch.equal(lalm.logits(made, mi.Mata(0.0, [1, 2])), lalm.logits(made))
    return outcome | {"alpha 0 leaves every bit": unchanged}


def other_sites(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    made = lalm.prompt(items)
    size = lalm.model.config.get_text_config().hidden_size
    turned = Steering((0, 3), directions=Array(torch.linspace(-1, 1, size).expand(2, -1)))
    methods = {"weights": InstABoost((1, 3)), "residual": turned, "logits": Aad()}
    return {name: numbers(lalm.logits(made, method)) for name, method in methods.items()}


def generate(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    outcome: Result = {}
    for name, edit in {"plain": None, "mata": MATA, "text": ON_TEXT["text"]}.items():
        answers = lalm.answer(items, edit, max_new_tokens=5)
        outcome[name] = (answers.texts, answers.tokens.tolist())
        outcome |= {f"{name} {dose}": values for dose, values in answers.dose.items()}
    return outcome


def sample(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    tokens = lalm.generate(items, MATA, max_new_tokens=5, temperature=1.0, top_k=20, seed=3)
    return {"tokens": tokens.tolist()}


def score(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    outcome: Result = {}
    edits = {"plain": None, **EDITS, **ON_TEXT}
    scores = lalm.score_each(lalm.prompt(items), [item.choices for item in items], list(edits.values()))
    for name, one in zip(edits, scores, strict=True):
        outcome[name] = one.logprob
        outcome |= {f"{name} {dose}": values for dose, values in one.dose.items()}
    return outcome


def trace(query: str) -> Path_:
    def path(lalm: LALM, items: Sequence[mi.Item]) -> Result:
        outcome: Result = {}
        for per_query in (False, True):
            traced = mi.trace(lalm, items, query, 2, False, per_query=per_query, max_new_tokens=3)
            for name in ("mass", "n_tokens", "n_queries"):
                outcome[f"{name} {per_query}"] = traced[name].values
        return outcome

    return path


def sweep(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    return _swept(lalm, items, EDITS)


def sweep_text(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    return _swept(lalm, items, EDITS | ON_TEXT)


def _swept(lalm: LALM, items: Sequence[mi.Item], edits: dict[str, Any]) -> Result:
    options = mi.sweep(lalm, items, {"none": None, **edits}, batch_size=2, progress=False)
    logits = mi.sweep(lalm, lalm.prompt(items), {"none": None, **edits}, progress=False)
    assert options.attrs["looped"] == logits.attrs["looped"] == 0, options.attrs["culprits"]
    return {"options": options.values, "logits": logits.values}


def sweep_generate(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    decoding = mi.Decoding(max_new_tokens=3)
    swept = mi.sweep_generate(lalm, items, EDITS, decoding=decoding, progress=False)
    assert swept.attrs["looped"] == 0
    return {"tokens": swept["tokens"].values, "texts": swept["text"].values.tolist()}


def fusion_layers(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    return _fusion(lalm, items, None)


def fusion_layers_baseline(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    return _fusion(lalm, items, (MATA, mi.Mata(0.5, [3], queries="text")))


def _fusion(lalm: LALM, items: Sequence[mi.Item], baseline: Any) -> Result:
    profile = mi.fusion_layers(lalm, items, baseline=baseline, progress=False)
    outcome = {
        str(name): profile.profiles.sel(criterion=name).values
        for name in profile.profiles["criterion"].values
    }
    outcome["heads"] = np.zeros(0) if profile.heads is None else profile.heads.values
    return outcome | {"refused": dict(profile.refused), "excluded": profile.excluded}


def check(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    report = mi.check(lalm)
    assert report.ok, str(report)
    return {result.name: result.verdict for result in report.results if "transformer-lens" not in result.name}


def check_in_any_order(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    """On a device whose kernels sum in any order, nothing has to be equal bit for bit; the report says so."""
    with accelerator.sum_in_any_order():
        report = mi.check(lalm)
    assert report.ok, str(report)
    exact = "alpha 0 leaves logits unchanged"
    if lalm.device.type != "cpu":
        assert report[exact].bound > 0, str(report)
        assert f"8 more plain forward passes on {lalm.device} differ by up to" in report[exact].measured
    return {}


def study(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        items = make_items(Path(folder), clips=4, splits=("selection", "confirmation"))
        out = Path(folder, "study")
        done = mi.study(lalm, items, out, layers=[1, 2], batch_size=4, progress=False)
    records, effects = done.records, done.effects.to_frame()
    result: Result = {name: records[name].to_numpy(dtype=float) for name in ("margin", "dose_kl")}
    largest = np.nanmax(np.abs(result["margin"]))  # effects are differences of margins, and as exact as these
    for name in ("difference", "low", "high"):
        result[name] = effects[name].to_numpy(dtype=float) / largest
    names = [row.comparison.name for row in done.effects.rows]
    return result | {"conditions": records["condition"].tolist(), "effects": names}


def listen(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    item = items[0]
    clip = item.load_audio(lalm.sampling_rate)
    result = mi.listen(lalm, (clip.samples, clip.rate), item.question, item.choices, alpha=1.0, layers=[1, 2])
    return {
        "attention": result.attention,
        "before": result.before,
        "after": result.after,
        "share": result.share,
    }


def fingerprint(lalm: LALM, items: Sequence[mi.Item]) -> Result:
    return {"fingerprint": lalm.fingerprint()}


PATHS: dict[str, Path_] = {
    "prompt": prompt,
    "logits": logits,
    "other sites": other_sites,
    "generate": generate,
    "sample": sample,
    "score": score,
    "trace last": trace("last"),
    "trace text": trace("text"),
    "trace generated": trace("generated"),
    "sweep": sweep,
    "sweep text": sweep_text,
    "sweep answers": sweep_generate,
    "fusion layers": fusion_layers,
    "fusion layers with a baseline": fusion_layers_baseline,
    "listen": listen,
    "fingerprint": fingerprint,
    "check": check,
    "check in any order": check_in_any_order,
    "study": study,
}

LONG = ("fusion layers with a baseline", "check", "check in any order", "study")
"""Paths that take seconds."""
