"""Forecasts of stages: counts before anything slow, and memory within a factor of what is measured."""

from __future__ import annotations

import pytest

import mata_interp as mi
from mata_interp.experiments.memory_forecast import FACTOR, BatchSize, forecast_memory
from mata_interp.experiments.planning import StageSettings
from mata_interp.experiments.stage_forecast import forecast_layers, forecast_sweep, forecast_trace
from mata_interp.experiments.validation import validate_items
from tests.support.sounds import make_items
from tests.sweeps.counted_memory import counted_peak
from tests.tiny import tiny_qwen2_audio


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=8, splits=("selection", "test"))


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    """Wide enough that tensors, not Python's bookkeeping, decide the peak."""
    return mi.LALM(*tiny_qwen2_audio(seed=1, layers=6, heads=8, kv_heads=4, head_dim=16))


@pytest.fixture(scope="module")
def known(lalm, items):
    return validate_items(lalm, items, progress=False)


SETTINGS = StageSettings(batch_size=8, progress=False)
EDITS = {str(k): mi.Mata(0.01 * k, [1, 2]) for k in range(1, 65)}


def within(measured: int, forecast: int) -> bool:
    return forecast / FACTOR <= measured <= forecast * FACTOR


def test_memory_of_a_sweep(lalm, known):
    forecast = forecast_sweep(lalm, known, EDITS, SETTINGS).memory
    batch = sorted(known.items, key=lambda item: -known.lengths[item.id])[:8]
    peak = counted_peak(lalm.model, lambda: mi.sweep(lalm, batch, EDITS, batch_size=8, progress=False))
    assert forecast.sweep_rows > 0
    assert within(peak, forecast.added), (peak, forecast)


def test_memory_of_a_trace(lalm, known):
    batch = sorted(known.items, key=lambda item: -known.lengths[item.id])[:8]
    for query in ("last", "text"):
        forecast = forecast_trace(lalm, known, SETTINGS, query).memory
        peak = counted_peak(
            lalm.model, lambda query=query: mi.trace(lalm, batch, query, batch_size=8, progress=False)
        )
        assert within(peak, forecast.added), (query, peak, forecast)


def test_memory_of_answers(lalm, known):
    batch = sorted(known.items, key=lambda item: -known.lengths[item.id])[:8]
    prompt = lalm.prompt(batch)
    forecast = mi.forecast(lalm, known.items, {"baseline": None}, batch_size=8, progress=False).memory
    peak = counted_peak(lalm.model, lambda: lalm.score(prompt))
    assert within(peak, forecast.added), (peak, forecast)


def test_weights_and_cache_are_exact(lalm):
    forecast = forecast_memory(lalm, BatchSize(rows=3, width=50, new_tokens=2))
    assert forecast.weights == sum(p.numel() * p.element_size() for p in lalm.model.parameters()) + sum(
        b.numel() * b.element_size() for b in lalm.model.buffers()
    )
    # tokens, keys and values, layers, heads, size, bytes
    assert forecast.cache == 3 * 52 * 2 * 6 * 4 * 16 * 4
    assert forecast.total == forecast.weights + forecast.added


def test_a_study_says_how_many_items_of_each_condition_it_tests(tiny_lalm, items, tmp_path):
    forecast = mi.forecast_study(tiny_lalm, items, tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
    assert [stage.name for stage in forecast.stages] == [
        "choosing layers and alpha",
        "tracing attention",
        "matching the sham",
        "measuring",
        "recording items",
    ]
    sweep, measuring = forecast.stages[0], forecast.stages[-2]
    assert sweep.by_condition == {"conflict": 4}
    assert measuring.by_condition == {"conflict": 4, "congruent": 4, "neutral": 4}
    assert "12 items (4 conflict, 4 congruent, 4 neutral) of 4 recordings" in str(forecast)
    assert forecast.seconds > 0
    assert (forecast.power.items, forecast.power.clips, forecast.power.too_small) == (4, 4, True)
    assert f"needs about {forecast.power.needed:,}" in " ".join(
        str(forecast).replace("that needs", "needs").split()
    )
    assert forecast.memory.total > forecast.memory.weights > 0
    mi.study(tiny_lalm, items, tmp_path / "s", progress=False)
    finished = mi.forecast_study(tiny_lalm, items, tmp_path / "s", progress=False)
    assert finished.seconds == 0
    assert [stage.done == stage.batches for stage in finished.stages] == [True] * 5


def test_batches_that_are_done_are_not_counted(tiny_lalm, items, tmp_path):
    known = validate_items(tiny_lalm, items, progress=False)
    settings = StageSettings(batch_size=4, progress=False)
    folder = tmp_path / "trace.nc.parts"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number:05d}.npz").touch()
    forecast = forecast_trace(tiny_lalm, known, settings, out=tmp_path / "trace.nc")
    assert (forecast.batches, forecast.done) == (6, 2)
    assert forecast.to_dict()["by_condition"] == {"conflict": 8, "congruent": 8, "neutral": 8}
    (tmp_path / "trace.nc").touch()
    assert forecast_trace(tiny_lalm, known, settings, out=tmp_path / "trace.nc").seconds is None


def test_layers_have_a_forecast_too(tiny_lalm, items):
    known = validate_items(tiny_lalm, items[:3], progress=False)
    forecast = forecast_layers(tiny_lalm, known, ["knockout_text", "depth"], SETTINGS)
    assert forecast.items == 3
    assert forecast.seconds is not None
    assert forecast.memory.total > 0


def test_progress_says_it_before_it_starts(tiny_lalm, items, capsys):
    mi.run(tiny_lalm, items, {"baseline": None})
    err = capsys.readouterr().err
    assert "24 items (8 conflict, 8 congruent, 8 neutral) of 8 recordings" in err
    assert "Memory: about" in err
    mi.run(tiny_lalm, items, {"baseline": None}, progress=False)
    assert capsys.readouterr().err == ""
