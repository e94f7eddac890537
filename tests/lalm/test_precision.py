"""What surrounds a call changes none of its numbers: autocast, and how float32 products are computed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.compat import float32_products
from mata_interp.lalm import LALM
from mata_interp.precision import full_precision
from tests.second_device.paths import LONG, PATHS
from tests.support.sounds import make_items
from tests.tiny import tiny_qwen2_audio

EQUAL = [name for name in PATHS if name not in LONG]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    items = make_items(tmp_path_factory.mktemp("clips"), clips=3, splits=("selection",))
    return LALM(*tiny_qwen2_audio(seed=0), name="tiny"), [items[0], items[5]]


@contextmanager
def surroundings():
    """Autocast, and float32 products that may be rounded to bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def test_surroundings_change_this_model(setting):
    """Without protection it would show."""
    lalm, items = setting
    prompt = lalm.prompt(items)
    with torch.no_grad():
        plain = lalm.model(**prompt.inputs).logits
        with surroundings():
            cast = lalm.model(**prompt.inputs).logits
    assert (cast.float() - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", EQUAL)
def test_a_path_gives_the_same_bits(setting, name):
    lalm, items = setting
    plain = PATHS[name](lalm, items)
    with surroundings():
        surrounded = PATHS[name](lalm, items)
    assert plain.keys() == surrounded.keys()
    for key, value in plain.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(surrounded[key], value, err_msg=key)
        else:
            assert surrounded[key] == value, key


def test_the_model_runs_in_the_dtype_of_its_weights(setting):
    lalm, items = setting
    states = []

    def note(module, args, output):
        states.append((output.dtype, torch.get_float32_matmul_precision()))

    hook = lalm.structure.blocks[1].mlp.register_forward_hook(note)
    try:
        with surroundings():
            lalm.logits(items, mi.Mata(1.0, [1]))
            mi.trace(lalm, items, progress=False)
    finally:
        hook.remove()
    assert set(states) == {(torch.float32, "highest")}


@pytest.mark.acceptance
def test_a_check_passes_in_these_surroundings(setting):
    lalm, items = setting
    with surroundings():
        PATHS["check"](lalm, items)  # which requires that it passes


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_setting_of_products_is_put_back(precision):
    before = float32_products()
    try:
        torch.set_float32_matmul_precision(precision)
        expected = float32_products()
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            with full_precision():
                pass
            assert torch.get_float32_matmul_precision() == "highest"
        assert float32_products() == expected
    finally:
        torch.set_float32_matmul_precision(before[0])


def test_the_newer_setting_of_products_is_put_back():
    """Where it is used, torch no longer says what the older one is."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        with full_precision():
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_threads_that_overlap_put_the_setting_back():
    entered, leave = threading.Barrier(2), threading.Event()

    def work(wait: Callable[[], object]) -> None:
        with full_precision():
            entered.wait()
            wait()

    torch.set_float32_matmul_precision("high")
    try:
        other = threading.Thread(target=work, args=(leave.wait,))
        other.start()
        work(lambda: None)
        assert torch.get_float32_matmul_precision() == "highest"  # the other is still inside
        leave.set()
        other.join()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
