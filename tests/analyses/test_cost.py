"""The analyses of cost run at a small size and write their results. No times are asserted."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.analyses import ROOT, run_analysis


@pytest.fixture(autouse=True)
def _analyses_importable(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "analyses"), *sys.path])


@pytest.mark.acceptance
def test_instrument_cost(tmp_path):
    result: Any = run_analysis("instrument_cost.py", "--quick", "--out", str(tmp_path))
    assert result["quick"]
    rows = {row["name"]: row for row in result["rows"]}
    assert len(rows) == len(result["rows"])
    for row in rows.values():
        assert row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert rows["plain"]["ratio"] == 1
    assert rows["loop, 100"]["extrapolated"]
    assert rows["loop, 100"]["seconds"] == pytest.approx(10 * rows["loop, 10"]["seconds"])
    assert not rows["loop, 10"]["extrapolated"]
    for name, reached in result["targets_reached"].items():
        assert reached == (rows[name]["ratio"] <= rows[name]["target"])
    assert {"transformers, output_attentions", "transformer-lens, all", "MATA, generate"} <= set(rows)
    assert rows["transformers, generate"]["ratio"] == 1  # the baseline of generation
    assert {"layer criteria, last query", "layer criteria, all"} <= set(rows)
    # two processes that differ only in a trace
    assert rows["trace"]["memory_ratio"] == pytest.approx(1, abs=0.1)
    assert {row["name"] for row in result["operations"]} >= {
        "transformers",
        "attached, MATA in 5 of 12 layers",
    }
    heads = result["heads"]
    assert heads["flops"]["exact map of knockouts, one sweep"] < 2
    for name in ("knockout", "patch"):
        assert heads[name]["low"] <= heads[name]["rho"] <= heads[name]["high"]
        assert heads[name]["items"] + heads[name]["left_out"] == 6
    assert json.loads((tmp_path / "instrument_cost.json").read_text()) == result
    assert (tmp_path / "instrument_cost.csv").exists()
    assert (tmp_path / "instrument_cost.png").read_bytes().startswith(b"\x89PNG")


def test_attribution_patching_is_exact_to_first_order(tmp_path):
    """Audio that is almost the same: the change by each head is then its slope times its difference."""
    import soundfile
    from support.attribution_patching import _changes, as_published, estimated_heads

    import mata_interp as mi
    from mata_interp.fusion.item_context import ItemContext
    from mata_interp.interventions.catalogue import negative_prompt
    from mata_interp.sweeps import patch_configs

    lalm = mi.LALM.from_pretrained("organism")
    for item in mi.load_benchmark("listening").filter(condition="conflict"):
        context = ItemContext.from_item(lalm, item, last_token_only=True, keep_states=False)
        if not context.decision.forced:
            break
    samples = item.load_audio(lalm.sampling_rate).samples
    noise = np.random.default_rng(0).normal(0, 1e-3 * float(np.abs(samples).max()), len(samples))
    clip = str(tmp_path / "almost.wav")
    soundfile.write(clip, samples + noise, lalm.sampling_rate, subtype="FLOAT")
    prompt, decision = context.prompt, context.decision
    other = lalm.prepare(negative_prompt(lalm, prompt, "another", clip))
    estimated = as_published(lalm, prompt, other, decision).numpy()
    configurations = patch_configs(lalm, "head_output", negative="another", clip=clip)
    exact = _changes(lalm, prompt, decision, configurations)
    assert np.abs(exact).max() > 1e-4
    np.testing.assert_allclose(estimated, exact, atol=0.1 * np.abs(exact).max())
    assert np.corrcoef(estimated.ravel(), exact.ravel())[0, 1] > 0.99
    # the same slopes, times the change by a knockout
    gradient = context.last_token_trace.gradients
    assert estimated_heads(context).shape == exact.shape == (len(gradient), exact.shape[1])


@pytest.mark.acceptance
def test_long_audio(tmp_path, monkeypatch):
    """One point is measured in a process of its own, one that does not fit is calculated; both are drawn."""
    import long_audio

    measured = long_audio.row("trace, text queries", 20, busy=True)
    assert measured["measured"]
    assert measured["tokens"] == 551
    assert 0.1 < measured["gigabytes"] < 2
    monkeypatch.setattr(long_audio, "free_bytes", lambda device: 10**7)
    beyond = long_audio.row(long_audio.EAGER, 640, busy=True)
    assert not beyond["measured"]
    assert beyond["gigabytes"] == pytest.approx(4 * 8 * beyond["tokens"] ** 2 * 14 / 1e9)
    long_audio.draw(pd.DataFrame([measured, beyond]), tmp_path / "long_audio.png")
    assert (tmp_path / "long_audio.png").read_bytes().startswith(b"\x89PNG")


def test_long_audio_continues_an_interrupted_run(tmp_path, monkeypatch):
    import long_audio
    import typer

    measured = []

    def row(method, seconds, busy):
        measured.append((method, seconds))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return {"method": method, "audio_seconds": seconds, "seconds": 1.0}

    monkeypatch.setattr(long_audio, "row", row)
    saved = tmp_path / "points.jsonl"
    with pytest.raises(KeyboardInterrupt):
        long_audio.points(saved, 20, True, False)
    saved.write_text(saved.read_text() + '{"method": "plain')  # an incomplete line
    outcome = long_audio.points(saved, 20, True, False)
    assert [point["method"] for point in outcome] == list(long_audio.METHODS)
    assert len(measured) == 1 + len(long_audio.METHODS)  # the third, twice
    assert long_audio.points(saved, 20, True, False) == outcome
    assert len(measured) == 1 + len(long_audio.METHODS)
    with pytest.raises(typer.BadParameter, match=r"'clock': 'processor'"):
        long_audio.points(saved, 20, False, False)
    long_audio.points(saved, 20, False, True)
    assert len(measured) == 1 + 2 * len(long_audio.METHODS)


@pytest.mark.acceptance
def test_long_audio_in_whole(tmp_path):
    rows = run_analysis("long_audio.py", "--longest", "40", "--out", str(tmp_path))
    assert len(rows) == 12
    assert {row["tokens"] for row in rows} == {551, 1053}
    assert all(row["measured"] and row["gigabytes"] > 0.1 for row in rows)
    assert (tmp_path / "long_audio.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.acceptance
def test_memory_grows_with_the_tokens_and_not_with_their_square():
    """4,000 tokens more are 0.8 GB of weights a layer to whoever keeps a T x T matrix of 12 layers."""
    from long_audio import row

    for method in ("trace, last query", "trace, text queries", "sweep of 100 configurations"):
        short, long = (row(method, seconds, busy=True)["gigabytes"] for seconds in (20, 160))
        assert isinstance(short, float)
        assert isinstance(long, float)
        assert long - short < 0.6, method


def test_rivals_are_the_same_model_and_ask_pip_for_nothing(monkeypatch):
    """What is compared computes the same; transformer-lens' boot is kept from installing torchvision."""
    import subprocess

    from support.medium import ask, medium_lalm
    from support.rivals import rival

    def refuse(*arguments, **_):
        raise AssertionError(f"{arguments} was run")

    monkeypatch.setattr(subprocess, "check_call", refuse)
    lalm = medium_lalm()
    prompt = ask(lalm, 1.0)
    with torch.inference_mode():
        plain = lalm.model(**prompt.inputs).logits
        eager = rival("transformers, output_attentions", 1.0)()
        logits, cache = rival("transformer-lens, patterns", 1.0)()
        torch.testing.assert_close(eager.logits, plain, atol=1e-4, rtol=0)
        torch.testing.assert_close(logits, plain, atol=1e-4, rtol=0)
        patterns = [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(12)]
        for actual, reference in zip(patterns, eager.attentions, strict=True):
            torch.testing.assert_close(actual, reference, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="'mine'"):
        rival("mine", 1.0)


