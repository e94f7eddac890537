"""Every call leaves the process and the model as it found them, also when it raises in the middle.

A snapshot holds transformers' tables of attention and mask functions, every config, all hooks, the attributes
of every module, the lock of the model, the filters of warnings and the states of the random generators.
"""

from __future__ import annotations

import gc
import random
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp import compat
from mata_interp.lalm import LALM
from mata_interp.lalm.calls import function_table
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.discovery.structure import decoder_of
from mata_interp.lalm.rows import prefill, row_attention
from tests.tiny import tiny_qwen2_audio

MATA = mi.Mata(1.5, [1, 2], "add")


@pytest.fixture(params=["sdpa", "eager"])
def lalm(request) -> LALM:
    lalm = LALM(*tiny_qwen2_audio(seed=0, attention=request.param))
    # The first generation of a process imports modules of transformers that add filters of warnings.
    lalm.model.generate(input_ids=torch.tensor([[1, 2]]), max_new_tokens=1)
    return lalm


@pytest.fixture
def answered(items) -> list[mi.Item]:
    """Items with answers, as fusion needs them."""
    return [
        mi.Item(audio=item.audio, question=item.question, choices=item.choices, answer=item.choices[0])
        for item in items
    ]


CALLS: dict[str, Callable[[LALM, list[mi.Item]], Any]] = {
    "trace last": lambda lalm, items: mi.trace(lalm, items, progress=False),
    "trace text": lambda lalm, items: mi.trace(lalm, items, query="text", progress=False),
    "trace generated": lambda lalm, items: mi.trace(
        lalm, items, query="generated", max_new_tokens=3, progress=False
    ),
    "logits": lambda lalm, items: lalm.logits(lalm.prompt(items), MATA),
    "generate": lambda lalm, items: lalm.generate(lalm.prompt(items), MATA, max_new_tokens=3),
    "sampled": lambda lalm, items: lalm.generate(
        lalm.prompt(items), MATA, max_new_tokens=3, temperature=1.0, seed=3
    ),
    "score": lambda lalm, items: lalm.score(lalm.prompt(items), [item.choices for item in items], MATA),
    "sweep": lambda lalm, items: mi.sweep(lalm, items, [None, MATA], progress=False),
    "sweep of prompts": lambda lalm, items: mi.sweep(lalm, lalm.prompt(items), [None, MATA], progress=False),
    "sweep of answers": lambda lalm, items: mi.sweep_generate(
        lalm, items, [None, MATA], decoding=mi.Decoding(max_new_tokens=2), progress=False
    ),
    "fusion_layers": lambda lalm, items: mi.fusion_layers(lalm, items[:1], progress=False),
    "fusion_layers with a baseline": lambda lalm, items: mi.fusion_layers(
        lalm, items[:1], baseline=MATA, progress=False
    ),
    "to_transformer_lens": lambda lalm, items: lalm.to_transformer_lens(lalm.prompt(items[:1])).difference,
    "audio probe": lambda lalm, items: lalm.audio_alignment(lalm.prompt(items)),
    "fingerprint": lambda lalm, items: lalm.fingerprint(),
}

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def configs_in(model: Any) -> list[Any]:
    """Every config of a model and of its parts, each once."""
    configs = [config for part in model.modules() if (config := getattr(part, "config", None)) is not None]
    return list({id(config): config for config in configs}.values())


