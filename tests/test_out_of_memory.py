"""Where memory runs out, batches are halved: the numbers are those of the unbroken run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import xarray as xr

import mata_interp as mi
from mata_interp.benchmarks import Items
from mata_interp.errors import RunError
from mata_interp.experiments.results import read_trace
from mata_interp.experiments.sweep_file import read_sweep
from mata_interp.lalm.verification import was_checked
from mata_interp.sweeps import shared_prefill
from tests.support.small_memory import SmallMemory
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio

ATOL, RTOL = 1e-5, 2e-6
EDITS = {"none": None, **{f"{k}": mi.Mata(0.2 * k, [1, 2], "add") for k in range(1, 8)}}


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> Items:
    return Items.from_records(make_items(tmp_path_factory.mktemp("clips"), clips=2)[:5], "made")


@pytest.fixture
def small() -> Iterator[SmallMemory]:
    """A model that takes two rows at once and has not yet been used."""
    model, _ = tiny_qwen2_audio(seed=0)
    with SmallMemory(model, rows=2) as memory:
        memory.lalm = mi.LALM(model, tiny_qwen2_audio(seed=0)[1])
        yield memory
    assert memory.refused


def same(actual: xr.DataArray | xr.Dataset, reference: xr.DataArray | xr.Dataset) -> None:
    xr.testing.assert_allclose(actual, reference, RTOL, ATOL)
    assert list(actual["item"].values) == list(reference["item"].values)


@pytest.mark.parametrize("per_query", [False, True])
@pytest.mark.parametrize("query", ["last", "text", "generated"])
def test_a_trace(tiny_lalm, small, items, query, per_query):
    options = {"query": query, "per_query": per_query, "max_new_tokens": 4, "progress": False}
    same(mi.trace(small.lalm, items, **options), mi.trace(tiny_lalm, items, **options))


def test_a_trace_of_a_ready_made_prompt(tiny_lalm, small, items):
    inputs = tiny_lalm.prompt(items).inputs
    ready = [lalm.prompt_from_inputs(inputs) for lalm in (tiny_lalm,)]
    reference = mi.trace(tiny_lalm, ready, progress=False)
    same(mi.trace(small.lalm, ready, progress=False), reference)


def test_a_sweep_of_items(tiny_lalm, small, items):
    swept = mi.sweep(small.lalm, items, EDITS, progress=False)
    same(swept, mi.sweep(tiny_lalm, items, EDITS, progress=False))
    assert swept.attrs["looped"] == 0


def test_a_sweep_of_prompts(tiny_lalm, small, items):
    reference = mi.sweep(tiny_lalm, tiny_lalm.prompt(items), EDITS, progress=False)
    same(mi.sweep(small.lalm, small.lalm.prompt(items), EDITS, progress=False), reference)


def test_configurations_are_halved_before_prompts(tiny_lalm, items):
    """Rows of a sweep stand side by side, as tokens of a prompt do: here five fit, and there are nine."""
    model, processor = tiny_qwen2_audio(seed=0)
    prompt = tiny_lalm.prompt(items[:2])
    reference = mi.sweep(tiny_lalm, prompt, EDITS, progress=False)
    lalm = mi.LALM(model, processor)
    prefills = []
    decoder = model.get_decoder()
    decoder.register_forward_pre_hook(
        lambda _, args, kwargs: prefills.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    mi.sweep(lalm, prompt, EDITS, progress=False)  # the first also looks where the audio goes
    prefills.clear()

    class RowsOnly(SmallMemory):
        def _refuse(self, module, args, kwargs):
            if args[0].shape[1] < prompt.width:
                super()._refuse(module, args, kwargs)

    with RowsOnly(model, tokens=5, layer=2) as small:
        swept = mi.sweep(lalm, prompt, EDITS, progress=False)
    assert small.refused
    assert prefills.count(prompt.width) == 1
    same(swept, reference)


def test_generated_answers(tiny_lalm, small, items):
    how = mi.Decoding(4)
    actual, reference = (
        mi.sweep_generate(lalm, items, EDITS, decoding=how, progress=False)
        for lalm in (small.lalm, tiny_lalm)
    )
    assert actual.identical(reference) or (actual["text"].values == reference["text"].values).all()


def test_fusion_layers(tiny_lalm, small, items):
    """Of two clips; rows of restoration are halved, of which there are sixteen at once."""
    options = {"criteria": ["knockout_last", "restoration_text"], "progress": False}
    actual, reference = (mi.fusion_layers(lalm, items[::3], **options) for lalm in (small.lalm, tiny_lalm))
    xr.testing.assert_allclose(actual.profiles, reference.profiles, 1e-4, 1e-5)
    assert actual.window == reference.window


@pytest.mark.acceptance
def test_every_stage_of_a_study(tiny_lalm, small, tmp_path):
    made = make_items(tmp_path, clips=8, splits=("selection", "test"))
    actual, reference = (
        mi.study(lalm, Items.from_records(made, "made"), tmp_path / name, progress=False)
        for lalm, name in ((small.lalm, "small"), (tiny_lalm, "large"))
    )
    for read, file in ((read_sweep, "selection.nc"), (read_trace, "trace.nc")):
        same(read(actual.path / file), read(reference.path / file))
    assert actual.study.selection.sham.kl == pytest.approx(reference.study.selection.sham.kl, rel=1e-5)
    assert actual.study.selection.chosen == reference.study.selection.chosen
    np.testing.assert_allclose(actual.records["margin"], reference.records["margin"], RTOL, ATOL)


@pytest.mark.parametrize(
    "call",
    [
        lambda lalm, items: mi.trace(lalm, items, progress=False),
        lambda lalm, items: mi.sweep(lalm, items, EDITS, progress=False),
        lambda lalm, items: mi.sweep_generate(lalm, items, EDITS, progress=False),
        lambda lalm, items: mi.fusion_layers(lalm, items, criteria=["depth"], progress=False),
    ],
    ids=["trace", "sweep", "generate", "fusion"],
)
def test_an_item_that_does_not_fit_alone_is_named(items, call):
    model, processor = tiny_qwen2_audio(seed=0)
    with SmallMemory(model, rows=0), pytest.raises(RunError, match=rf"item '{items[0].id}'"):
        call(mi.LALM(model, processor), items)


def test_the_check_says_that_memory_ran_out_and_nothing_of_the_model(items, tmp_path, monkeypatch):
    monkeypatch.setenv("MATA_CACHE", str(tmp_path))
    model, processor = tiny_qwen2_audio(seed=7)
    lalm = mi.LALM(model, processor)
    tower = model.audio_tower if hasattr(model, "audio_tower") else model.model.audio_tower
    raised = []

    def refuse(*_):
        raised.append(1)
        if len(raised) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = tower.register_forward_pre_hook(refuse)
    report = mi.check(lalm, items[:2])
    handle.remove()
    assert report.failed
    assert {result.verdict for result in report.failed} == {"error"}
    for result in report.failed:
        assert "memory ran out" in result.measured
        assert "wrongly" not in f"{result.measured} {result.remedy}"
    assert was_checked(lalm) is None


def test_logits_of_a_sweep_are_computed_in_blocks(tiny_lalm, items, monkeypatch):
    """The output head, whose rows are as long as the vocabulary, never gets more rows than fit."""
    prompt, edits = tiny_lalm.prompt(items[:2]), {str(k): mi.Mata(0.01 * k, [1, 2]) for k in range(40)}
    reference = mi.sweep(tiny_lalm, prompt, edits, progress=False)
    head = tiny_lalm.model.get_output_embeddings()
    row = 4 * head.weight.shape[0]
    monkeypatch.setattr(shared_prefill, "HEAD_BYTES", 6 * row)
    rows: list[int] = []
    handle = head.register_forward_hook(lambda _, args, output: rows.append(output.numel() * 4 // row))
    swept = mi.sweep(tiny_lalm, prompt, edits, progress=False)
    handle.remove()
    assert max(rows) <= 6
    assert sum(rows) >= 2 * len(edits)
    same(swept, reference)