def test_tasks_take_turns():
    from support.measuring import interleaved, quartiles

    done: list[str] = []
    clock = iter(range(1000))
    tasks = {name: lambda name=name: done.append(name) for name in ("a", "b", "seldom")}
    seconds = interleaved(tasks, 3, {"seldom": 1}, clock=lambda: next(clock))
    assert done == ["a", "b", "seldom", "a", "b", "seldom", "b", "a", "a", "b"]
    assert seconds["a"].tolist() == [1, 1, 1]
    assert np.isnan(seconds["seldom"][1:]).all()
    assert quartiles(np.array([1, 2, 3, 4, 5, np.nan])) == (2, 3, 4)


def test_a_childs_peak_is_its_own():
    """Not that of its parent, which ``ru_maxrss`` would tell here on Linux."""
    from support.measuring import in_own_process, peak_bytes

    ballast = np.ones(500_000_000 // 8)
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from support.measuring import peak_bytes\n"
        "print(json.dumps({'peak': peak_bytes()}))"
    )
    outcome = in_own_process("-c", script, str(ROOT / "analyses"))
    assert outcome is not None
    assert outcome["peak"] < 300e6 < ballast.nbytes < peak_bytes()
    with pytest.raises(RuntimeError, match="no such thing"):
        in_own_process("-c", "raise SystemExit('no such thing')")
