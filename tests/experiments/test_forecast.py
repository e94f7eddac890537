"""What a run would do and how long it would take: said beforehand, and nothing written."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from mata_interp.errors import InterventionError, RunError, RunWarning
from mata_interp.experiments import Condition, forecast, run
from mata_interp.interventions import Mata
from mata_interp.lalm import Decoding
from tests.support.sounds import make_items

CONDITIONS = {"baseline": None, "mata": Mata(0.5, [1, 2]), "no audio": Condition(audio="none")}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=6)


def test_a_new_run_is_judged_by_a_probe(tiny_lalm, items, tmp_path):
    bad = replace(items[0], id="gone", audio=tmp_path / "gone.wav")
    with pytest.warns(RunWarning, match="1 left out"):
        forecast_of_run = forecast(
            tiny_lalm, [*items, bad], CONDITIONS, tmp_path / "run", batch_size=4, progress=False
        )
    assert not (tmp_path / "run").exists()
    assert (forecast_of_run.items, forecast_of_run.clips, forecast_of_run.excluded) == (18, 6, 1)
    assert (forecast_of_run.batches, forecast_of_run.parts, forecast_of_run.done) == (5, 15, 0)
    assert forecast_of_run.seconds is not None
    assert 0 < forecast_of_run.seconds < 600
    assert forecast_of_run.basis == "a probe of 2 batch(es) on this machine"
    assert "3 conditions (baseline, mata, no audio), 5 batches: 15 parts, 0 of them done." in str(
        forecast_of_run
    )
    assert forecast_of_run.to_dict()["conditions"] == list(CONDITIONS)


def test_a_run_that_was_begun_is_judged_by_its_parts(tiny_lalm, items, tmp_path):
    out = tmp_path / "run"
    run(tiny_lalm, items, CONDITIONS, out, batch_size=2, progress=False)
    for number in range(9):  # each batch took 3 s: 1 s with its own audio, under both conditions, 2 s without
        for name, after in (("baseline", 1), ("mata", 1), ("no-audio", 3)):
            part = out / "parts" / f"{name}--{number:05d}.parquet"
            os.utime(part, (0, 1_000_000 + 3 * number + after))
    written = sorted(path.name for path in (out / "parts").iterdir())
    finished = forecast(tiny_lalm, items, CONDITIONS, out, batch_size=2, progress=False)
    assert (finished.done, finished.seconds, finished.tokens) == (27, None, 0)
    assert "Nothing is left to do." in str(finished)
    for number in (6, 7, 8):
        for name in ("baseline", "mata", "no-audio"):
            (out / "parts" / f"{name}--{number:05d}.parquet").unlink()
    half = forecast(tiny_lalm, items, CONDITIONS, out, batch_size=2, progress=False)
    assert (half.parts, half.done) == (27, 18)
    assert "parts" in half.basis
    assert "probe" not in half.basis
    assert half.seconds == pytest.approx(9, rel=0.3)  # three batches of somewhat shorter prompts
    assert len(list((out / "parts").iterdir())) == len(written) - 9  # nothing was computed


def test_it_refuses_what_the_run_would_refuse(tiny_lalm, items, tmp_path):
    run(tiny_lalm, items[:4], CONDITIONS, tmp_path / "run", progress=False)
    with pytest.raises(RunError, match="seed is 0, here it is 1"):
        forecast(tiny_lalm, items[:4], CONDITIONS, tmp_path / "run", seed=1, progress=False)
    with pytest.raises(RunError, match="data have changed"):
        forecast(tiny_lalm, items[:5], CONDITIONS, tmp_path / "run", progress=False)
    with pytest.raises(InterventionError, match="No attention in layer 99"):
        forecast(tiny_lalm, items, {"a": Mata(0.1, [99])}, progress=False)


def test_words_are_probed_too(tiny_lalm, items):
    few, many = (
        forecast(tiny_lalm, items[:4], {"a": None}, decoding=Decoding(n), progress=False).seconds
        for n in (1, 60)
    )
    assert few is not None
    assert many is not None
    assert many > few
