"""Several threads that use one model, or two models, at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import compat
from mata_interp.attention import AttentionCall
from mata_interp.lalm import LALM
from mata_interp.lalm.calls.attention_calls import Add, attention_calls
from tests.tiny import tiny_qwen2_audio

MATA = mi.Mata(1.5, [1, 2], "add")
ROUNDS = 8


def together(*work: Callable[[], None]) -> list[BaseException]:
    """Run each callable in a thread of its own; the errors they raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(work))

    def guarded(one: Callable[[], None]) -> None:
        try:
            start.wait(timeout=30)
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    return errors


def repeated(call: Callable[[], np.ndarray | torch.Tensor], expected) -> Callable[[], None]:
    """Call again and again, and compare every bit."""

    def work() -> None:
        for _ in range(ROUNDS):
            np.testing.assert_array_equal(np.asarray(call()), np.asarray(expected))

    return work


@pytest.fixture
def calls(tiny_lalm, prompt):
    """One call of each kind."""
    return {
        "edit": lambda: tiny_lalm.logits(prompt, MATA),
        "plain": lambda: tiny_lalm.logits(prompt),
        "the model itself": lambda: tiny_lalm.model(**prompt.inputs).logits[:, -1].detach(),
        "trace": lambda: mi.trace(tiny_lalm, prompt, progress=False)["mass"].values,
        "sweep": lambda: mi.sweep(tiny_lalm, prompt, [None, MATA], progress=False).values,
        "generate": lambda: tiny_lalm.generate(prompt, MATA, max_new_tokens=3),
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("edit", "edit"),
        ("edit", "plain"),
        ("edit", "the model itself"),
        ("edit", "trace"),
        ("edit", "sweep"),
        ("trace", "trace"),
        ("trace", "plain"),
        ("sweep", "sweep"),
        ("sweep", "plain"),
        ("sweep", "the model itself"),
        ("generate", "sweep"),
    ],
)
def test_two_threads_use_one_model(calls, first, second):
    """Each gets the numbers that it gets alone, and the tables are as before."""
    tables = [dict(table()) for table in (compat.attention_function_table, compat.attention_mask_table)]
    alone = {name: calls[name]() for name in {first, second}}
    errors = together(*(repeated(calls[name], alone[name]) for name in (first, second)))
    assert errors == []
    after = [dict(table()) for table in (compat.attention_function_table, compat.attention_mask_table)]
    assert after == tables
    for name, expected in alone.items():
        np.testing.assert_array_equal(np.asarray(calls[name]()), np.asarray(expected))


def test_two_models_are_intercepted_at_the_same_time(tiny_lalm, prompt):
    """Each thread waits inside its interception until the other is inside its own."""
    other = LALM(*tiny_qwen2_audio(seed=1))
    both_inside = threading.Barrier(2)
    delta = torch.ones(3, 1, 4, 8)
    results: dict[str, torch.Tensor] = {}

    def on_call(layer: int, call: AttentionCall, total: int) -> Add:
        both_inside.wait(timeout=30)
        return Add(slice(-1, None), delta)

    def edited(name: str, lalm: LALM) -> None:
        with attention_calls(lalm.structure, [1], on_call, "direct") as run, torch.inference_mode():
            results[name] = run(lambda: lalm.model(**prompt.inputs).logits[:, -1])

    errors = together(lambda: edited("one", tiny_lalm), lambda: edited("two", other))
    assert errors == []
    for name, lalm in (("one", tiny_lalm), ("two", other)):
        add = lambda *_: Add(slice(-1, None), delta)  # noqa: E731
        with attention_calls(lalm.structure, [1], add, "direct") as run, torch.inference_mode():
            assert torch.equal(run(lambda m=lalm.model: m(**prompt.inputs).logits[:, -1]), results[name])


def test_the_second_thread_waits(tiny_lalm, prompt):
    """Wrappers of one model share its lock."""
    order = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with attention_calls(tiny_lalm.structure, [1], lambda *_: None, "direct"):
            inside.set()
            leave.wait(timeout=30)
            order.append("first")

    def second() -> None:
        inside.wait(timeout=30)
        threading.Timer(0.2, leave.set).start()
        LALM(tiny_lalm.model).logits(prompt, MATA)
        order.append("second")

    assert together(first, second) == []
    assert order == ["first", "second"]
