"""What the instruments ask of an accelerator, counted: kernels, copies to it, and waits for it.

A kernel takes some microseconds to launch whatever its size, and a wait lets the device run dry, so that on a
fast device both matter more than arithmetic. They are counted on the pretend accelerator of the tests, which
needs a C++ compiler and no accelerator; on a GPU the operators are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import mata_interp as mi
from mata_interp.errors import RunError

__all__ = ["TARGETS", "count_all"]

KINDS = ("kernels", "copies_to_device", "synchronisations")
BATCH, SHORT, LONG = 4, 8, 16
FEW, MANY = 20, 200  # configurations of a sweep

TARGETS: dict[str, dict[str, float]] = {  # largest acceptable numbers
    "trace, last query, more than a plain forward": {"synchronisations": 2},
    "trace, text queries, more than a plain forward": {"synchronisations": 2},
    "trace, generated answer, more than a generation": {"synchronisations": 2},
    "MATA in a forward, for each layer": {"kernels": 12, "synchronisations": 0},
    "MATA in a generation, for each token and layer": {"kernels": 10, "synchronisations": 0},
    "sampling, for each token, more than greedy": {"synchronisations": 0},
    f"sweep of {MANY}, more than of {FEW} configurations": {"kernels": 0, "synchronisations": 0},
}


def count_all() -> list[dict[str, Any]]:
    """One row for each task: ``name``, KINDS, and whether the ``target`` is reached; None without one.

    Raises:
        RunError: there is no C++ compiler.
    """
    root = str(Path(__file__).parents[2])
    sys.path.insert(0, root)
    try:
        from tests.second_device import accelerator
    finally:
        sys.path.remove(root)
    if accelerator.compiler() is None:
        raise RunError(
            "Counting needs a C++ compiler, and there is none: install one, or set CXX to its path."
        )
    accelerator.install()
    lalm = mi.LALM.from_pretrained("organism")
    lalm.model.to("accel:0")
    lalm.model.generation_config.eos_token_id = [10**6]  # no answer ends before it is LONG
    prompt = lalm.prompt(mi.load_benchmark("listening").split("selection")[:BATCH])
    lalm.prepare(prompt)

    def count(task: Callable[[], object]) -> dict[str, float]:
        task()  # what is made once is not counted
        with accelerator.counting() as counts:
            task()
        return {kind: getattr(counts, kind) for kind in KINDS}

    rows = _rows(lalm, prompt, count)
    return [_judged(name, counts) for name, counts in rows.items()]


def _judged(name: str, counts: dict[str, float]) -> dict[str, Any]:
    target = TARGETS.get(name)
    reached = None if target is None else all(counts[kind] <= most for kind, most in target.items())
    return {"name": name, **{kind: counts[kind] for kind in KINDS}, "target": target, "reached": reached}


def _rows(
    lalm: mi.LALM, prompt: mi.Prompt, count: Callable[[Callable[[], object]], dict[str, float]]
) -> dict[str, dict[str, float]]:
    layers = lalm.num_layers
    few, all_layers = mi.Mata(1.0, range(2)), mi.Mata(1.0, range(layers))
    half = mi.Mata(1.0, range(layers // 2))

    @torch.inference_mode()
    def forward() -> object:
        return lalm.model(**prompt.inputs, use_cache=False)

    def trace(batches: int, query: str = "last") -> Callable[[], object]:
        return lambda: mi.trace(lalm, [prompt] * batches, query, progress=False, max_new_tokens=SHORT)

    def generate(tokens: int, edit: mi.AttentionEdit | None = None, temperature: float = 0.0) -> Any:
        return lambda: lalm.generate(prompt, edit, max_new_tokens=tokens, temperature=temperature)

    def sweep(configurations: int) -> Callable[[], object]:
        edits = [mi.Mata(0.01 * k, range(k % 3, 5)) for k in range(1, configurations + 1)]
        return lambda: mi.sweep(lalm, prompt, edits, block=configurations, progress=False)

    plain, greedy = count(forward), {tokens: count(generate(tokens)) for tokens in (SHORT, LONG)}
    edited = {tokens: count(generate(tokens, half)) for tokens in (SHORT, LONG)}
    sampled = {tokens: count(generate(tokens, None, 1.0)) for tokens in (SHORT, LONG)}
    token = _share(_less(greedy[LONG], greedy[SHORT]), LONG - SHORT)
    token_with_mata = _share(_less(edited[LONG], edited[SHORT]), LONG - SHORT)
    sampled_token = _share(_less(sampled[LONG], sampled[SHORT]), LONG - SHORT)
    sweeps = {number: count(sweep(number)) for number in (FEW, MANY)}
    # of a second batch: the first has the whole call's, such as the fingerprint of the weights
    batches = {query: _less(count(trace(2, query)), count(trace(1, query))) for query in ("last", "text")}
    answers = _less(count(trace(2, "generated")), count(trace(1, "generated")))
    return {
        "plain forward": plain,
        "trace, last query, more than a plain forward": _less(batches["last"], plain),
        "trace, text queries, more than a plain forward": _less(batches["text"], plain),
        "trace, generated answer, more than a generation": _less(answers, greedy[SHORT]),
        "MATA in a forward, for each layer": _share(
            _less(count(lambda: lalm.logits(prompt, all_layers)), count(lambda: lalm.logits(prompt, few))),
            layers - 2,
        ),
        "a generated token": token,
        "MATA in a generation, for each token and layer": _share(_less(token_with_mata, token), layers // 2),
        "sampling, for each token, more than greedy": _less(sampled_token, token),
        f"sweep of {FEW} configurations": sweeps[FEW],
        f"sweep of {MANY}, more than of {FEW} configurations": _less(sweeps[MANY], sweeps[FEW]),
    }


def _less(more: dict[str, float], less: dict[str, float]) -> dict[str, float]:
    return {kind: more[kind] - less[kind] for kind in KINDS}


def _share(counts: dict[str, float], number: int) -> dict[str, float]:
    return {kind: counts[kind] / number for kind in KINDS}