def snapshot(model: Any) -> dict[str, Any]:
    return {
        "attention functions": list(compat.attention_function_table().items()),
        "mask functions": list(compat.attention_mask_table().items()),
        "replaced configs": dict(function_table._replaced),
        "configs": [
            (id(config), config.to_json_string(), compat.attention_name(config), sorted(vars(config)))
            for config in configs_in(model)
        ],
        "modules": [(name, id(module), type(module)) for name, module in model.named_modules()],
        "hooks": [[list(getattr(m, name).items()) for name in HOOKS] for m in model.modules()],
        "attributes": [
            {name: id(value) for name, value in vars(m).items() if name not in HOOKS} for m in model.modules()
        ],
        "modes": [(m.training, *(p.requires_grad for p in m.parameters())) for m in model.modules()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "inside modules": [
            {name: sorted(part) for name, part in vars(m).items() if isinstance(part, dict)}
            for m in model.modules()
        ],
        "generation config": model.generation_config.to_json_string(),
        "the model's lock is free": _can_lock(model),
        "warnings": list(warnings.filters),
        "torch": (torch.get_rng_state().tolist(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "numpy": repr(np.random.get_state(legacy=False)),  # noqa: NPY002 the state that others share
        "python": random.getstate(),
    }


def _can_lock(model: Any) -> bool:
    """Whether another thread can use the model."""
    locked = []

    def lock() -> None:
        with exclusive(decoder_of(model)):
            locked.append(True)

    thread = threading.Thread(target=lock, daemon=True)
    thread.start()
    thread.join(timeout=10)
    return locked == [True]


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.parametrize("name", CALLS)
def test_after_a_call(lalm, answered, name):
    before = snapshot(lalm.model)
    CALLS[name](lalm, answered)
    assert_same(before, snapshot(lalm.model))


class Interrupted(BaseException):
    """As an interrupt from the keyboard: no handler of the package may take it for an error of its own."""


@pytest.mark.parametrize("where", ["first", "late"])
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("audio probe", "fingerprint")])
def test_after_an_exception_in_the_middle(lalm, answered, monkeypatch, name, where):
    """Raised in the norm before the last layer's attention, at its first forward or at a later one."""
    norm = type(lalm.structure.blocks[-1].input_layernorm)
    plain = norm.forward
    passes = []

    def counted(module, *args, **kwargs):
        passes.append(1)
        return plain(module, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(norm, "forward", counted)
        CALLS[name](LALM(*tiny_qwen2_audio(seed=0)), answered)
    limit = 3 if where == "first" else max(3, round(0.8 * len(passes)))
    del passes[:]

    def interrupted(module, *args, **kwargs):
        passes.append(1)
        if len(passes) == limit:
            raise Interrupted
        return plain(module, *args, **kwargs)

    before = snapshot(lalm.model)
    with monkeypatch.context() as patched:
        patched.setattr(norm, "forward", interrupted)
        with pytest.raises(Interrupted):
            CALLS[name](lalm, answered)
    assert_same(before, snapshot(lalm.model))


def test_after_an_exception_in_the_audio_probe(lalm, answered, monkeypatch):
    encoder = type(lalm.model.model.multi_modal_projector)
    before = snapshot(lalm.model)
    with monkeypatch.context() as patched:
        patched.setattr(encoder, "forward", _interrupt)
        with pytest.raises(Interrupted):
            lalm.logits(lalm.prompt(answered))
    assert_same(before, snapshot(lalm.model))


def _interrupt(*args: Any, **kwargs: Any) -> None:
    raise Interrupted


def test_a_difference_would_be_seen(lalm):
    """Each kind of thing that a call could leave behind."""
    model, module = lalm.model, lalm.structure.attention[1]
    table, masks = compat.attention_function_table(), compat.attention_mask_table()
    handles = []

    def differs(change: Callable[[], Any], undo: Callable[[], Any], name: str) -> None:
        before = snapshot(model)
        change()
        after = snapshot(model)
        undo()
        assert name in [key for key in before if before[key] != after[key]]
        assert_same(before, snapshot(model))

    differs(lambda: table.update(left=print), lambda: table.pop("left"), "attention functions")
    differs(lambda: masks.update(left=print), lambda: masks.pop("left"), "mask functions")
    original = compat.attention_name(module.config)
    differs(
        lambda: compat.set_attention_name(module.config, "other"),
        lambda: compat.set_attention_name(module.config, original),
        "configs",
    )
    differs(
        lambda: handles.append(module.register_forward_hook(print)), lambda: handles.pop().remove(), "hooks"
    )
    differs(
        lambda: vars(module).update(forward=module.forward), lambda: vars(module).pop("forward"), "attributes"
    )
    state = torch.get_rng_state()
    differs(lambda: torch.rand(1), lambda: torch.set_rng_state(state), "torch")


def test_a_sweep_frees_its_rows_and_their_cache(lalm, answered, monkeypatch):
    """The last batch's keys and values once stayed in transformers' table as long as the process lived."""
    freed = []

    class Watched(row_attention.RowAttention):
        def __init__(self, cache: Any, *args: Any) -> None:
            super().__init__(cache, *args)
            freed.extend([weakref.ref(self), weakref.ref(cache), weakref.ref(cache.layers[0].keys)])

    monkeypatch.setattr(prefill, "RowAttention", Watched)
    swept = mi.sweep(lalm, answered, [None, MATA], progress=False)
    assert swept.attrs["looped"] == 0
    assert len(freed) >= 3
    gc.collect()
    assert [ref() for ref in freed if ref() is not None] == []


def test_a_model_is_freed_with_its_wrapper(answered):
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    mi.trace(lalm, answered, progress=False)
    mi.sweep(lalm, answered, [None, MATA], progress=False)
    model = weakref.ref(lalm.model)
    del lalm
    gc.collect()
    assert model() is None
