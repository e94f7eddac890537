"""The block follows what is free, and never falls to nothing."""

from __future__ import annotations

import torch

from mata_interp.sweeps.memory import SHARE, configurations_at_once, free_bytes

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
