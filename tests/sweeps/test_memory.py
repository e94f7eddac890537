"""The block follows what is free, and never falls to nothing."""

from __future__ import annotations

import torch

from mata_interp.sweeps.memory import SHARE, configurations_at_once, free_bytes
from tests.reference import process_peak

GIB = 2**30


def test_the_machine_says_what_is_free():
    free = free_bytes(torch.device("cpu"))
    assert 64 * 2**20 < free < 2**50


def test_a_block_fits_and_is_never_empty():
    one = dict(batch=4, slots=7, past=800, heads=8, width=512)
    few, many = (configurations_at_once(free, **one) for free in (GIB, 10 * GIB))
    assert 9 * few <= many <= 11 * few
    scores = 4 * 4 * 7 * 8 * 807  # bytes of one configuration's scores
    assert few * scores < SHARE * GIB
    assert configurations_at_once(0, **one) == 1
    assert configurations_at_once(GIB, **{**one, "past": 16_000}) < few


ONE_MORE = """
import warnings; warnings.simplefilter("ignore")
import numpy as np
import mata_interp as mi
from tests.tiny import RATE, tiny_qwen2_audio

lalm = mi.LALM(*tiny_qwen2_audio(seed=3, layers=6, heads=8, kv_heads=8, head_dim=16, chunk_length=20))
sound = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32), RATE
item = mi.Item(audio=sound, question="Which?", choices=("a bell", "no"), answer="no")
edits = [mi.Mata(0.001 * k, [0, 1, 2]) for k in range(1, {count} + 1)]
mi.sweep(lalm, item, [None], progress=False)
before = peak()
swept = mi.sweep(lalm, item, edits, block={block}, progress=False)
assert swept.attrs["looped"] == 0
print(peak() - before)
"""
PAST = 615  # tokens before the last, of this item
KEYS_AND_VALUES = 2 * 6 * 8 * 16 * 4 * PAST  # bytes: 3.6 MB, of which 1,000 copies would be 3.6 GB


def test_a_thousand_configurations_take_no_more_memory_than_ten():
    few, many = (process_peak(ONE_MORE.format(count=count, block=10)) for count in (10, 1000))
    assert many - few < 12 * 2**20
    assert many < 10 * KEYS_AND_VALUES  # and these ten not their own keys and values each


def test_a_block_takes_what_it_is_thought_to_take():
    """100 rows: 100 MB measured, 101 MB by the formula that says how many fit."""
    grown = process_peak(ONE_MORE.format(count=100, block="None"))
    slots = 1 + len("a bell") - 1 + len("no") - 1  # the tiny tokenizer's tokens are bytes
    each = SHARE * GIB / configurations_at_once(GIB, 1, slots, PAST, heads=8, width=128)  # below the limit
    assert 0.5 * 100 * each < grown < 1.5 * 100 * each
