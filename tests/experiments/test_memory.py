"""A batch that does not fit is halved: the same numbers, and it is recorded."""

from __future__ import annotations

import numpy as np
import pytest

from mata_interp.errors import RunError
from mata_interp.experiments import Condition, run
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM, Decoding
from tests.support.small_memory import ERRORS, SmallMemory
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio

MATA = Mata(alpha=2.0, layers=[1, 2], rule="add")
CONDITIONS = {
    "baseline": None,
    "mata": MATA,
    "other audio": Condition(MATA, audio="other"),
    "no audio": Condition(audio="none"),
    "words": Condition(MATA, decoding=Decoding(6, temperature=1.0)),
}
# sums of log-probabilities, tens of nats large, where float32 is 2e-6 coarse
ATOL, RTOL = 1e-5, 2e-6


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=3)


@pytest.fixture(scope="module")
def undisturbed(tiny_lalm, items):
    return run(tiny_lalm, items, CONDITIONS, batch_size=7, progress=False).records


@pytest.mark.parametrize("error", ERRORS)
def test_halves_give_the_same_records_and_say_so(undisturbed, items, error, tmp_path):
    model, processor = tiny_qwen2_audio(seed=0)
    lalm = LALM(model, processor)
    with SmallMemory(model, rows=3, error=error) as small:
        records = run(lalm, items, CONDITIONS, tmp_path / "run", batch_size=7, progress=False).records
    assert small.refused > 0
    assert set(undisturbed["rows_together"]) == {7, 2}  # 9 items
    assert set(records["rows_together"]) == {3, 2}  # 7 is 4 + 3, and 4 is 2 + 2
    numbers = records.select_dtypes("number").columns.difference(["rows_together"])
    for name in numbers:
        np.testing.assert_allclose(records[name], undisturbed[name], RTOL, ATOL, err_msg=name)
    for name in ("logprob", "tokens"):
        for here, there in zip(records[name], undisturbed[name], strict=True):
            if there is not None:
                np.testing.assert_allclose(here, there, RTOL, ATOL)
    for name in ("item", "condition", "predicted", "correct", "text", "audio_from", "padded_width"):
        same = (records[name] == undisturbed[name]) | (records[name].isna() & undisturbed[name].isna())
        assert same.all(), name


def test_an_item_that_does_not_fit_alone_is_named(items, tmp_path):
    model, processor = tiny_qwen2_audio(seed=0)
    with SmallMemory(model, rows=0), pytest.raises(RunError, match=r"item 'clip\d\d-\w+', \d+ tokens long"):
        run(LALM(model, processor), items, CONDITIONS, tmp_path / "run", progress=False)


def test_other_errors_are_not_taken_for_it(items, tmp_path, monkeypatch):
    model, processor = tiny_qwen2_audio(seed=0)
    monkeypatch.setitem(ERRORS, "cuda", lambda: RuntimeError("a bug"))
    with SmallMemory(model, rows=0) as small, pytest.raises(RuntimeError, match="a bug"):
        run(LALM(model, processor), items, CONDITIONS, tmp_path / "run", progress=False)
    assert small.refused == 2  # one pass for each kind of prefill, of the whole batch: it was not halved
