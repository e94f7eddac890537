"""Whatever changes what a model computes changes its fingerprint, at any time and in any way."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import mata_interp as mi
from mata_interp.errors import MataError
from mata_interp.lalm import LALM
from mata_interp.lalm import fingerprint as fingerprint_file
from mata_interp.lalm.discovery.hooks import temporary_hooks
from tests.tiny import tiny_qwen2_audio


@pytest.fixture
def lalm() -> LALM:
    return LALM(*tiny_qwen2_audio(seed=0))


@pytest.fixture
def answered(items) -> mi.Items:
    answers = [
        mi.Item(audio=item.audio, question=item.question, choices=item.choices, answer=item.choices[0])
        for item in items
    ]
    return mi.Items(answers, "three", "0" * 64)


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def scaled(factor: float, module, args, output):
    return factor * output


def closure(factor: float) -> Callable:
    return lambda module, args, output: factor * output


def up_projection(lalm: LALM, layer: int = 3) -> torch.Tensor:
    return lalm.structure.blocks[layer].mlp.up_proj.weight


def one_neuron(lalm: LALM) -> None:
    with torch.no_grad():
        up_projection(lalm)[20] *= 50


def one_value(lalm: LALM) -> None:
    with torch.no_grad():
        up_projection(lalm)[20, 3] += 1e-3


def through_data(lalm: LALM) -> None:
    """torch does not count changes made so."""
    up_projection(lalm).data[5, 7] += 1e-3


def swapped_rows(lalm: LALM) -> None:
    weight = up_projection(lalm).data
    weight[[2, 9]] = weight[[9, 2]].clone()


def other_parameter(lalm: LALM) -> None:
    module = lalm.structure.blocks[0].mlp
    module.up_proj.weight = nn.Parameter(module.up_proj.weight.detach() * 2)


def hook(function: Callable) -> Callable[[LALM], object]:
    return lambda lalm: lalm.structure.blocks[1].mlp.register_forward_hook(function)


CHANGES: dict[str, Callable[[LALM], object]] = {
    "one neuron": one_neuron,
    "one value": one_value,
    "a value through .data": through_data,
    "two rows in turn through .data": swapped_rows,
    "another parameter": other_parameter,
    "a buffer": lambda lalm: lalm.model.register_buffer("shift", torch.ones(2)),
    "bfloat16": lambda lalm: lalm.model.to(torch.bfloat16),
    "a config": lambda lalm: setattr(lalm.structure.decoder.config, "rms_norm_eps", 1e-3),
    "a forward hook": hook(scaled),
    "a hook before the forward": lambda lalm: lalm.model.register_forward_pre_hook(lambda *_: None),
    "a parametrisation": lambda lalm: parametrize.register_parametrization(
        lalm.structure.blocks[1].mlp.up_proj, "weight", Doubled()
    ),
    "a forward of its own": lambda lalm: setattr(lalm.structure.blocks[1].mlp, "forward", lambda x: 0 * x),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_after_the_fingerprint_was_read(lalm, change):
    before = lalm.fingerprint()
    assert lalm.fingerprint() == before
    assert json.loads(json.dumps(before)) == before
    change(lalm)
    after = lalm.fingerprint()
    assert after != before
    assert LALM(lalm.model).fingerprint() == after | {"name": LALM(lalm.model).name}
    assert json.loads(json.dumps(after)) == after


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (partial(scaled, 2.0), partial(scaled, 3.0)),
        (closure(2.0), closure(3.0)),
        (closure(torch.ones(3)), closure(torch.zeros(3))),
        (lambda m, a, out: 2 * out, lambda m, a, out: 3 * out),
    ],
    ids=["partial", "closure", "tensor in a closure", "constant"],
)
def test_two_hooks_of_the_same_name(lalm, first, second):
    prints = []
    for function in (first, second, first):
        handle = hook(function)(lalm)
        prints.append(lalm.fingerprint())
        handle.remove()
    assert prints[0] == prints[2] != prints[1]
    assert lalm.fingerprint()["changes"] == []


def test_hooks_of_the_package_do_not_count(lalm, prompt):
    lalm.logits(prompt)  # the first forward probes the audio positions, in forwards of its own
    before = lalm.fingerprint()
    inside = []
    with temporary_hooks([(lalm.model, lambda args, kwargs: inside.append(lalm.fingerprint()))]):
        lalm.logits(prompt, mi.Mata(1.0, [1]))
    mi.trace(lalm, prompt, progress=False)
    lalm.model(**prompt.inputs, output_hidden_states=True)  # transformers leaves inert hooks behind
    assert inside == [before]
    assert lalm.fingerprint() == before


def test_a_second_reading_hashes_nothing_again(lalm, monkeypatch):
    before = lalm.fingerprint()
    hashed = []
    plain = fingerprint_file._tensor_digest
    monkeypatch.setattr(
        fingerprint_file, "_tensor_digest", lambda tensor: hashed.append(tensor.shape) or plain(tensor)
    )
    assert lalm.fingerprint() == before
    assert hashed == []
    one_neuron(lalm)
    assert lalm.fingerprint() != before
    assert hashed == [up_projection(lalm).shape]


def test_weights_in_inference_mode(lalm):
    """torch keeps no version of tensors that were made in inference mode."""
    with torch.inference_mode():
        other = LALM(*tiny_qwen2_audio(seed=0))
        assert other.fingerprint()["weights_sha256"] == lalm.fingerprint()["weights_sha256"]
        one_neuron(other)
        assert other.fingerprint()["weights_sha256"] != lalm.fingerprint()["weights_sha256"]


@pytest.mark.parametrize("change", ["one neuron", "bfloat16", "a forward hook"])
def test_a_changed_model_is_refused_a_run_folder(lalm, answered, tmp_path, change):
    run = partial(mi.run, lalm, answered, {"baseline": None}, out=tmp_path / "run", progress=False)
    first = run()
    assert run().records.equals(first.records)
    CHANGES[change](lalm)
    with pytest.raises(MataError, match="model"):
        run()


def test_adapters_are_part_of_a_fingerprint(answered, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need PEFT, of the dev extra")
    model, processor = tiny_qwen2_audio(seed=0)
    settings = peft.LoraConfig(
        r=2, target_modules=r".*language_model.*\.(q_proj|o_proj)", init_lora_weights=False
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(model, settings, adapter_name="A").eval()
        model.add_adapter("B", settings)
    lalm = LALM(model, processor)
    run = partial(mi.run, lalm, answered, {"baseline": None}, out=tmp_path / "run", progress=False)
    model.set_adapter("A")
    prints = {"A": lalm.fingerprint()}
    run()
    model.set_adapter("B")
    prints["B"] = lalm.fingerprint()
    with pytest.raises(MataError, match="model"):
        run()
    with model.disable_adapter():
        prints["off"] = lalm.fingerprint()
        with pytest.raises(MataError, match="model"):
            run()
    model.set_adapter("A")
    assert lalm.fingerprint() == prints["A"]
    model.merge_adapter()
    prints["merged"] = lalm.fingerprint()
    model.unmerge_adapter()
    for layer in model.modules():
        if hasattr(layer, "set_scale"):
            layer.set_scale("A", 3.0)
    prints["scaled"] = lalm.fingerprint()
    assert len({json.dumps(one) for one in prints.values()}) == 5
    assert prints["A"]["adapters"]["active"] == ["A"]
    assert prints["off"]["adapters"]["disabled"] is True
    assert prints["merged"]["adapters"]["merged"] == ["A"]


def test_a_shipped_model_that_was_changed_counts_as_unchecked():
    from mata_interp.lalm.verification import was_checked

    lalm = LALM.from_pretrained("organism")
    assert was_checked(lalm) is True
    handle = lalm.structure.blocks[1].register_forward_hook(lambda *_: None)
    assert was_checked(lalm) is None
    handle.remove()
    assert was_checked(lalm) is True
    one_neuron(lalm)
    assert was_checked(lalm) is None
