"""Who traces a model that nobody has checked is told so, once."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.errors import UncheckedWarning
from mata_interp.lalm import LALM, verification
from tests.cli.test_options import call_main
from tests.tiny import RATE, tiny_qwen2_audio


@pytest.fixture(autouse=True)
def _as_users_have_it(monkeypatch, tmp_path):
    monkeypatch.delenv("MATA_UNCHECKED")
    monkeypatch.setenv("MATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verification, "_warned", set())
    monkeypatch.setattr(verification, "_results", type(verification._results)())


def model(seed: int = 0, dtype=torch.float32) -> LALM:
    hf, processor = tiny_qwen2_audio(seed=seed, layers=2)
    return LALM(hf.to(dtype), processor, name="mine")


ITEM = mi.Item(
    audio=(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), RATE),
    question="Which?",
    choices=("a bell", "no"),
    answer="no",
)


def notes(use) -> list[str]:
    with warnings.catch_warnings(record=True) as outcome:
        warnings.simplefilter("always")
        use()
    return [str(w.message) for w in outcome if issubclass(w.category, UncheckedWarning)]


USES = {
    "trace": lambda lalm: mi.trace(lalm, ITEM, progress=False),
    "sweep": lambda lalm: mi.sweep(lalm, ITEM, [None], progress=False),
    "run": lambda lalm: mi.run(lalm, mi.Items([ITEM], "one", "0" * 64), {"baseline": None}, progress=False),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_told_once_a_model(use):
    one, other = model(0), model(1)
    (note,) = notes(lambda: use(one))
    assert "mine has not been checked" in note
    assert notes(lambda: [u(one) for u in USES.values()]) == []
    assert notes(lambda: use(model(0))) == []  # loaded again, it is the same model
    assert len(notes(lambda: use(other))) == 1


def test_a_check_is_remembered(monkeypatch):
    lalm = model()
    report = None

    def check():
        nonlocal report
        report = mi.check(lalm)

    assert notes(check) == []  # what the check itself traces is not complained about
    assert report.ok
    assert notes(lambda: mi.trace(lalm, ITEM, progress=False)) == []
    monkeypatch.setattr(verification, "_results", {})  # as in another process
    assert verification.was_checked(model()) is True
    assert verification.was_checked(model(1)) is None
    assert verification.was_checked(model(dtype=torch.bfloat16)) is None
    monkeypatch.setattr(verification, "__version__", "another")
    assert verification.was_checked(model()) is None


def test_a_failed_check_is_told_of():
    lalm = model()
    verification.remember_check(lalm, {"ok": False, "lines": []})
    (note,) = notes(lambda: mi.trace(lalm, ITEM, progress=False))
    assert "mine did not pass its check" in note


def test_what_ships_is_never_told_of():
    for name in ("organism", "organism-unbiased"):
        lalm = LALM.from_pretrained(name)
        assert notes(lambda lalm=lalm: mi.trace(lalm, ITEM, progress=False)) == []
        assert len(notes(lambda lalm=lalm: USES["trace"](LALM(lalm.model, lalm.processor, name="mine")))) == 1


def test_silenced_by_filter_and_by_environment(monkeypatch):
    with warnings.catch_warnings(record=True) as outcome:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", UncheckedWarning)
        mi.trace(model(), ITEM, progress=False)
    assert not outcome
    monkeypatch.setenv("MATA_UNCHECKED", "ignore")
    assert notes(lambda: mi.trace(model(1), ITEM, progress=False)) == []


def test_a_record_that_cannot_be_read_or_written_is_none(monkeypatch, tmp_path):
    lalm = model()
    verification.remember_check(lalm, {"ok": True})
    monkeypatch.setattr(verification, "_results", {})
    (record,) = (tmp_path / "cache" / "checked").glob("*.json")
    assert json.loads(record.read_text())["ok"] is True
    record.write_text("{")
    assert verification.was_checked(lalm) is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MATA_CACHE", str(tmp_path / "file"))
    verification.remember_check(lalm, {"ok": True})
    assert verification.was_checked(lalm) is True  # in this process it is known all the same


@pytest.mark.filterwarnings("always::mata_interp.errors.UncheckedWarning")
def test_on_the_command_line_it_is_a_note(tmp_path, monkeypatch, capsys):
    hf, processor = tiny_qwen2_audio(seed=0, layers=2)
    hf.save_pretrained(tmp_path / "mine")
    processor.chat_template = LALM.from_pretrained("organism").processor.chat_template
    processor.save_pretrained(tmp_path / "mine")
    assert call_main(monkeypatch, "trace", "--model", tmp_path / "mine", "--items", "2", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err.count("note: ") == 1
    assert "has not been checked" in printed.err
    json.loads(printed.out)
