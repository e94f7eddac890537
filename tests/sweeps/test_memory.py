"""The block follows what is free, and never falls to nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.lalm.memory import free_bytes
from mata_interp.sweeps.memory import LIMIT, SHARE, configurations_at_once
from tests.sweeps.counted_memory import counted_peak
from tests.tiny import RATE, tiny_qwen2_audio

GIB = 2**30


def test_the_machine_says_what_is_free():
    free = free_bytes(torch.device("cpu"))
    assert 64 * 2**20 < free < 2**50


def test_a_block_fits_and_is_never_empty():
    one = dict(batch=4, slots=7, past=800, heads=8, width=512)
    few, many, most = (configurations_at_once(free, **one) for free in (GIB // 4, GIB, 100 * GIB))
    assert 3 * few <= many <= 5 * few
    scores = 4 * 4 * 7 * 8 * 807  # bytes of one configuration's scores
    assert few * scores < SHARE * GIB // 4
    assert many < most
    assert most * scores < LIMIT
    assert configurations_at_once(0, **one) == 1
    assert configurations_at_once(GIB, **{**one, "past": 16_000}) < few


PAST = 615  # tokens before the last, of the item
KEYS_AND_VALUES = 2 * 6 * 8 * 16 * 4 * PAST  # bytes: 3.8 MB, of which 1,000 copies would be 3.8 GB


@pytest.fixture(scope="module")
def lalm() -> mi.LALM:
    return mi.LALM(*tiny_qwen2_audio(seed=3, layers=6, heads=8, kv_heads=8, head_dim=16, chunk_length=20))


@pytest.fixture(scope="module")
def item(lalm) -> mi.Item:
    sound = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32), RATE
    item = mi.Item(audio=sound, question="Which?", choices=("a bell", "no"), answer="no")
    assert lalm.prepare(item).width == PAST + 1
    return item


def peak_of(lalm, item, count: int, block: int | None) -> int:
    edits = [mi.Mata(0.001 * k, [0, 1, 2]) for k in range(1, count + 1)]

    def run() -> None:
        swept = mi.sweep(lalm, item, edits, block=block, progress=False)
        assert swept.attrs["looped"] == 0

    return counted_peak(lalm.model, run)


def test_the_count_is_that_of_live_tensors(lalm):
    def run() -> None:
        for _ in range(5):
            torch.zeros(1000, dtype=torch.float32).add(1)  # two at once, ten in all

    assert 2 * 4000 <= counted_peak(lalm.model, run) <= 3 * 4000


def test_a_thousand_configurations_take_no_more_memory_than_ten(lalm, item):
    few, many = (peak_of(lalm, item, count, block=10) for count in (10, 1000))
    assert many - few < 2**20
    plain = counted_peak(lalm.model, lambda: lalm.score(item))
    # these ten do not hold keys and values of their own
    assert many - plain < 10 * KEYS_AND_VALUES / 2


def test_a_block_takes_what_the_formula_expects(lalm, item):
    few, many = (peak_of(lalm, item, count, block=count) for count in (100, 300))
    slots = 1 + len("a bell") - 1 + len("no") - 1  # the tiny tokenizer's tokens are bytes
    each = SHARE * GIB / configurations_at_once(GIB, 1, slots, PAST, heads=8, width=128)  # below the limit
    assert 0.4 * 200 * each < many - few < 1.5 * 200 * each
