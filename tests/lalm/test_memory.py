"""What counts as running out of memory, how work is halved, and how much memory is free."""

from __future__ import annotations

import types

import pytest
import torch

from mata_interp.errors import RunError
from mata_interp.lalm.memory import UNKNOWN, free_bytes, in_halves, is_out_of_memory, memory_devices


def test_the_real_allocators_words_are_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("a bug"))


@pytest.mark.parametrize(("most", "parts"), [(7, [7]), (4, [4, 3]), (3, [2, 2, 3]), (1, [1] * 7)])
def test_halves_are_halved_until_they_fit(most, parts):
    tried = []

    def compute(part):
        tried.append(len(part))
        if len(part) > most:
            raise torch.OutOfMemoryError
        return list(part)

    result = in_halves(compute, range(7))
    assert [len(part) for part in result] == parts
    assert [element for part in result for element in part] == list(range(7))
    assert tried[0] == 7


def test_the_tensors_of_a_failed_attempt_are_gone_before_the_next():
    alive: list[int] = []

    class Held:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def compute(part):
        assert not alive
        held = [Held()]
        if len(part) > 1:
            raise MemoryError
        del held
        return part

    assert in_halves(compute, "abcd") == list("abcd")


def test_what_does_not_fit_alone_is_named_or_left_to_the_caller():
    def compute(part):
        raise MemoryError("no room")

    with pytest.raises(RunError, match=r"item 'a' does not fit in memory by itself") as caught:
        in_halves(compute, ["a", "b"], lambda name: f"item {name!r}")
    assert isinstance(caught.value.__cause__, MemoryError)
    assert not is_out_of_memory(caught.value)
    with pytest.raises(MemoryError, match="no room"):
        in_halves(compute, ["a", "b"])


def test_the_machine_says_what_is_free():
    assert 64 * 2**20 < free_bytes(torch.device("cpu")) < 2**50
    assert free_bytes() == UNKNOWN


def test_what_an_allocator_holds_in_reserve_is_free_too(monkeypatch):
    """Of several devices, the one with least decides."""
    gib = 2**30
    cuda = types.SimpleNamespace(
        mem_get_info=lambda device: ({0: 10 * gib, 1: 5 * gib}[device.index], 80 * gib),
        memory_reserved=lambda device: 7 * gib,
        memory_allocated=lambda device: 4 * gib,
    )
    mps = types.SimpleNamespace(
        recommended_max_memory=lambda: 12 * gib, current_allocated_memory=lambda: 5 * gib
    )
    modules = {"cuda": cuda, "mps": mps, "xpu": types.SimpleNamespace()}
    monkeypatch.setattr(torch, "get_device_module", lambda device: modules[device.type])
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    assert free_bytes(first) == 13 * gib
    assert free_bytes(first, second) == 8 * gib
    assert free_bytes(torch.device("mps")) == 7 * gib
    assert free_bytes(torch.device("xpu")) == UNKNOWN


def test_devices_of_weights_that_are_loaded():
    weights = [torch.empty(1), torch.empty(1, device="meta"), torch.empty(2)]
    assert memory_devices(weights) == (torch.device("cpu"),)
